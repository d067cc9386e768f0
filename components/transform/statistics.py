"""What a finished job has counted, as statistics.json has it."""

import itertools
from pathlib import Path
from typing import Any

from components.artifacts import VOCABULARY, Examples
from components.errors import SkipstreamError
from components.example_gen.reader import DAMAGED
from components.example_gen.units import Listing
from components.phrases import FILE as PHRASES
from components.phrases import Phrases
from components.transform import joins, records
from components.vocabulary import Vocabulary

_TOP_TOKENS = 50


def describe(
    counts: dict[str, int], tokens: int, types: int, listing: Listing, out: Examples
) -> dict[str, Any]:
    """The content of statistics.json.

    Args:
        counts: The sum of what `records.write_segment` counted in all segments.
        tokens: That were counted for the vocabulary.
        types: Of these.
        listing: The corpus.
        out: Holds vocabulary and TFRecords.

    Raises:
        SkipstreamError: There are not as many files as were written, or they hold other tokens
            than were counted.
    """
    read = {name: count for name, count in counts.items() if "." not in name}
    encoded = {name: count for name, count in counts.items() if "." in name}
    too_long, joined = encoded.pop("tokens.too_long"), read.pop(joins.JOINED, 0)
    vocabulary = Vocabulary.load_counts(out.path / VOCABULARY)
    phrases = {"types": len(Phrases.load(out.path / PHRASES)), "pairs_joined": joined}
    kept_tokens = int(vocabulary.sum())
    splits: dict[str, dict[str, Any]] = {
        split: {
            name: encoded.pop(f"{split}.{name}") for name in ("documents", "tokens", "kept_tokens")
        }
        | {
            "files": {
                path.name: path.stat().st_size
                for path in sorted((out.path / split).glob("*.tfrecord.gz"))
            }
        }
        for split in records.SPLITS
    }
    for split, numbers in splits.items():
        written, found = encoded.pop(f"{split}.files", 0), len(numbers["files"])
        if found != written:
            raise SkipstreamError(
                f"the workers must leave all TFRecord files that they write, and of {written} in "
                f"{split}/ there are {found}: leave transform.work_directory to the job and run "
                "again"
            )
    if sum(split["kept_tokens"] for split in splits.values()) != kept_tokens:
        raise SkipstreamError(
            "the two passes over the corpus must find the same tokens, and do not: leave its "
            "files as they are and run again"
        )
    documents, size = read.pop("documents", 0), read.pop("bytes", 0)
    damaged = {name: read.pop(name) for name in (DAMAGED,) if name in read}
    repaired = {name: read.pop(name, 0) for name in ("invalid_utf8", "nul", "cut")}
    dropped = read | {
        key.removeprefix("dropped."): count
        for key, count in encoded.items()
        if key.startswith("dropped.") and count
    }
    lengths = sorted(
        (int(key.removeprefix("length.")), count)
        for key, count in encoded.items()
        if key.startswith("length.")
    )
    return {
        "bytes": size,
        "documents": documents,
        "documents_dropped": dropped,
        "documents_repaired": repaired,
        "files_skipped": listing.skipped | damaged,
        "tokens": tokens + too_long,
        "types": types,
        "vocabulary": len(vocabulary),
        "kept_tokens": kept_tokens,
        "kept_share": round(kept_tokens / (tokens + too_long), 6),
        "tokens_dropped": {"out_of_vocabulary": tokens - kept_tokens}
        | ({"too_long": too_long} if too_long else {}),
        **({"phrases": phrases} if (out.path / PHRASES).exists() else {}),
        "types_dropped": {"below_min_count_or_beyond_max_size": types - len(vocabulary)},
        "splits": splits,
        "document_lengths": [{"up_to": bound, "documents": count} for bound, count in lengths],
        "top_tokens": _top_tokens(out.path / VOCABULARY),
    }


def _top_tokens(vocabulary: Path) -> list[dict[str, Any]]:
    with vocabulary.open("rb") as file:
        lines = [line.rstrip(b"\n").split(b"\t") for line in itertools.islice(file, _TOP_TOKENS)]
    return [{"token": token.decode(), "count": int(count)} for token, count in lines]
