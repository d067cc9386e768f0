"""Reads word pairs and analogies as they are published: SimLex-999, WordSim-353, MEN and others."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from components.errors import SkipstreamError
from components.example_gen import content, encodings, remedies
from components.names import quoted

# word-n, word-v, word-j: the lemmas of MEN.
_TAGGED = re.compile(r".+-[nvjar]")
_DECIMAL_COMMA = re.compile(r"(?<=[\s;])-?\d+,\d+(?=[\s;]|$)")
# By what `content.kind_of` says.
_UNPACK = {
    "gzip data": "gunzip -k",
    "bzip2 data": "bunzip2 -k",
    "xz data": "unxz -k",
    "Zstandard data": "unzstd",
    "a ZIP archive": "unzip",
}


class _Line(NamedTuple):
    number: int
    text: str
    separator: str | None  # None: white space
    fields: list[str]

    def has_number(self, column: int) -> bool:
        return column < len(self.fields) and _number(self.fields[column]) is not None

    def numbers(self) -> list[int]:
        """Columns, from 0."""
        return [column for column in range(len(self.fields)) if self.has_number(column)]


def read_word_pairs(path: Path) -> tuple[list[str], list[str], list[float]]:
    """Read lines of two words and a score: separated by tabs, else semicolons, commas, white space.

    The score is the first column behind the two words that holds a number in the first two lines;
    the first line is a heading if it has a text there. Blank lines and lines that start with # are
    passed over. If all words end in a part of speech, as sun-n does, it is taken off.

    Raises:
        SkipstreamError: Another line has no number there, or the file is no such text.
    """
    lines = _split_lines(path)
    start = list(islice(lines, 2))
    if not start:
        raise SkipstreamError(f"{path} must hold word pairs, got none")
    # A heading may have numbers, too, further right: WordSim-353 numbers its subjects.
    found = [(n, -line.number, line) for line in start for n in line.numbers() if n > 1]
    if not found:
        raise _no_score(path, start[-1])
    column, _, example = min(found)
    first, second, scores = [], [], []
    for line in (*start, *lines):
        if not line.has_number(column):
            if line is start[0] and any(line.fields[column : column + 1]):
                continue
            raise _no_number(path, line, example, column)
        if line.has_number(0) and len(words := _words(line)) > 1:
            columns = [*words[:2], *(n for n in line.numbers() if n > words[1])][:3]
            raise SkipstreamError(
                f"{path}:{line.number} must begin with two words, got {line.fields[0]!r}: "
                f"keep the words and the score: {_cut(path, line, columns)}"
            )
        first.append(line.fields[0])
        second.append(line.fields[1])
        scores.append(float(line.fields[column]))
    if not scores:
        raise SkipstreamError(f"{path} must hold word pairs, got none")
    if all(map(_TAGGED.fullmatch, [*first, *second])):
        first, second = ([word[:-2] for word in words] for words in (first, second))
    return first, second, scores


def read_analogies(path: Path) -> dict[str, list[list[str]]]:
    """Read the format of questions-words.txt: `: section` lines, then four words a line.

    Raises:
        SkipstreamError: A line is neither, or the file is no such text.
    """
    try:
        return _analogies(path)
    except SkipstreamError as error:
        if not (hint := _holds(path, "word_pairs", read_word_pairs)):
            raise
        raise SkipstreamError(f"{error}{hint}") from error


def _words(line: _Line) -> list[int]:
    return [n for n, field in enumerate(line.fields) if field and not line.has_number(n)]


def _no_score(path: Path, line: _Line) -> SkipstreamError:
    said = f"{path}:{line.number} must be two words and a number, got {line.text[:80]!r}"
    if _DECIMAL_COMMA.search(line.text):
        return SkipstreamError(f"{said}: write numbers with a point: {_filter('tr , .', path)}")
    return SkipstreamError(said + _holds(path, "analogies", _analogies))


def _no_number(path: Path, line: _Line, example: _Line, column: int) -> SkipstreamError:
    got = repr(line.fields[column]) if column < len(line.fields) else f"{len(line.fields)} columns"
    others = [n for n in example.numbers() if n > column and line.has_number(n)]
    remedy = "mend the line or delete it"
    if others:
        names = ", ".join(str(n + 1) for n in others)
        cut = _cut(path, line, [0, 1, others[0]])
        remedy += f", or keep another column that has numbers ({names}): {cut}"
    return SkipstreamError(
        f"{path}:{line.number} must have a number in column {column + 1}, as line "
        f"{example.number} has, got {got}: {remedy}"
    )


def _analogies(path: Path) -> dict[str, list[list[str]]]:
    sections: dict[str, list[list[str]]] = {}
    section = ""
    for number, line in _lines(path):
        if line.startswith(":"):
            section = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise SkipstreamError(
                f"{path}:{number} must be four words, A is to B as C is to D, got {line[:80]!r}"
                f"{_four_words(path, line)}"
            )
        sections.setdefault(section, []).append(words)
    if not sections:
        raise SkipstreamError(f"{path} must hold analogies, got none")
    return sections


def _four_words(path: Path, line: str) -> str:
    for separator in ",;":
        if len(line.split(separator)) == 4:
            return ": " + _filter(f"tr '{separator}' ' '", path)
    if len(line.split()) == 3:  # Microsoft's (MSR): the fourth is the last word of another file.
        return (
            ": if the fourth words are in a file of answers: "
            f'sed "s/.* //" ANSWERS | paste -d " " {quoted(str(path))} - > '
            f"{quoted(_beside(path))}"
        )
    if len(line.split()) == 2:
        return ": make each line of two pairs of one relation"  # As those of BATS.
    return ""


def _holds(path: Path, setting: str, read: Callable[[Path], object]) -> str:
    """That the file is one for another setting, if it is."""
    try:
        read(path)
    except SkipstreamError:
        return ""
    return f": it holds {setting}: --set {quoted(f'evaluator.{setting}={path}')}"


def _split_lines(path: Path) -> Iterator[_Line]:
    for number, text in _lines(path):
        separator = next((sign for sign in "\t;," if sign in text), None)
        if separator is None:
            fields = text.split()
        elif separator == "\t":
            fields = [field.strip() for field in text.split("\t")]
        else:
            fields = [field.strip() for field in next(csv.reader([text], delimiter=separator))]
        yield _Line(number, text, separator, fields)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise SkipstreamError(f"{path} is a directory: name its files, as in '{path}/*'") from error
    if kind := content.kind_of(data[: content.SAMPLE]):
        what, _ = kind
        remedy = "save it as text, a line for each pair or analogy"
        if command := _UNPACK.get(what):
            remedy = f"{command} {quoted(str(path))}"
        raise SkipstreamError(f"{path} must be text, got {what}: {remedy}")
    if encoding := _other_encoding(data):
        raise SkipstreamError(
            f"{path} must be UTF-8, got what looks like {encoding}: "
            f"{remedies.iconv(str(path), encoding)}"
        )
    text = data.decode("utf-8-sig")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def _other_encoding(data: bytes) -> str | None:
    r"""What iconv calls the encoding that `data` seems to have; None: it is UTF-8.

    >>> [_other_encoding("café”".encode(name)) for name in ("utf-8-sig", "utf-16", "cp1252")]
    [None, 'UTF-16', 'CP1252']
    """
    if encoding := encodings.marked(data) or encodings.wide(data):
        return encoding
    return None if encodings.is_utf8(data) else next(iter(encodings.guess(data)), "CP1252")


def _cut(path: Path, line: _Line, columns: Sequence[int]) -> str:
    """A command that keeps columns, counted from 0."""
    fields = ",".join(str(column + 1) for column in columns)
    if line.separator is None:
        dollars = ", ".join(f"${column + 1}" for column in columns)
        return _filter(f"awk '{{print {dollars}}}'", path)
    delimiter = "" if line.separator == "\t" else f"-d '{line.separator}' "
    return _filter(f"cut {delimiter}-f{fields}", path)


def _filter(command: str, path: Path) -> str:
    return remedies.command(command, str(path), _beside(path), redirect=True)


def _beside(path: Path) -> str:
    return remedies.beside(str(path), "new")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
