"""Ctrl-C and SIGTERM, each sent to a process of its own."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import cli, interrupts

LAST = "skipstream: error: interrupted: the same command resumes"
START = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from types import SimpleNamespace
    from components.artifacts import Corpus, Examples
    from pipeline import cli, config
    from pipeline.runner import Runner

    def interrupt():
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(30)

    def swallow(out):
        try:
            interrupt()
        except BaseException:
            return out.finish()

    def disguise(out):
        try:
            interrupt()
        except BaseException as error:
            raise RuntimeError("KeyboardInterrupt [while running 'Encode']") from error

    def stages(build):
        def command(arguments):
            with Runner(Path(sys.argv[2]), config.load(None)) as runner:
                runner.stage("example_gen", Corpus, build, command="transform")
                print("went on")
        cli._parse = lambda argv: SimpleNamespace(command=command)
        cli.main()

"""


def execute(program: str, name: str, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + "    " + program, name, str(output)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("build", ["lambda out: interrupt()", "swallow", "disguise"])
def test_a_signal_ends_a_stage_whatever_a_library_makes_of_it(
    build: str, name: str, code: int, tmp_path: Path
):
    done = execute(f"stages({build})", name, tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines() == ["example_gen      running", LAST]


def test_a_second_signal_kills(tmp_path: Path):
    program = "stages(lambda out: swallow(SimpleNamespace(finish=interrupt)))"
    done = execute(program, "SIGINT", tmp_path)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.splitlines() == ["example_gen      running"]


@pytest.mark.parametrize(
    ("logger", "text", "interrupted", "shown"),
    [
        ("apache_beam.io", "retrying", False, True),
        ("apache_beam.io", "retrying", True, False),
        ("apache_beam.io", "boom [while running 'Encode']", False, False),
        ("apache_beam.x", 'message: "No semi_persistent_directory found: x"', False, False),
        ("other", "No semi_persistent_directory found: x", True, True),
    ],
)
def test_beam_logs_only_what_is_news(
    logger: str, text: str, interrupted: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interrupts, "_received", [signal.SIGINT] if interrupted else [])
    record = logging.LogRecord(logger, logging.WARNING, "", 0, text, None, None)
    assert cli._is_news(record) is shown


@pytest.mark.parametrize(
    ("number", "moment", "seconds"),
    [
        (signal.SIGINT, "transform/*/work", 0.0),
        (signal.SIGINT, "transform/*/work", 1.0),
        (signal.SIGINT, "transform/*/work", 2.5),
        (signal.SIGTERM, "trainer/*/logs/train", 0.5),
    ],
)
def test_a_signal_to_the_whole_group_ends_a_run_in_one_line(
    number: signal.Signals, moment: str, seconds: float, tmp_path: Path
):
    (tmp_path / "a.txt").write_text("the ship has a sail and the wave an anchor\n" * 3000)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline", "run", "--input", str(tmp_path / "a.txt")]
    command += ["--output", str(output), "--set", "trainer.epochs=2000", "trainer.sample=0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(output.glob(moment)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(process.pid, number)  # As a terminal does.
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert errors.replace("\r", "\n").splitlines()[-1] == LAST
    assert "Traceback" not in errors
