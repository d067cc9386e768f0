"""Runs that a signal ends, that another one keeps off, or that find no room."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import SETTINGS, Command, start, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), lines=1000)


def send(
    process: subprocess.Popen[str], number: signal.Signals, moment: Callable[[], Any]
) -> list[str]:
    """Send a signal as soon as it is the moment; returns the lines of stderr."""
    deadline = time.monotonic() + 120
    with process:
        try:
            while True:
                time.sleep(0.01)
                assert process.poll() is None
                assert time.monotonic() < deadline
                process.send_signal(signal.SIGSTOP)  # So that the moment does not pass.
                if moment():
                    break
                process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            return process.communicate(timeout=120)[1].splitlines()
        finally:
            process.kill()


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

    assert send(process, signal.SIGINT, moment)[-1] == INTERRUPTED
    assert process.returncode == 128 + signal.SIGINT


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
    process = start("run", "--input", corpus, "--output", tmp_path)
    lines = send(process, number, lambda: list(tmp_path.glob(moment)))
    assert process.returncode == 128 + number
    assert lines[-1] == INTERRUPTED
    assert "bug" not in "".join(lines)
    assert not list(tmp_path.glob("transform/*/manifest.json"))


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
    lines = send(process, signal.SIGINT, lambda: epochs() >= 2)
    assert process.returncode == 128 + signal.SIGINT
    assert lines[-1] == INTERRUPTED
    assert "bug" not in "".join(lines)
    assert not list(tmp_path.glob("trainer/*/manifest.json"))

    resumed = command("train", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 12/12" in resumed.stderr
    assert "epoch 1/12" not in resumed.stderr
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert stages["transform"]["reused"]
    assert not stages["trainer"]["reused"]


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
        done = command("run", "--input", corpus, "--output", tmp_path, *SETTINGS)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 1
    assert "disk full" in done.stderr.splitlines()[-1]
