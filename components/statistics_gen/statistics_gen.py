"""The stage: examples -> their statistics, and whether they may be trained on.

Nothing but vocabulary.tsv and statistics.json is read: seconds, however large the corpus.
"""

from pathlib import Path
from typing import Any

from components.artifacts import VOCABULARY, Examples, Statistics, write_json
from components.errors import SkipstreamError
from components.settings import StatisticsGenSettings
from components.statistics_gen import features
from components.statistics_gen.counts import Counts, scripts
from components.statistics_gen.drift import compare

REPORT = "report.json"
_TOP_TOKENS = 50
_COMPARED = ("documents", "tokens", "types", "vocabulary", "kept_share")


def build(
    examples: Examples,
    reference: Examples | None,
    *,
    settings: StatisticsGenSettings,
    out: Statistics,
) -> Statistics:
    """Describe the corpus and hold it to the limits.

    Args:
        examples: What the corpus has become.
        reference: What it is compared with, if anything.
        settings: The limits.
        out: Receives report.json and FeatureStats.pb.

    Raises:
        SkipstreamError: Vocabulary or statistics are missing or damaged.
    """
    report = describe(examples, reference, settings=settings, directory=out.path)
    summary: dict[str, Any] = {"accepted": report["accepted"], "reasons": report["reasons"]}
    if drift := report["drift"]:
        summary |= {
            "reference": drift["reference"],
            "l_infinity": drift["l_infinity"]["distance"],
            "jensen_shannon": drift["jensen_shannon"],
            "new": drift["new"]["types"],
            "vanished": drift["vanished"]["types"],
        }
    return out.finish(settings, **summary)


def describe(
    examples: Examples,
    reference: Examples | None,
    *,
    settings: StatisticsGenSettings,
    directory: Path | None = None,
) -> dict[str, Any]:
    """The report on `examples`; it and the files beside it are written to `directory`, if given."""
    statistics, now = _read(examples)
    report: dict[str, Any] = {
        "examples": examples.fingerprint,
        "corpus": _corpus(statistics, now),
        "drift": None,
    }
    if reference:
        old, before = _read(reference)
        report["drift"] = {
            "reference": reference.fingerprint,
            "before": {key: old[key] for key in _COMPARED},
            **compare(now, before),
        }
    reasons = refusals(report, settings)
    report = {"accepted": not reasons, "reasons": reasons} | report
    if directory:
        message = features.to_proto(statistics, now)
        (directory / features.FILE).write_bytes(message.SerializeToString(deterministic=True))
        write_json(directory / REPORT, report)
    return report


def refusals(report: dict[str, Any], settings: StatisticsGenSettings) -> list[str]:
    """Reasons not to train on the corpus; none: it is accepted.

    >>> refusals({"corpus": {"kept_share": 0.8, "files_skipped": {}}, "drift": None},
    ...          StatisticsGenSettings(min_kept_share=0.9))
    ['the kept share must be at least 0.9 (statistics_gen.min_kept_share), got 0.8']
    """
    reasons = []
    share, lowest = report["corpus"]["kept_share"], settings.min_kept_share
    if lowest is not None and share < lowest:
        reasons.append(
            f"the kept share must be at least {lowest:g} (statistics_gen.min_kept_share), "
            f"got {share:g}"
        )
    damaged = report["corpus"]["files_skipped"].get("damaged_parts", 0)
    most = settings.max_damaged_parts
    if most is not None and damaged > most:
        reasons.append(
            f"at most {most} damaged files, or parts of large ones, may be skipped "
            f"(statistics_gen.max_damaged_parts), got {damaged}"
        )
    if not (drift := report["drift"]):
        return reasons
    widest, token = drift["l_infinity"]["distance"], drift["l_infinity"]["token"]
    if settings.max_l_infinity is not None and widest > settings.max_l_infinity:
        reasons.append(
            f"no word's share may change by more than {settings.max_l_infinity:g} "
            f"(statistics_gen.max_l_infinity), got {widest:g} for {token!r}"
        )
    distance = drift["jensen_shannon"]
    if settings.max_jensen_shannon is not None and distance > settings.max_jensen_shannon:
        reasons.append(
            f"the Jensen-Shannon distance must be at most {settings.max_jensen_shannon:g} "
            f"(statistics_gen.max_jensen_shannon), got {distance:g}"
        )
    return reasons


def _read(examples: Examples) -> tuple[dict[str, Any], Counts]:
    path = examples / "statistics.json"
    try:
        statistics = examples.statistics
    except (OSError, ValueError) as error:
        raise SkipstreamError(f"{path} cannot be read ({error}): run transform again") from error
    counts = Counts.load(examples)
    if (found := int(counts.counts.sum())) != statistics["kept_tokens"]:
        raise SkipstreamError(
            f"the counts of {examples / VOCABULARY} must add up to "
            f"{statistics['kept_tokens']}, as {path.name} says, got {found}: delete "
            f"{examples.address} and run transform again"
        )
    return statistics, counts


def _corpus(statistics: dict[str, Any], counts: Counts) -> dict[str, Any]:
    """statistics.json without what only the trainer reads, and with what the vocabulary adds."""
    splits = {
        split: {name: number for name, number in numbers.items() if name != "files"}
        for split, numbers in statistics["splits"].items()
    }
    return statistics | {
        "splits": splits,
        "top_tokens": [
            {"token": token, "count": count} for token, count in counts.top(_TOP_TOKENS)
        ],
        "scripts": scripts(counts),
    }
