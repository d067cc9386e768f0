"""What a person sees of a model: its scores, and the neighbours of a few words."""

from collections.abc import Mapping
from typing import Any

_WORDS = 8
_NEIGHBORS = 6


def summary(report: Mapping[str, Any]) -> str:
    """The content of evaluation.json as lines of text.

    >>> print(summary({
    ...     "neighbors": {"tensor": [["tensors", 0.81], ["array", 0.7]], "gradient": []},
    ...     "held_out_loss": 2.5,
    ...     "word_pairs": {"ws353": {"spearman": 0.61, "covered": 340, "total": 353}},
    ...     "analogies": {"google": {"accuracy": 0.25, "covered": 9000, "total": 19544}},
    ... }))
    tensor    tensors, array
    gradient
    held-out loss  2.5000 nats a pair
    ws353          0.610 Spearman, 340 of 353 pairs covered
    google         25.0 % right, 9,000 of 19,544 questions covered
    """
    neighbors = dict(list(report.get("neighbors", {}).items())[:_WORDS])
    width = max(map(len, neighbors), default=0)
    lines = [
        f"{word:<{width}}  {', '.join(neighbor for neighbor, _ in found[:_NEIGHBORS])}".rstrip()
        for word, found in neighbors.items()
    ]
    scores = {}
    if (loss := report.get("held_out_loss")) is not None:
        scores["held-out loss"] = f"{loss:.4f} nats a pair"
    for name, score in report.get("word_pairs", {}).items():
        value = _number(score["spearman"], ".3f")
        scores[name] = f"{value} Spearman, {_coverage(score)} pairs covered"
    for name, score in report.get("analogies", {}).items():
        value = _number(score["accuracy"], ".1%").replace("%", " %")
        scores[name] = f"{value} right, {_coverage(score)} questions covered"
    width = max(map(len, scores), default=0)
    lines += [f"{name:<{width}}  {text}" for name, text in scores.items()]
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "no score" if value is None else format(value, form)


def _coverage(score: Mapping[str, Any]) -> str:
    return f"{score['covered']:,} of {score['total']:,}"
