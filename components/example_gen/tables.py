"""CSV, TSV and Parquet: a document a row, from the column that holds the text."""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.errors import SkipstreamError
from components.example_gen import content, remedies, unpacking
from components.example_gen.formats import (
    CHUNK,
    Block,
    Chunk,
    block_of,
    cut_point,
    excerpt,
    listed,
)

_DELIMITERS = ",;\t|"  # Spreadsheets write `;` where the comma is in numbers.
_NONE = "\x1f"  # For a file of one column, whose texts may hold all of these.
_MARK = re.compile(r"sep=(.)\n", re.IGNORECASE)  # What Excel writes and reads first.


_NAME = re.compile(r"[^\W\d][\w.-]{0,30}")  # What programs call a column.
_QUOTED = re.compile(r'"[^"]*"(,"[^"]*"){2,}')
_ROWS = 100  # among which the column with the longest texts is looked for
_LONGEST_NAME = 40  # characters; what is longer is likely text, above which no header stands
_BATCH_BYTES = 256 * 2**20  # of memory for rows of Parquet
_FEWEST = 3  # rows, and columns, that make a table: two languages side by side are text


def check_no_table(sample: bytes, path: str) -> None:
    """Refuse a table that is about to be read as lines of text, for its file's name.

    Args:
        sample: The first SAMPLE bytes of the file at `path`, unpacked.
        path: Its name.

    Raises:
        SkipstreamError: It looks like one.
    """
    text = sample.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    whole = len(sample) < content.SAMPLE
    if not whole:
        text = text[: text.rfind("\n") + 1]
    for delimiter in "\t;,":
        if _is_table(text, delimiter, whole):
            what, format = ("TSV", "tsv") if delimiter == "\t" else ("CSV", "csv")
            raise SkipstreamError(
                f"{path} must be text, got what looks like {what}: give --set example_gen.format="
                f"{format} to read the column that example_gen.field names, or "
                "--set example_gen.format=lines to read all of it as text"
            )


def _is_table(text: str, delimiter: str, whole: bool) -> bool:
    r"""Whether all of a text is rows of one width, and no prose that happens to be.

    >>> _is_table("id,text,label\n1,one two,x\n2,three,y\n", ",", True)
    True
    >>> _is_table("one, two, three\nsix, ten, two\nred, green, blue\n", ",", True)
    False
    """
    first = text.partition("\n")[0]
    if first.count(delimiter) < _FEWEST - 1:
        return False
    options: list[dict[str, Any]] = [{}]
    if delimiter == "\t":
        options.append({"quoting": csv.QUOTE_NONE})
    for option in options:
        rows: list[list[str]] = []
        reader = csv.reader(_lines(text), delimiter=delimiter, strict=True, **option)
        try:
            for row in filter(None, reader):
                rows.append(row)
                if len(row) != len(rows[0]):
                    break
        except csv.Error as error:
            if whole or not str(error).startswith("unexpected end"):
                continue
        names = rows[0] if rows else []
        # Indented text begins with empty columns, and in prose a space stands behind a comma.
        named = all(name and not name[0].isspace() for name in names)
        if len(names) < _FEWEST or len(rows) < _FEWEST or not named:
            continue
        if any(len(row) != len(names) for row in rows):
            continue
        if delimiter != ",":
            return True
        header = all(map(_NAME.fullmatch, names)) and len(set(names)) == len(names)
        texts = any(" " in value for row in rows[1:] for value in row)  # Else it may list words.
        return texts and (header or bool(_QUOTED.fullmatch(first)))
    return False


def delimited(
    chunks: Iterable[Chunk], *, path: str, field: str, tabs: bool, longest: int
) -> Iterator[Block]:
    r"""A document a row of CSV or TSV, from the column that the first row calls `field`.

    The delimiter is that of the first row. A quoted value may hold it, doubled quotes and line
    ends. Between tabs, quotes are letters if the beginning of the file makes no sense otherwise:
    many programs write no others.

    Args:
        chunks: Of whole lines, which end in \n.
        path: The file, for messages.
        field: The column.
        tabs: Whether tabs are more likely than commas.
        longest: Bytes; a quote that is not closed after so many never will be.

    Raises:
        SkipstreamError: There is no such column, no header, or a quote is not closed.

    >>> chunk = Chunk(b'id;text\n1;"one\ntwo; ""3"" "\n2\n3;\n', cut=False)
    >>> (block,) = delimited([chunk], path="a.csv", field="text", tabs=False, longest=99)
    >>> block.documents.to_pylist(), block.counts
    ([b'one\ntwo; "3" '], {'invalid_csv': 1, 'empty': 1})
    """
    csv.field_size_limit(longest)
    texts = (text.decode("utf-8", "surrogateescape") for text, _ in chunks)
    head, whole = _head(texts)
    if mark := _MARK.match(head):
        head = head[mark.end() :]
    if not head.strip():
        return
    delimiter = mark[1] if mark else "\t" if tabs else ","
    format = _format(head, delimiter + _DELIMITERS, field, whole)
    # A line alone may have almost `longest`, and a value may begin at its end.
    lines = _Counted(
        itertools.chain.from_iterable(map(_lines, itertools.chain([head], texts))), 2 * longest
    )
    rows = _rows(csv.reader(lines, **format), path, lines)
    names = next((row for row in rows if row != []), [])
    if names is None:
        raise SkipstreamError(
            f"{path} must begin with a header, got {excerpt(head.lstrip().splitlines()[0])}, which "
            "holds a quote inside of a quoted value: write it twice"
        )
    place = _place(names, field)
    if place is None:
        some = [row for row in itertools.islice(rows, _ROWS) if row and len(row) == len(names)]
        values = {name: [row[at] for row in some] for at, name in enumerate(names)}
        raise SkipstreamError(
            f"{path} has no column '{field}', only {listed(names)}: {_longest(values)}; if its "
            "first line is no header, write one above it, or give --set example_gen.format=lines "
            "to read all of it as text"
        )
    yield from _blocks(rows, place, names)


def _longest(columns: Mapping[str, Sequence[str | bytes | None]]) -> str:
    """The remedy that names the column of the text: as it seems, that of the longest values.

    >>> _longest({"id": ["1", "2"], "body": ["one two", None]})
    'give the one that holds the text, such as --set example_gen.field=body'
    """
    sizes = {name: sum(len(value or "") for value in values) for name, values in columns.items()}
    best = max(sizes, key=lambda name: sizes[name], default="")
    if not sizes.get(best) or len(best) > _LONGEST_NAME:
        return "set example_gen.field to the one that holds the text"
    which = remedies.setting("example_gen.field", best)
    return f"give the one that holds the text, such as {which}"


def _lines(text: str) -> Iterator[str]:
    return io.StringIO(text, newline="\n")


def _head(texts: Iterator[str]) -> tuple[str, bool]:
    """At least SAMPLE characters that are not blank, and whether that is all there is."""
    head = ""
    for text in texts:
        head = (head + text).lstrip("\n")
        if len(head) >= content.SAMPLE:
            return head, False
    return head, True


def _format(head: str, delimiters: str, field: str, whole: bool) -> dict[str, Any]:
    """The arguments of csv.reader by which the beginning of a file makes sense."""
    options: dict[str, Any] = {"skipinitialspace": True, "strict": True}
    found: dict[str, tuple[bool, int]] = {}
    for delimiter in delimiters:
        try:
            reader = csv.reader(_lines(head), delimiter=delimiter, **options)
            names = next((row for row in reader if row), [])
        except csv.Error:  # The quotes stand where other delimiters are.
            names = []
        found[delimiter] = _place(names, field) is not None, len(names)
    # That which shows the column, else most columns.
    delimiter = max(found, key=lambda delimiter: found[delimiter])
    options["delimiter"] = _NONE if found[delimiter][1] == 1 else delimiter
    others: list[dict[str, Any]] = [{"escapechar": "\\"}]
    if delimiter == "\t":
        others.append({"quoting": csv.QUOTE_NONE})
    for other in ({}, *others):
        try:
            for _ in csv.reader(_lines(head), **options, **other):
                pass
        except csv.Error as error:
            if whole or not str(error).startswith("unexpected end"):
                continue
        return options | other
    return options


def _place(names: Sequence[str], field: str) -> int | None:
    """Which column is meant: the one of that name, else the only one that differs in case or space.

    >>> _place(["id", "Text "], "text"), _place(["TEXT", "Text"], "text")
    (1, None)
    """
    if field in names:
        return names.index(field)
    plain = ["".join(name.split()).casefold() for name in (field, *names)]
    return plain.index(plain[0], 1) - 1 if plain.count(plain[0]) == 2 else None


class _Counted(Iterator[str]):
    """Lines, and how many characters of them were read since a row began.

    The module `csv` limits a value, but not a row: one whose quoted values all hold line ends may
    go on for ever.
    """

    def __init__(self, lines: Iterator[str], most: int) -> None:
        self._lines, self._most, self.size = lines, most, 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.size += len(line)
        if self.size > self._most:
            raise csv.Error("field larger")
        return line


def _rows(reader: Any, path: str, lines: _Counted) -> Iterator[list[str] | None]:
    """The rows; of one that is no CSV, a None for each of its lines."""
    while True:
        line = reader.line_num + 1
        lines.size = 0
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith(("field larger", "unexpected end")):
                raise SkipstreamError(
                    f"{path} must close each quote that it opens, and that of a value behind line "
                    f"{line - 1:,} is not closed: close it, or write quotes inside of values twice"
                ) from error
            yield from [None] * (reader.line_num + 1 - line)


def _blocks(rows: Iterable[list[str] | None], place: int, names: Sequence[str]) -> Iterator[Block]:
    documents: list[bytes] = []
    size = invalid = 0
    examples: dict[str, str] = {}
    for row in rows:
        # Some programs write a delimiter behind the last value, too.
        while row and len(row) > len(names) and not row[-1]:
            row.pop()
        if row is None or (row and len(row) != len(names)):
            invalid += 1
            if not examples:
                examples["invalid_csv"] = _wrong(row, names)
            continue
        documents.append(row[place].encode("utf-8", "surrogateescape") if row else b"")
        size += len(documents[-1])
        if size >= CHUNK or len(documents) >= 2**14:
            yield block_of(documents, examples, invalid_csv=invalid)
            documents, size, invalid, examples = [], 0, 0, {}
    yield block_of(documents, examples, invalid_csv=invalid)


def _wrong(row: Sequence[str] | None, names: Sequence[str]) -> str:
    if row is None:
        return "a row with a quote inside of a quoted value: write it twice"
    return (
        f"a row of {len(row)} values below a header of {len(names)} "
        f"({excerpt(' '.join(row))}): quote values that hold the delimiter"
    )


def parquet(
    file: IO[bytes], *, path: str, field: str, longest: int, limit: unpacking.Limit
) -> Iterator[Block]:
    """A document a row of the Parquet `file`, from its column `field`; null is an empty one.

    Raises:
        SkipstreamError: It is no Parquet, there is no such column, it does not hold text, or it
            unpacks to more than the limit.
    """
    _check_parquet(file, path)
    table = pq.ParquetFile(file, buffer_size=CHUNK)
    schema = table.schema_arrow
    place = _place(schema.names, field)
    if place is None:
        raise SkipstreamError(
            f"{path} has no column '{field}', only {listed(schema.names)}: {_longest_of(table)}"
        )
    name, kind = schema.field(place).name, schema.field(place).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not _is_text(value):
        raise SkipstreamError(
            f"column '{name}' of {path} must hold strings, got {kind}: {_longest_of(table)}"
        )
    number = min(_rows_a_block(table, name), _rows_in(_BATCH_BYTES, file, table, name))
    for rows in table.iter_batches(number, columns=[name]):
        column = rows.column(0).cast(value)
        limit.count(column.nbytes)
        yield _column(column, longest)


def _longest_of(table: pq.ParquetFile) -> str:
    """The remedy of `_longest`, from the first rows of a Parquet file."""
    columns = [column.name for column in table.schema_arrow if _is_text(column.type)]
    rows = next(table.iter_batches(_ROWS, columns=columns), None) if columns else None
    return _longest(rows.to_pydict() if rows is not None else {})


def _check_parquet(file: IO[bytes], path: str) -> None:
    sample = file.read(content.SAMPLE)
    file.seek(0)
    if not sample.startswith((b"PAR1", b"PARE")):
        kind = content.kind_of(sample, mark_up=True)
        binary = content.is_binary(sample)
        what = kind[0] if kind else "binary data" if binary else "what looks like text"
        raise SkipstreamError(
            f"{path} must be a Parquet file, got {what if sample else 'nothing'}: give it the name "
            "of what it is, or set example_gen.format"
        )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    )


def _rows_a_block(parquet: pq.ParquetFile, field: str) -> int:
    """Rows that hold about CHUNK bytes, as the file's own metadata has it."""
    size = 0
    for group in map(parquet.metadata.row_group, range(parquet.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in columns if c.path_in_schema == field)
    number: int = parquet.metadata.num_rows * CHUNK // max(1, size)
    return max(1, min(2**14, number))


def _rows_in(size: int, file: IO[bytes], table: pq.ParquetFile, field: str) -> int:
    """Rows that take at most so many bytes, each as long as the longest of any dictionary.

    A dictionary has each value once, so a file of a MiB can hold billions of rows of a MiB.
    """
    longest = 1
    coded = pq.ParquetFile(file, buffer_size=CHUNK, read_dictionary=[field])
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        stored = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == field)
        if stored * group.num_rows <= size:
            continue
        first = next(coded.iter_batches(1, row_groups=[number], columns=[field]), None)
        if first is not None and pa.types.is_dictionary(first.column(0).type):
            lengths = pc.binary_length(first.column(0).dictionary)
            longest = max(longest, pc.max(lengths).as_py() or 0)
    return max(1, size // longest)


def _column(column: pa.Array, longest: int) -> Block:
    documents: list[bytes] = []
    cuts = 0
    for document in column.cast(pa.large_binary()).fill_null(b"").to_pylist():
        while len(document) > longest:
            end = cut_point(document, longest)
            documents.append(document[:end])
            document = document[end:]
            cuts += 1
        documents.append(document)
    return block_of(documents, cut=cuts)
