"""The Beam job on runners of other makers, started for real: the same bytes as in one process.

`make runners` fetches them below build/runners; a test whose runner is absent is skipped. Prism is
also a job server with workers in processes of their own, which is how Flink and Spark are used.
"""

import hashlib
import importlib.metadata
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import commands
import pytest
import test_cluster
import trainings
from commands import Command, free_port
from test_dataset import write_examples

from components.trainer.cluster.job import Job
from pipeline import cli

ROOT = Path(__file__).resolve().parents[2]
RUNNERS = ROOT / "build" / "runners" / importlib.metadata.version("apache-beam")
# Workers are started as `python`, which has to be the one that has Beam and skipstream.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Flink refuses to start a task manager that leaves any of these open.
FLINK_MEMORY = """
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 128m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 192m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that is cut into two units of work. Most of it is not text, and costs little."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    lines = [" ".join(draw.choices(words, k=12)) + f" line {number}" for number in range(2100)]
    lines[::5] = [f"{line} York{n % 7} Times{n % 7}" for n, line in enumerate(lines[::5])]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as file:
        for line in [*lines, *lines[:50]]:
            file.write(json.dumps({"text": line}).ljust(12_000) + "\n")
    return path


def arguments(corpus: Path, output: Path, *options: str) -> list[str]:
    """Of `skipstream`, for the stage alone; `options` are settings, `--` and options of Beam."""
    settings = "transform.phrase_passes=1", "transform.deduplicate=true"
    start = "transform", "--output", str(output), "--input", str(corpus), "--set", *settings
    return [*start, *options]


def digests(output: Path) -> dict[str, str]:
    """By the names of all files of the one artifact that are the same bytes in every run."""
    (artifact,) = (path.parent for path in output.glob("transform/*/manifest.json"))
    splits = [*(artifact / "train").iterdir(), *(artifact / "eval").iterdir()]
    names = "vocabulary.tsv", "phrases.tsv", "statistics.json"
    files = [*splits, *(artifact / name for name in names)]
    return {
        str(file.relative_to(artifact)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the job gives in one process."""
    output = tmp_path_factory.mktemp("local")
    assert cli.run(arguments(corpus, output)) == 0
    found = digests(output)
    assert len(found) == 2 + 2 + 3  # Each unit has a file in both splits.
    (vocabulary,) = output.glob("transform/*/vocabulary.tsv")
    assert vocabulary.read_text().count("_times") == 7
    (statistics,) = output.glob("transform/*/statistics.json")
    assert json.loads(statistics.read_text())["documents_dropped"] == {"duplicate": 50}
    return found


def wait_until(what: Callable[[], Any], process: subprocess.Popen[bytes], seconds: int = 60) -> Any:
    """What `what` returns, once that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        if process.poll() is not None:
            said = process.communicate()[1] if process.stderr else "(see its log)"
            raise AssertionError(f"{process.args} ended with {process.returncode}: {said}")
        time.sleep(0.01)
    raise AssertionError(f"nothing came of {process.args} in {seconds} s")


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("localhost", port)) == 0


@contextmanager
def running(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(*arguments: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running(*arguments, log=log) as process:
        wait_until(lambda: answers(port), process)
        yield process


@pytest.fixture(scope="module")
def pool(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[tuple[str, ...], subprocess.Popen[bytes]]]:
    """Beam options for workers in processes of their own, and what starts them."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    start = [sys.executable, "-m", module, f"--service_port={port}"]
    options = "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"
    log = tmp_path_factory.mktemp("pool") / "log"
    with serving(*start, port=port, log=log) as process:
        yield options, process


def workers_reading(path: Path, pool: subprocess.Popen[bytes]) -> list[int]:
    """Processes that the pool started and that hold `path` open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pool.pid and path in [fd.readlink() for fd in (process / "fd").iterdir()]:
                found.append(int(process.name))
        except OSError:  # It has ended, or closed a file.
            continue
    return found


def kill_a_worker(
    corpus: Path, output: Path, pool: subprocess.Popen[bytes], *beam_options: str
) -> tuple[int, str]:
    """Run the job, kill -9 the first worker that reads, and return code and stderr of the job."""
    with commands.start(*arguments(corpus, output, "--", *beam_options)) as job:
        try:
            (worker, *_) = wait_until(lambda: workers_reading(corpus, pool), job, 120)
            os.kill(worker, signal.SIGKILL)
            _, errors = job.communicate(timeout=240)
        finally:
            job.kill()
    return job.returncode, errors


@pytest.fixture(scope="module")
def prism() -> str:
    found = shutil.which("prism", path=f"{RUNNERS}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip(f"no prism in {RUNNERS} or on the PATH: `make runners` needs go")
    return found


@pytest.fixture(scope="module")
def prism_server(prism: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    start = [prism, f"--job_port={port}", "--serve_http=false"]
    with serving(*start, port=port, log=tmp_path_factory.mktemp("prism") / "log"):
        yield f"--job_endpoint=localhost:{port}"


def test_prism_gives_the_same_bytes(
    prism: str, corpus: Path, tmp_path: Path, expected: dict[str, str], command: Command
) -> None:
    options = "--", "--runner=PrismRunner", f"--prism_location={prism}"
    done = command(*arguments(corpus, tmp_path, *options))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == expected


def test_a_job_whose_worker_was_killed_leaves_nothing_that_looks_whole(
    prism_server: str, pool: Any, corpus: Path, tmp_path: Path
) -> None:
    workers, process = pool
    options = "--runner=PortableRunner", prism_server, *workers
    # Prism does not try a bundle again.
    code, errors = kill_a_worker(corpus, tmp_path, process, *options)
    assert code == 1, errors
    assert errors.splitlines()[-1].startswith("skipstream: error: the Beam job failed")
    assert not list(tmp_path.glob("transform/*/manifest.json"))


def test_workers_in_processes_of_their_own_give_the_same_bytes_to_whoever_asks_when_they_end(
    prism_server: str,
    pool: Any,
    corpus: Path,
    tmp_path: Path,
    expected: dict[str, str],
    command: Command,
) -> None:
    workers, _ = pool
    work = tmp_path / "work"
    output = arguments(corpus, tmp_path, "--set", f"transform.work_directory={work}", "--")
    launched = command(
        *output, "--runner=PortableRunner", prism_server, *workers, "--no_wait_until_finish"
    )
    assert launched.returncode == 4, launched.stderr
    # No runner at all: what is taken up is not run again.
    collect = *output, "--runner=PrismRunner", f"--prism_location={corpus}"
    end = time.monotonic() + 120
    while (done := command(*collect)).returncode:
        assert "wait until it has ended" in done.stderr.splitlines()[-1]
        assert time.monotonic() < end
        time.sleep(0.2)
    assert digests(tmp_path) == expected


def test_a_training_on_prism_loses_no_bit_when_its_worker_is_killed_in_mid_round(
    prism_server: str, pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, process = pool
    documents = write_examples(tmp_path / "examples", test_cluster.documents(), types=50)
    alone = test_cluster.train(documents, tmp_path / "alone", settings={"distributed": False})
    out, killed, jobs = tmp_path / "out", [], []
    start = Job.start

    def count(*given: Any) -> Any:
        jobs.append(given)
        return start(*given)

    monkeypatch.setattr(Job, "start", count)

    def kill() -> None:
        end = time.monotonic() + 120
        while not (worker := trainings.in_midst_of_work(out / "work")):
            assert time.monotonic() < end
            time.sleep(0.002)
        parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent == process.pid
        os.kill(worker, signal.SIGKILL)
        killed.append(worker)

    killer = threading.Thread(target=kill)
    killer.start()
    options = "--runner=PortableRunner", prism_server, *workers
    # Prism does not try a bundle again. The launcher does: the job has come further.
    model = test_cluster.train(documents, out, *options)
    killer.join()
    assert killed
    assert len(jobs) == 2
    assert test_cluster.digests(model.path) == test_cluster.digests(alone.path)
    assert test_cluster.losses(model) == test_cluster.losses(alone)


@pytest.fixture(scope="module")
def flink_jar() -> str:
    """Beam's job server for Flink, which brings all of Flink along."""
    jars = list(RUNNERS.glob("beam-runners-flink-*-job-server.jar"))
    if not jars or not shutil.which("java"):
        pytest.skip(f"no job server of Flink in {RUNNERS}, or no java: `make runners` needs mvn")
    return str(jars[0])


@contextmanager
def flink_server(jar: str, master: str, directory: Path) -> Iterator[str]:
    port = free_port()
    start = ["java", "-jar", jar, f"--flink-master={master}", f"--job-port={port}"]
    start += ["--artifact-port=0", "--expansion-port=0", f"--artifacts-dir={directory / 'staged'}"]
    with serving(*start, port=port, log=directory / "job-server.log"):
        yield f"--job_endpoint=localhost:{port}"


@contextmanager
def flink_cluster(jar: str, directory: Path, task_managers: int) -> Iterator[str]:
    rpc, rest = free_port(), free_port()
    (directory / "config.yaml").write_text(
        f"jobmanager.rpc.address: localhost\njobmanager.rpc.port: {rpc}\n"
        f"rest.address: localhost\nrest.port: {rest}\ntaskmanager.host: localhost\n"
        "restart-strategy.type: fixed-delay\nrestart-strategy.fixed-delay.attempts: 3\n"
        "restart-strategy.fixed-delay.delay: 1 s\n" + FLINK_MEMORY
    )
    runtime = "org.apache.flink.runtime"

    def start(name: str, log: str) -> Any:
        arguments = "java", "-cp", jar, f"{runtime}.{name}", "--configDir", str(directory)
        return running(*arguments, log=directory / log)

    def registered() -> bool:
        with urllib.request.urlopen(f"http://localhost:{rest}/overview") as response:
            return bool(json.load(response)["taskmanagers"] == task_managers)

    with start("entrypoint.StandaloneSessionClusterEntrypoint", "jobmanager.log") as manager:
        wait_until(lambda: answers(rest), manager)
        with ExitStack() as stack:
            for number in range(task_managers):
                log = f"taskmanager-{number}.log"
                stack.enter_context(start("taskexecutor.TaskManagerRunner", log))
            wait_until(registered, manager)
            yield f"localhost:{rest}"


@pytest.mark.parametrize("parallelism", [1, 2])
def test_flink_gives_the_same_bytes(
    flink_jar: str,
    pool: Any,
    corpus: Path,
    tmp_path: Path,
    expected: dict[str, str],
    command: Command,
    parallelism: int,
) -> None:
    workers, _ = pool
    with flink_server(flink_jar, "[local]", tmp_path) as endpoint:
        options = "--runner=PortableRunner", endpoint, f"--parallelism={parallelism}", *workers
        done = command(*arguments(corpus, tmp_path / "out", "--", *options))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == expected


def test_a_flink_cluster_gives_the_same_bytes_also_after_a_worker_was_killed(
    flink_jar: str, pool: Any, corpus: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    workers, process = pool
    with (
        flink_cluster(flink_jar, tmp_path, task_managers=2) as master,
        flink_server(flink_jar, master, tmp_path) as endpoint,
    ):
        options = "--runner=PortableRunner", endpoint, "--parallelism=2", *workers
        code, errors = kill_a_worker(corpus, tmp_path / "out", process, *options)
    assert code == 0, errors  # Flink starts the job again.
    assert digests(tmp_path / "out") == expected
