"""What a person should know of a corpus that was accepted: what was repaired, dropped or skipped.

Below the shares here, `skipstream stats` has the numbers, and they are no news.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.example_gen.remedies import NEWS

_EMPTY = 0.5  # Text with a blank line behind each other one is usual.
# Scripts whose words no space divides: those of Unicode's line breaks that need a dictionary (class
# SA), Tibetan, Javanese and Balinese, and those of which the tokeniser takes each character alone.
_UNSPACED = {
    *("Thai", "Lao", "Khmer", "Myanmar", "Tai Le", "New Tai Lue", "Tai Tham", "Tai Viet", "Ahom"),
    *("Tibetan", "Javanese", "Balinese", "Han", "Hiragana", "Katakana"),
}
_UNSPACED_SHARE = 0.1  # of the tokens, above which text is likely not to be in another language

_UNREADABLE = {
    "invalid_csv": "are rows that are no CSV of the header's width: quote what holds the delimiter",
    "invalid_json": "are lines that are no JSON: each must be one object",
    "missing_field": "lack the field: check example_gen.field",
    "not_text": "hold something else than a string in the field: check example_gen.field",
    "too_long": "are records of more than 64 MiB",
}
_CHANGED = {
    "invalid_utf8": "hold invalid UTF-8, which is read as separators: convert what is in another "
    "encoding with iconv",
    "cut": "are beyond 64 MiB, and were cut: set example_gen.format to what separates documents",
}


def notices(statistics: Mapping[str, Any], scripts: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """A sentence for each thing that is news, with its count, its share and the remedy.

    Args:
        statistics: The content of an Examples artifact's statistics.json.
        scripts: Of the words that the tokeniser `words` found, as report.json has them.

    >>> for notice in notices({
    ...     "documents": 990,
    ...     "documents_dropped": {"missing_field": 10, "empty": 3},
    ...     "documents_repaired": {"invalid_utf8": 0, "nul": 1},
    ...     "files_skipped": {},
    ...     "splits": {"eval": {"documents": 9}},
    ... }, [{"script": "Latin", "share": 0.7}, {"script": "Thai", "share": 0.3}]):
    ...     print(notice)
    1.00 % of the documents (10 of 1,003) lack the field: check example_gen.field; left out
    0.10 % of the documents (1 of 990) hold NUL bytes, which are read as spaces
    30% of the tokens are in scripts without spaces between words (Thai): segment the text first \
with a tool for its language, put a space between words, and set transform.tokenizer=whitespace
    """
    return [
        *_dropped(statistics),
        *_repaired(statistics),
        *_skipped(statistics),
        *_unspaced(scripts),
        *_held_out(statistics),
    ]


def _dropped(statistics: Mapping[str, Any]) -> Iterator[str]:
    dropped, documents = statistics["documents_dropped"], statistics["documents"]
    unread = {reason: dropped.get(reason, 0) for reason in (*_UNREADABLE, "empty")}
    total = documents + sum(unread.values())
    for reason, what in _UNREADABLE.items():
        if unread[reason] > NEWS * total:
            yield f"{_share(unread[reason], total)} {what}; left out"
    if unread["empty"] > _EMPTY * total:
        yield (
            f"{_share(unread['empty'], total)} are empty: if that is no intention, check "
            "example_gen.format and example_gen.field"
        )
    if (blank := dropped.get("no_token", 0)) > _EMPTY * documents:
        yield (
            f"{_share(blank, documents)} hold no word: check that they are text, and "
            "transform.tokenizer"
        )


def _repaired(statistics: Mapping[str, Any]) -> Iterator[str]:
    repaired, documents = statistics["documents_repaired"], statistics["documents"]
    for reason, what in _CHANGED.items():
        if (count := repaired.get(reason, 0)) > NEWS * documents:
            found = statistics.get("advice", {}).get(reason)
            what = f"{what.partition(':')[0]}: {found}" if found else what
            yield f"{_share(count, documents)} {what}"
    if count := repaired.get("nul", 0):  # Text has none, so any is news.
        yield f"{_share(count, documents)} hold NUL bytes, which are read as spaces"


def _skipped(statistics: Mapping[str, Any]) -> Iterator[str]:
    skipped = statistics["files_skipped"]
    if count := skipped.get("damaged_parts", 0):
        yield (
            f"{count:,} files, or parts of large ones, could not be read and were left out: the "
            "warnings of the run that read them name them"
        )
    if count := skipped.get("not_a_file", 0):
        yield f"{count:,} matches of example_gen.input are no files (broken links, pipes)"


def _unspaced(groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    unspaced = [group for group in groups if group["script"] in _UNSPACED]
    if (share := sum(group["share"] for group in unspaced)) >= _UNSPACED_SHARE:
        yield (
            f"{share:.0%} of the tokens are in scripts without spaces between words "
            f"({', '.join(group['script'] for group in unspaced)}): segment the text first with a "
            "tool for its language, put a space between words, and set "
            "transform.tokenizer=whitespace"
        )


def _held_out(statistics: Mapping[str, Any]) -> Iterator[str]:
    if not statistics["splits"]["eval"]["documents"]:
        yield (
            "no document is held out, so nothing tells what is learned from what is learned by "
            "heart: give more documents, or raise example_gen.eval_share"
        )


def _share(count: int, total: int) -> str:
    share = count / max(1, total)
    digits = 1 if share >= 0.01 else 2
    return f"{100 * share:.{digits}f} % of the documents ({count:,} of {total:,})"
