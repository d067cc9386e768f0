"""File names in messages and in the commands that they print."""

import pickle
from pathlib import Path

import pytest
from shells import bash, words

from components.errors import SkipstreamError
from components.example_gen import remedies
from components.names import quoted
from pipeline import usage

NAMES = (
    "plain.txt",
    "it's a b.txt",
    "\u00fc \U0001f600.txt",
    "caf\udce9af.txt",
    "new\nline \u00fc.txt",
    "tab\t'\\\\x' $HOME `id` !1.txt",
    "\x1b[31m\x7f\x85\u2028.txt",
    "\udcff",
)


def test_a_shell_takes_a_quoted_name_for_the_name():
    command = " ".join(map(quoted, NAMES))
    assert command.isprintable()
    assert words(command) == list(NAMES)


def test_an_error_keeps_the_command_and_is_one_line_of_text():
    command = " ".join(map(quoted, NAMES))
    assert str(SkipstreamError(command)) == command
    error = SkipstreamError("no text in 'a\nb\udce9'")
    assert str(error) == r"no text in 'a\nb\xe9'"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_converted_by_the_command(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes("caf\u00e9".encode("latin-1"))
    told = str(SkipstreamError(remedies.iconv(name, "LATIN1")))
    bash(told, tmp_path)
    assert (tmp_path / remedies.beside(name, "utf8")).read_bytes() == "caf\u00e9".encode()


@pytest.mark.parametrize("name", NAMES)
def test_a_mistaken_command_is_mended_with_any_name(name: str):
    told = usage.corrected("run", [name], {"--input": None})
    mistake, _, command = told.partition(": ")
    assert mistake == "files are given with --input"
    assert words(command) == ["skipstream", "run", "--input", name]
