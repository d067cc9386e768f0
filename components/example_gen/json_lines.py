"""JSON Lines: a document a line, an object that holds the text under a field."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from components.errors import SkipstreamError
from components.example_gen import remedies
from components.example_gen.formats import Batch, Chunk, batch_of, excerpt, listed

_KINDS = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
_ARRAY_TO_LINES = (
    "python3 -c 'import json,sys; [print(json.dumps(r)) for r in json.load(sys.stdin.buffer)]'"
)

_OBJECTS_TO_LINES = (
    "python3 -c 'import json,re,sys; [print(json.dumps(json.loads(r))) for r in "
    're.findall(r"(?ms)^{.*?^}", sys.stdin.buffer.read().decode("utf-8-sig"))]\''
)


def records(chunks: Iterable[Chunk], *, field: str) -> Iterator[Batch]:
    r"""A document a line of JSON, an object whose `field` is the text; null is an empty one.

    >>> chunk = Chunk(b'{"text": "one"}\n{"text": null}\n{"body": "two"}\n{"te', cut=False)
    >>> (batch,) = records([chunk], field="text")
    >>> batch.documents.to_pylist(), {name: n for name, n in batch.counts.items() if n}
    ([b'one'], {'invalid_json': 1, 'missing_field': 1, 'empty': 1})
    >>> batch.examples["missing_field"]
    "no field 'text', only 'body': set example_gen.field=body"
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
                    examples[reason] = _wrong(record, field)
        yield batch_of(documents, examples, **counts)


def _encoded(text: str) -> bytes:
    """UTF-8; what cannot be, such as half a surrogate pair, becomes bytes that are not UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _wrong(record: Any, field: str) -> str:
    """Why `record` has no text, and what to set.

    >>> print(_wrong({"text": {"en": "one", "de": "eins"}}, "text").partition(":")[0])
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
    texts = {name: len(value) for name, value in record.items() if isinstance(value, str)}
    remedy = "name the one that holds the text"
    if texts:
        remedy = f"set example_gen.field={max(texts, key=lambda name: texts[name])}"
    return f"no field '{field}', only {listed(record)}: {remedy}"


def _kind(value: Any) -> str:
    return "true or false" if isinstance(value, bool) else _KINDS.get(type(value), "a number")


def check(sample: bytes, path: str) -> None:
    """Refuse JSON that is not one object a line.

    Args:
        sample: The beginning of the file at `path`, unpacked.
        path: Its name.

    Raises:
        SkipstreamError: It is one array, or objects stand on several lines; the message has the
            command that makes lines of it.
    """
    lines = sample.strip().splitlines()
    if not lines:
        return
    stem, suffix = os.path.splitext(remedies.unpacked_name(path))
    out = f"{stem}.lines.jsonl" if suffix == ".jsonl" else f"{stem}.jsonl"
    if lines[0].startswith(b"["):
        what = "is one JSON array"
        program, python = "jq -c '.[]'", _ARRAY_TO_LINES
    elif spans_lines(lines):
        what = "holds JSON objects that span several lines"
        program, python = "jq -c .", _OBJECTS_TO_LINES
    else:
        return
    with_jq = remedies.command(program, path, out)
    without = remedies.command(python, path, out, redirect=True)
    raise SkipstreamError(
        f"{path} {what}, expected an object a line: convert it with `{with_jq}`, or without jq "
        f"`{without}`, and give that in its place"
    )


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
            f"{path} must be text, got JSON: set example_gen.format=jsonl to read a field of it, "
            "or example_gen.format=lines to read it as it is"
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
