"""The commands that ask models and corpora."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.exporter import embeddings
from components.exporter.embeddings import Embeddings
from pipeline import cli


class Model:
    """What the model commands ask of `components.exporter.embeddings.Embeddings`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def load(cls, path: Path, address: str) -> "Model":
        return cls(path)

    def nearest(self, words: list[str], k: int) -> list[Any]:
        known = {"tensor": [("tensors", 0.75), ("array", 0.5)], "where": [(str(self._path), 1.0)]}
        return [known[word][:k] if word in known else None for word in words]

    def vectors_of(self, words: list[str]) -> tuple[Any, Any]:
        known = np.array([word != "unknown" for word in words])
        return np.zeros((len(words), 2), np.float32), known

    def analogy(self, a: str, b: str, c: str, k: int) -> Any:
        return [(f"{a}{b}{c}", 0.5)] * k

    subwords = None
    words = ("tensor", "where", "Don't", "tensors")
    near, refuse = Embeddings.near, Embeddings.refuse

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def means_of(self, texts: list[str]) -> tuple[Any, Any, Any]:
        lengths = np.array([len(text) for text in texts], np.int32)
        return np.array([[0.1, length] for length in lengths], np.float32), lengths, lengths - 1


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "Embeddings", Model)


@pytest.fixture
def ask(
    model: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """What a command prints of which stdin, bytes or a file of them, holds the lines."""

    def run(stdin: bytes | io.BytesIO, *command: str) -> Any:
        file = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        assert cli.run(list(command)) == 0
        return capsys.readouterr()

    return run


@pytest.mark.usefixtures("model")
def test_neighbors_are_lines_of_word_neighbor_cosine(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["neighbors", "model", "tensor", "-k", "2"]) == 0
    assert capsys.readouterr().out == "tensor\ttensors\t0.7500\ntensor\tarray\t0.5000\n"


@pytest.mark.usefixtures("model")
def test_options_may_stand_before_words(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["neighbors", "model", "-k", "1", "tensor", "where"]) == 0
    assert capsys.readouterr().out == "tensor\ttensors\t0.7500\nwhere\tmodel\t1.0000\n"
    with pytest.raises(SystemExit):
        cli.run(["neighbors", "model", "-k", "1", "tensor", "--frob"])
    assert "unrecognized arguments: tensor --frob" in capsys.readouterr().err


def test_neighbors_without_words_answers_each_line_of_stdin(ask: Callable[..., Any]):
    captured = ask(b"tensor\r\n\nx\nx tensor", "neighbors", "model", "-k", "1")
    assert captured.out == "tensor\ttensors\t0.7500\n" * 2
    assert captured.err == 2 * (
        "not in the model's vocabulary: x: occurs fewer than transform.min_count times, or is "
        "spelled otherwise\n"
    )


def test_a_terminal_is_told_what_to_type(ask: Callable[..., Any]):
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    assert ask(Terminal(), "neighbors", "model") == ("", "a word a line; Ctrl-D ends\n")


def test_analogy_without_words_answers_each_line_of_stdin(ask: Callable[..., Any]):
    captured = ask(b"a b c\na b\na unknown c\nc b a\n", "analogy", "model", "-k", "1")
    assert captured.out == "abc\t0.5000\ncba\t0.5000\n"
    too_few, unknown = captured.err.splitlines()
    assert too_few == "an analogy takes three words, A B C, got a b"
    assert "vocabulary: unknown:" in unknown


def test_a_line_is_answered_before_the_next_is_read():
    program = """if True:
        from components.exporter import embeddings
        from pipeline import cli
        from test_models import Model
        embeddings.Embeddings = Model
        cli.run(["neighbors", "model", "-k", "1"])
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    place = Path(__file__).parent
    with subprocess.Popen([sys.executable, "-c", program], cwd=place, **pipes) as process:
        for _ in range(2):
            process.stdin.write("tensor\n")
            process.stdin.flush()
            assert process.stdout.readline() == "tensor\ttensors\t0.7500\n"
        process.stdin.close()
        assert process.wait() == 0


def test_only_the_model_is_required(capsys: pytest.CaptureFixture[str]):
    for command in ("neighbors", "analogy"):
        with pytest.raises(SystemExit):
            cli.run([command])
        assert capsys.readouterr().err.endswith("are required: MODEL\n")


@pytest.mark.usefixtures("model")
def test_an_unknown_word_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["neighbors", "model", "x", "tensor", "-k", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "tensor\ttensors\t0.7500\n"
    assert captured.err.startswith("skipstream: error: not in the model's vocabulary: x: ")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tesnor"], "tesnor (did you mean tensor or tensors?)"),
        (["don't"], "don't (did you mean Don't?)"),
        (
            ["tensorz", "x"],
            "tensorz (did you mean tensor or tensors?), x: occurs fewer than transform.min_count "
            "times, or is spelled otherwise",
        ),
        (
            list("abcd"),
            "a, b, c, d: occurs fewer than transform.min_count times, or is spelled otherwise",
        ),
    ],
)
def test_an_unknown_word_is_answered_with_those_like_it(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.run(["neighbors", "model", *words]) == 1
    expected = f"skipstream: error: not in the model's vocabulary: {message}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", ["neighbors", "analogy"])
def test_a_model_behind_the_words_is_put_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    Path("my model").mkdir()
    assert cli.run([command, "king", "queen", "my model"]) == 2
    assert capsys.readouterr().err == (
        "skipstream: error: MODEL comes first, got king, which is not there: "
        f"skipstream {command} 'my model' king queen\n"
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["neighbors", "m", "x", "--topn", "5"], "--topn 5: answers are counted by -k"),
        (
            ["embed", "m", "it's"],
            """it's: texts are lines of stdin: echo 'it'"'"'s' | skipstream embed MODEL""",
        ),
    ],
)
def test_habits_of_other_programs_are_answered(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        cli.run(arguments)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"skipstream: error: unrecognized arguments: {hint}"


def test_export_names_the_formats(capsys: pytest.CaptureFixture[str]):
    for arguments in (["--output", "x"], ["--output", "x", "--format", "csv"]):
        with pytest.raises(SystemExit):
            cli.run(["export", "model", *arguments])
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("  ")] == list(cli.FORMATS)
        assert lines[-1].startswith("skipstream: error: ")


def test_export_refuses_a_name_before_it_loads_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = str(tmp_path / "vectors.zip")
    arguments = ["export", "/none", "--format", "npz", "--output", output]
    assert cli.run(arguments) == 2
    assert "npz is not packed as .zip" in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_analogy_names_the_unknown(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["analogy", "model", "a", "b", "c", "-k", "1"]) == 0
    assert capsys.readouterr().out == "abc\t0.5000\n"
    assert cli.run(["analogy", "model", "a", "unknown", "c"]) == 1
    assert "vocabulary: unknown:" in capsys.readouterr().err


def test_embed_answers_each_line_in_order(ask: Callable[..., Any]):
    lines = b"".join(b"x" * (number % 7) + b"\r\n" for number in range(600)) + b"\xffab"
    answers = [json.loads(line) for line in ask(lines, "embed", "model").out.splitlines()]
    assert answers == [
        {"embedding": [0.1, length], "token_count": length, "known_count": length - 1}
        for length in [*(number % 7 for number in range(600)), 3]
    ]
