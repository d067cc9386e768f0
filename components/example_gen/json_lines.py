"""JSON Lines: a document a line, an object that holds the text under a field."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from components.errors import SkipstreamError
from components.example_gen import remedies
from components.example_gen.formats import Block, Chunk, block_of, excerpt, listed

_KINDS = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
_OBJECTS = (
    "[print(json.dumps(json.loads(r))) for r in "
    're.findall(r"(?ms)^{.*?^}", sys.stdin.buffer.read().decode("utf-8-sig"))]'
)


def records(chunks: Iterable[Chunk], *, path: str, field: str) -> Iterator[Block]:
    r"""A document a line of JSON, an object whose `field` is the text; null is an empty one.

    Args:
        chunks: Of whole lines.
        path: The file, for messages.
        field: That of the text.

    >>> chunk = Chunk(b'{"text": "one"}\n{"text": null}\n{"body": "two"}\n{"te', cut=False)
    >>> (block,) = records([chunk], path="a.jsonl", field="text")
    >>> block.documents.to_pylist(), {name: n for name, n in block.counts.items() if n}
    ([b'one'], {'invalid_json': 1, 'missing_field': 1, 'empty': 1})
    >>> block.examples["missing_field"]
    "no field 'text', only 'body': --set example_gen.field=body"
    """
    inside = False  # a line that was too long to be parsed
    for text, cut in chunks:
        if inside:
            text = text[text.find(b"\n") + 1 :] if b"\n" in text else b""
        too_long, inside = int(cut and not inside), cut
        if cut:
            text = b""
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            decoded = text.decode("utf-8", "surrogateescape")
        documents: list[bytes] = []
        counts = {"invalid_json": 0, "missing_field": 0, "not_text": 0, "too_long": too_long}
        examples = {"too_long": "a line of more than 64 MiB"} if too_long else {}
        for line in decoded.removesuffix("\n").split("\n") if decoded else ():
            if not line or line.isspace():
                documents.append(b"")
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                counts["invalid_json"] += 1
                if "invalid_json" not in examples:
                    examples["invalid_json"] = f"a line that is no JSON object: {excerpt(line)}"
                continue
            value = record.get(field) if isinstance(record, dict) else None
            if isinstance(value, str):
                documents.append(_encoded(value))
            elif value is None and isinstance(record, dict) and field in record:
                documents.append(b"")
            else:
                reason = "missing_field" if value is None else "not_text"
                counts[reason] += 1
                if reason not in examples:
                    examples[reason] = _wrong(record, field, path)
        yield block_of(documents, examples, **counts)


def _encoded(text: str) -> bytes:
    """UTF-8; what cannot be, such as half a surrogate pair, becomes bytes that are not UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _wrong(record: Any, field: str, path: str) -> str:
    """Why `record` of the file at `path` has no text, and what to set or to run.

    >>> print(_wrong({"text": {"en": "one", "de": "eins"}}, "text", "a").partition(":")[0])
    field 'text' holds an object (of 'en', 'de'), expected a string
    """
    if not isinstance(record, dict):
        return f"a line that holds {_kind(record)}, expected an object with a field '{field}'"
    if field in record:
        value = record[field]
        inside = f" (of {listed(value)})" if isinstance(value, dict) else f" ({excerpt(value)})"
        return (
            f"field '{field}' holds {_kind(value)}{inside}, expected a string: "
            "set example_gen.field to another, or take the text out of it first"
        )
    return f"no field '{field}', only {listed(record)}: {_where(record, field, path)}"


def _where(record: dict[str, Any], field: str, path: str) -> str:
    """How to come to the text of a record without `field`: as it seems, its longest string."""
    texts = {name: len(value) for name, value in record.items() if isinstance(value, str)}
    longest = max(texts, key=lambda name: texts[name], default=None)
    lists = [name for name, value in record.items() if _is_table(value)]
    inner = {
        (name, key): len(value) + (key == field) * 2**40
        for name, object in record.items()
        if isinstance(object, dict)
        for key, value in object.items()
        if isinstance(value, str)
    }
    if inner and (max(inner.values()) > max(texts.values(), default=0)):
        name, key = max(inner, key=lambda place: inner[place])
        loop = f"[print(json.dumps(json.loads(r)[{json.dumps(name)}])) for r in sys.stdin.buffer]"
        also = "" if key == field else f" with {remedies.setting('example_gen.field', key)}"
        return f"{_commands(path, _jq(name), loop)}{also}"
    if longest is None and lists:
        # It may be the only record, or one of many.
        name = json.dumps(lists[0])
        loop = f"[print(json.dumps(r)) for l in sys.stdin.buffer for r in json.loads(l)[{name}]]"
        return _commands(path, f"{_jq(lists[0])}[]", loop)
    if longest is None:
        return "name the one that holds the text"
    return remedies.setting("example_gen.field", longest)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _jq(name: str) -> str:
    """The path of a field.

    >>> _jq("data"), _jq("my data")
    ('.data', '.["my data"]')
    """
    return f".{name}" if re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) else f".[{json.dumps(name)}]"


def _commands(path: str, jq: str, loop: str) -> str:
    """The remedy that makes JSON Lines of a file, with jq and with Python alone."""
    stem, suffix = os.path.splitext(remedies.unpacked_name(path))
    out = f"{stem}.lines.jsonl" if suffix == ".jsonl" else f"{stem}.jsonl"
    with_jq = remedies.command(f"jq -c {shlex.quote(jq)}", path, out)
    python = f"python3 -c {shlex.quote(f'import json,re,sys; {loop}')}"
    without = remedies.command(python, path, out, redirect=True)
    return f"convert it with `{with_jq}`, or without jq `{without}`, and give that in its place"


def _kind(value: Any) -> str:
    return "true or false" if isinstance(value, bool) else _KINDS.get(type(value), "a number")


def check(sample: bytes, path: str, *, field: str = "text") -> None:
    """Refuse JSON that is not one object a line.

    Args:
        sample: The beginning of the file at `path`, unpacked.
        path: Its name.
        field: That of the text.

    Raises:
        SkipstreamError: It is one array, or objects stand on several lines; the message has the
            command that makes lines of it.
    """
    lines = sample.strip().splitlines()
    if not lines:
        return
    name = _table_in(sample, field)
    single = remedies.unpacked_name(path).lower().endswith(".json")
    if re.match(rb'\s*\[\s*"', sample):
        what, key = "is one JSON array of strings", json.dumps(field)
        jq = f".[] | {{{key}: .}}"
        loop = f"[print(json.dumps({{{key}: r}})) for r in json.load(sys.stdin.buffer)]"
    elif lines[0].startswith(b"["):
        what = "is one JSON array"
        jq, loop = ".[]", "[print(json.dumps(r)) for r in json.load(sys.stdin.buffer)]"
    elif name is not None and (single or spans_lines(lines)):
        what, key = f"is one JSON object whose field '{name}' holds the records", json.dumps(name)
        jq = f"{_jq(name)}[]"
        loop = f"[print(json.dumps(r)) for r in json.load(sys.stdin.buffer)[{key}]]"
    elif spans_lines(lines):
        what, jq, loop = "holds JSON objects that span several lines", ".", _OBJECTS
    else:
        return
    raise SkipstreamError(f"{path} {what}, expected an object a line: {_commands(path, jq, loop)}")


def _table_in(sample: bytes, field: str) -> str | None:
    r"""The field of one object, perhaps a torn one, that has a list of objects as most of it.

    >>> _table_in(b'{"version": 1, "data": [{"text": "one"}, {"text": "tw', "text")
    'data'
    >>> _table_in(b'{"tags": [{"id": 1}], "text": "one"}\n{"tags": [{"id": 2}]}', "text")
    """
    text, decoder = sample.decode("utf-8", "replace").strip(), json.JSONDecoder()
    try:
        record, end = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        place = 0
        while member := re.compile(r'\s*[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*').match(text, place):
            try:
                name = str(json.loads(member[1]))
                _, place = decoder.raw_decode(text, member.end())
            except (ValueError, RecursionError):
                is_table = re.compile(r"\[\s*\{").match(text, member.end())
                return name if is_table and 2 * member.end() < len(text) else None
            if name == field:
                return None
        return None
    if end < len(text) or not isinstance(record, dict) or field in record:
        return None
    tables = [name for name, value in record.items() if _is_table(value)]
    sizes = {name: len(json.dumps(record[name])) for name in tables}
    most = max(sizes, key=lambda name: sizes[name], default=None)
    return most if most is not None and 2 * sizes[most] > len(json.dumps(record)) else None


def check_no_json(sample: bytes, path: str) -> None:
    """Refuse JSON that is about to be read as lines of text, for its file's name.

    Raises:
        SkipstreamError: It begins with a JSON object.
    """
    if not re.match(rb"\s*\{", sample):
        return
    lines = sample.strip().splitlines()
    if is_object(lines[0]) or spans_lines(lines):
        raise SkipstreamError(
            f"{path} must be text, got JSON: give --set example_gen.format=jsonl to read a field "
            "of it, or --set example_gen.format=lines to read it as it is"
        )


def spans_lines(lines: list[bytes]) -> bool:
    r"""Whether the lines of a file begin with an object that does not end on the first one.

    >>> spans_lines([b"{", b'"text": "one"}']), spans_lines([b'{"text": "one"}', b"{}"])
    (True, False)
    >>> spans_lines([b"{broken", b"{}"])
    False
    """
    if not lines[0].startswith(b"{") or len(lines) == 1:
        return False
    first, text = (part.decode("utf-8", "replace") for part in (lines[0], b"\n".join(lines)))
    try:
        json.loads(first)
        return False
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        if error.pos < len(first.rstrip()):
            return False
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):  # Perhaps only because the sample ends.
        return not is_object(lines[1])
    return True


def is_object(line: bytes) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
