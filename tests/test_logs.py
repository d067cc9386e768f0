import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli, logs

PROGRAM = """if True:
    import logging, sys
    from stages import step
    from pipeline import cli
    from pipeline.commands import run
    from components.artifacts import Corpus
    from components.errors import NotBlessedError

    class Chain:
        examples = None
        def __init__(self, runner, *_, **__):
            self.runner = runner
        def run(self, command):
            self.runner.do(step(Corpus, lambda out: out.finish(documents=3, name="x")))
            logging.getLogger("apache_beam.x").warning("from Beam\\nin two lines")
            logging.getLogger("components.x").info("epoch 1/5", extra={"loss": 2.5})
            raise {error}

    run.Chain = Chain
    sys.argv = ["skipstream", "transform", "--output", sys.argv[1], *sys.argv[2:]]
    cli.main()
"""


def run(output: Path, error: str, *options: str) -> tuple[int, list[str]]:
    program = PROGRAM.replace("{error}", error)
    command = [sys.executable, "-c", program, str(output), *options]
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": here},
    )
    return done.returncode, done.stderr.splitlines()


def test_json_lines_carry_the_run_and_the_stage(tmp_path: Path):
    options = ["--log-format", "json", "--run-id", "nightly-7"]
    code, lines = run(tmp_path, "NotBlessedError('loss 3 above 2')", *options)
    assert code == 3
    records = [json.loads(line) for line in lines]
    assert {record["run_id"] for record in records} == {"nightly-7"}
    assert all(record.pop("time").endswith("+00:00") for record in records)
    assert [record["message"] for record in records] == [
        "run started",
        "example_gen running",
        "example_gen 0.0 s documents 3",
        "from Beam\nin two lines",
        "epoch 1/5",
        "run failed",
        "loss 3 above 2",
    ]
    severities = [record["severity"] for record in records]
    assert severities == ["INFO", "INFO", "INFO", "WARNING", "INFO", "INFO", "ERROR"]
    finished = records[2]
    assert (finished["event"], finished["stage"]) == ("stage_finished", "example_gen")
    assert finished["reused"] is False
    assert finished["summary"] == {"documents": 3, "name": "x"}
    assert records[4]["loss"] == 2.5
    assert records[-1]["exit_code"] == 3


def test_a_bug_is_one_json_line_with_its_traceback(tmp_path: Path):
    code, lines = run(tmp_path, "ValueError('x')", "--log-format", "json")
    assert code == 1
    last = json.loads(lines[-1])
    assert "this is a bug" in last["message"]
    assert "Traceback (most recent call last)" in last["exc_info"]
    assert all(json.loads(line) for line in lines)


def test_a_mistake_in_the_settings_is_a_json_line(tmp_path: Path):
    options = ["--log-format", "json", "--set", "trainer.windw=3"]
    code, lines = run(tmp_path, "ValueError('x')", *options)
    assert code == 2
    (record,) = map(json.loads, lines)
    assert record["message"].startswith("unknown setting 'trainer.windw'")
    assert (record["severity"], record["exit_code"]) == ("ERROR", 2)


def test_text_is_for_a_person(tmp_path: Path):
    code, lines = run(tmp_path, "NotBlessedError('loss 3 above 2')")
    assert code == 3
    assert lines == [
        "example_gen      running",
        "example_gen        0.0 s  documents 3",
        "WARNING: from Beam",
        "in two lines",
        "skipstream: error: loss 3 above 2",
    ]


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak"])
def test_a_run_id_is_one_word(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        cli.run(["run", "--run-id", name])
    assert caught.value.code == 2
    assert "must be 1 to 250 letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("logger", "error", "news"),
    [
        ("apache_beam.runners.worker.sdk_worker", RuntimeError("can't start new thread"), False),
        ("apache_beam.runners.worker.sdk_worker", ValueError("[while running 'Read']"), False),
        ("grpc._server", MemoryError(), False),
        ("grpc._server", ValueError("another"), True),
        ("components.x", MemoryError(), True),
    ],
)
def test_what_the_last_line_says_is_not_said_before(
    logger: str, error: Exception, news: bool
) -> None:
    failed = (type(error), error, None)
    record = logging.LogRecord(logger, logging.ERROR, "", 0, "Error processing", (), failed)
    assert logs.is_news(record) is news
