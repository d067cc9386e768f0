import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_statistics_gen import measure, report_of, write_examples

from components.errors import NotBlessedError, SkipstreamError
from components.exporter import embeddings
from pipeline import cli


class Model:
    """What the model commands ask of `components.exporter.embeddings.Embeddings`."""

    @classmethod
    def load(cls, path: Path) -> "Model":
        assert path == Path("model")
        return cls()

    def nearest(self, words: list[str], k: int) -> list[Any]:
        known = {"tensor": [("tensors", 0.75), ("array", 0.5)]}
        return [known[word][:k] if word in known else None for word in words]

    def vectors_of(self, words: list[str]) -> tuple[Any, Any]:
        known = np.array([word != "unknown" for word in words])
        return np.zeros((len(words), 2), np.float32), known

    def analogy(self, a: str, b: str, c: str, k: int) -> Any:
        return [(f"{a}{b}{c}", 0.5)] * k

    def embed(self, texts: list[str]) -> tuple[Any, Any, Any]:
        lengths = np.array([len(text) for text in texts], np.int32)
        return np.array([[0.1, length] for length in lengths], np.float32), lengths, lengths - 1


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "Embeddings", Model)


def skipstream(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.usefixtures("model")
def test_neighbors_are_lines_of_word_neighbor_cosine(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["neighbors", "model", "tensor", "-k", "2"]) == 0
    assert capsys.readouterr().out == "tensor\ttensors\t0.7500\ntensor\tarray\t0.5000\n"


@pytest.mark.usefixtures("model")
def test_an_unknown_word_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["neighbors", "model", "x", "tensor", "-k", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "tensor\ttensors\t0.7500\n"
    assert captured.err.startswith("skipstream: error: not in the model's vocabulary: x: ")


@pytest.mark.usefixtures("model")
def test_analogy_names_the_unknown(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["analogy", "model", "a", "b", "c", "-k", "1"]) == 0
    assert capsys.readouterr().out == "abc\t0.5000\n"
    assert cli.run(["analogy", "model", "a", "unknown", "c"]) == 1
    assert "vocabulary: unknown:" in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_embed_answers_each_line_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    lines = b"".join(b"x" * (number % 7) + b"\r\n" for number in range(600)) + b"\xffab"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    assert cli.run(["embed", "model"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers == [
        {"embedding": [0.1, length], "token_count": length, "known_count": length - 1}
        for length in [*(number % 7 for number in range(600)), 3]
    ]


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (SkipstreamError("no file\nmatches"), 1, "no file matches"),
        (NotBlessedError("loss 3 above 2"), 3, "loss 3 above 2"),
        (KeyboardInterrupt(), 130, "interrupted: the same command resumes"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (OSError("Not a gzipped file (b'ab')"), 1, "Not a gzipped file (b'ab')"),
        (
            RuntimeError("job failed: OSError: [Errno 28] No space left on device"),
            1,
            "disk full: No space left on device: make room and run the same command again",
        ),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    error: BaseException,
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli.config, "load", fail)
    assert cli.run(["settings"]) == code
    assert capsys.readouterr().err == f"skipstream: error: {last}\n"


def test_damaged_records_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    import tensorflow as tf

    def read(*_: object) -> None:
        path = tmp_path / "a.tfrecord"
        path.write_bytes(b"\1" * 40)
        list(tf.data.TFRecordDataset(str(path)))

    monkeypatch.setattr(cli.config, "load", read)
    assert cli.run(["settings"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skipstream: error: damaged data: ")
    assert error.count("\n") == 1
    assert "{{" not in error


def test_a_bug_shows_its_traceback_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cli.config, "load", lambda *_: 1 // 0)
    assert cli.run(["settings"]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.startswith("skipstream: error: this is a bug")
    assert "ZeroDivisionError" in last


@pytest.mark.parametrize(
    "arguments",
    [[], ["frob"], ["run", "--frob"], ["neighbors", "model"], ["run", "--conf", "x"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        cli.run(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("skipstream: error: ")


def test_stats_shows_what_the_last_run_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = write_examples(tmp_path / "before", {"the": 30, "dog": 10}, "before")
    now = write_examples(tmp_path / "out" / "transform" / "x", {"the": 30, "cat": 10}, "x")
    statistics = measure(now, before, tmp_path / "out" / "statistics_gen" / "y")
    report_of(tmp_path / "out", transform="x", statistics_gen="y")
    assert cli.run(["stats", str(tmp_path / "out")]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == str(statistics.path)
    assert "          30  75.00 %  the" in lines
    assert "beside the examples before" in lines


def test_stats_compares_any_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    now = write_examples(tmp_path / "out" / "transform" / "x", {"the": 30, "cat": 10}, "x")
    report_of(tmp_path / "out", transform="x")
    other = write_examples(tmp_path / "other", {"the": 30, "dog": 10}, "other")
    assert cli.run(["stats", str(tmp_path / "out")]) == 0
    assert "beside" not in capsys.readouterr().out
    arguments = ["stats", str(now.path), "--against", str(other.path)]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "           1  new words (25.00 % of the tokens now: cat)\n" in printed
    files = tmp_path / "deep" / "files"
    assert cli.run([*arguments, "--output", str(files)]) == 0
    assert capsys.readouterr().out == f"{printed}{files}\n"
    assert {path.name for path in files.iterdir()} == {
        "report.json",
        "FeatureStats.pb",
        "zipf.png",
    }


def test_stats_of_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["stats", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"skipstream: error: {tmp_path}/none must be an output directory")
    assert error.count("\n") == 1


def test_what_stands_behind_the_dashes_goes_to_beam(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(cli, "_run_stages", seen.append)
    assert cli.run(["run", "--input", "a", "b", "--", "--runner=DirectRunner", "--", "x"]) == 0
    (arguments,) = seen
    assert arguments.input == ["a", "b"]
    assert arguments.beam_options == ["--runner=DirectRunner", "--", "x"]


def test_mistakes_and_help_are_answered_without_tensorflow_or_beam(tmp_path: Path):
    program = """if True:
        import sys
        from pipeline import cli
        code = cli.run(sys.argv[1:])
        assert not {"tensorflow", "apache_beam", "numpy"} & set(sys.modules)
        sys.exit(code)
    """
    command = [sys.executable, "-c", program, "run", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--set", "trainer.windw=3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "skipstream: error: unknown setting 'trainer.windw': did you mean 'trainer.window'?\n"
    )
    assert not (tmp_path / "out").exists()
    assert skipstream("run", "--help").returncode == 0


def test_settings_are_a_file_for_config(tmp_path: Path):
    printed = skipstream("settings", "--set", "trainer.epochs=3").stdout
    assert "\nepochs = 3\n" in printed
    file = tmp_path / "settings.toml"
    file.write_text(printed, encoding="utf-8")
    assert skipstream("settings", "--config", str(file)).stdout == printed


def test_a_missing_evaluation_file_is_reported_before_anything_runs(tmp_path: Path):
    done = skipstream("run", "--output", str(tmp_path), "--set", "evaluator.analogies=/none/*.txt")
    assert done.returncode == 1
    assert done.stderr == (
        "skipstream: error: evaluator.analogies must match a file, got '/none/*.txt', "
        "which does not\n"
    )
    assert json.loads((tmp_path / "run.json").read_text())["stages"] == {}


def test_a_closed_pipe_ends_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "settings"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
