"""Runs and trainings that a signal ends, and runs that another one keeps off, or without room."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import forks
import pytest
from commands import Command, start, write_corpus
from test_dataset import random_documents, write_examples
from trainings import (
    NEVER,
    SETTINGS,
    TABLES_WITH_NGRAMS,
    WITH_NGRAMS,
    digests,
    losses,
    newest_checkpoint,
    process,
    train,
)

from components.artifacts import Examples
from components.trainer.cluster import hand
from components.trainer.cluster.job import Job
from components.trainer.cluster.station import Station
from pipeline import cli


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), lines=1000)


def send(process: int, number: signal.Signals, moment: Callable[[], Any]) -> None:
    """Send a signal as soon as it is the moment."""
    deadline = time.monotonic() + 120
    while True:
        time.sleep(0.01)
        assert time.monotonic() < deadline
        assert Path(f"/proc/{process}/cmdline").read_bytes()  # It has not ended.
        os.kill(process, signal.SIGSTOP)  # So that the moment does not pass.
        if moment():
            break
        os.kill(process, signal.SIGCONT)
    os.kill(process, number)
    os.kill(process, signal.SIGCONT)


def interrupted(process: subprocess.Popen[str], moment: Callable[[], Any]) -> list[str]:
    """Send SIGINT, which ends the process; the lines of stderr."""
    with process:
        try:
            send(process.pid, signal.SIGINT, moment)
            lines = process.communicate(timeout=120)[1].splitlines()
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert lines[-1] == INTERRUPTED
    return lines


def test_an_interrupt_that_a_library_swallows_is_raised_again_until_it_is_heard() -> None:
    script = """
import os, signal, sys, time
from pipeline import interrupts

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

interrupts.AGAIN_SECONDS = 0.1
interrupts.install()
try:
    Swallowing()
    print("swallowed")
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("cleaned up")
interrupts.heard()
time.sleep(0.3)
sys.exit(interrupts.exit_code())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "swallowed\ncleaned up\n"
    assert done.returncode == 128 + signal.SIGTERM


INTERRUPTED = "skipstream: error: interrupted: the same command resumes"


def test_an_interrupted_run_says_nothing_more_of_what_it_was_importing(tmp_path: Path) -> None:
    # Without a corpus of its own: TensorFlow is imported beside the reading of docstrings.
    process = start("run", "--output", tmp_path / "out")

    def moment() -> bool:
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        return "tensorflow" in mapped

    interrupted(process, moment)


def run(*options: str) -> None:
    """As the program does."""
    sys.argv = ["skipstream", "run", *options]
    cli.main()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "transform/*/work"),  # TensorFlow traces, Beam starts.
        (signal.SIGTERM, "tokens/*.arrow"),  # Beam's workers are at work.
    ],
)
def test_a_signal_ends_the_beam_job_in_one_line(
    corpus: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    process = forks.start(log, run, "--input", str(corpus), "--output", str(out))
    try:
        assert process.pid  # 0 would be this process and all beside it.
        send(process.pid, number, lambda: list(out.glob(moment)))
        process.join(120)
    finally:
        process.kill()
    lines = log.read_text().splitlines()
    assert process.exitcode == 128 + number
    assert lines[-1] == INTERRUPTED
    assert "bug" not in "".join(lines)
    assert not list(out.glob("transform/*/manifest.json"))


def test_an_interrupted_training_goes_on_where_it_was(
    corpus: Path, tmp_path: Path, command: Command
) -> None:
    def epochs() -> int:
        found = list(tmp_path.glob("trainer/*/history.json"))
        return len(json.loads(found[0].read_text())) if found else 0

    options = ["--input", corpus, "--output", tmp_path, "--set", "trainer.dimensions=24"]
    options += ["trainer.sample=0", "trainer.epochs=12", "trainer.checkpoint_minutes=0.001"]
    assert command("transform", *options).returncode == 0
    process = start("train", *options)
    lines = interrupted(process, lambda: epochs() >= 2)
    assert "bug" not in "".join(lines)
    assert not list(tmp_path.glob("trainer/*/manifest.json"))

    resumed = command("train", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 12/12" in resumed.stderr
    assert "epoch 1/12" not in resumed.stderr
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert stages["transform"]["reused"]
    assert not stages["trainer"]["reused"]


@pytest.fixture(scope="module")
def many_words(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Of six rounds of three shards, and so many words that merges and n-grams have parts."""
    path = tmp_path_factory.mktemp("many_words") / "examples"
    return write_examples(path, random_documents(0, 1800, types=2000), types=2000)


ROUNDS = {"epochs": 2, "shards": 3, "round_tokens": 1, "checkpoint_minutes": 1e-9}
WORDS = SETTINGS.model_copy(update=ROUNDS)
NGRAMS = WITH_NGRAMS.model_copy(update=ROUNDS)


@pytest.fixture(scope="module")
def words(many_words: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a thread of this process makes of them, at once."""
    return train(many_words, tmp_path_factory.mktemp("words"), WORDS).path


def test_any_number_of_threads_and_any_interruption_give_the_same_bits(
    many_words: Examples, words: Path, tmp_path: Path
) -> None:
    several, with_ngrams = tmp_path / "several", tmp_path / "with_ngrams"
    # Processes have other parts than this one, and each goes on with what another one began.
    process(many_words, 1, (with_ngrams, NGRAMS, ("writing", 1, 2)))
    assert newest_checkpoint(with_ngrams) == (1, 1)
    process(many_words, 2, (with_ngrams, NGRAMS, NEVER), (several, WORDS, ("unkept", 1, 2)))
    assert newest_checkpoint(several) == (1, 1)
    assert not (several / "manifest.json").exists()
    train(many_words, several, WORDS)
    assert digests(several) == digests(words)
    assert losses(several) == losses(words)
    here = train(many_words, tmp_path / "here", NGRAMS).path
    assert digests(here).keys() == TABLES_WITH_NGRAMS
    assert digests(here) == digests(with_ngrams)
    assert losses(here) == losses(with_ngrams)


def work_until_killed(address: str) -> None:
    """A hand of a cluster whose process is killed in mid-round: claimed, and not written."""
    learn = Station.learn

    def learn_or_die(self: Station, state: int, shard: int, device: str) -> bytes:
        if state == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(self, state, shard, device)

    Station.learn = learn_or_die  # type: ignore[method-assign]
    hand.work_at(address, 0, 1.0)


def test_a_process_killed_in_mid_round_costs_no_bit(
    many_words: Examples, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster of two, the other of which is this process."""
    codes: list[int | None] = []

    def start(self: Job, hands: int, patience: float) -> Callable[[], None]:
        victim = forks.start(tmp_path / "log", work_until_killed, self._address)
        learn = Station.learn

        def learn_beside(self: Station, state: int, shard: int, device: str) -> bytes:
            if state == 2 and not codes:  # Until the other has claimed a shard as well.
                victim.join(60)
                codes.append(victim.exitcode)
                victim.kill()
            return learn(self, state, shard, device)

        monkeypatch.setattr(Station, "learn", learn_beside)
        return lambda: hand.work_at(self._address, 1, 1.0)

    monkeypatch.setattr(Job, "start", start)
    distributed = WORDS.model_copy(update={"distributed": True})
    model = train(many_words, tmp_path / "out", distributed).path
    assert codes == [-signal.SIGKILL]
    assert digests(model) == digests(words)
    assert losses(model) == losses(words)


def test_an_output_directory_in_use(corpus: Path, tmp_path: Path, command: Command) -> None:
    holder = (
        "import sys\n"
        "from pipeline.config import load\n"
        "from pipeline.runner import Runner\n"
        "from pipeline.store import Store\n"
        "with Runner(Store.open(sys.argv[1]), load(None)): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        done = command("run", "--input", corpus, "--output", tmp_path)
        process.communicate("\n")
    assert done.returncode == 1
    assert f"is in use by process {process.pid}" in done.stderr.splitlines()[-1]


def test_a_full_disk(corpus: Path, tmp_path: Path, command: Command) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        done = command("run", "--input", corpus, "--output", tmp_path, *commands.SETTINGS)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 1
    assert "disk full" in done.stderr.splitlines()[-1]
