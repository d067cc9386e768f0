"""The gates as rows of a table: what was measured, its limit, and whether it holds.

The verdict itself is the gates'; a test holds these rows against it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.evaluator.gate import FEWEST_QUESTIONS

_NO_LIMIT = "no limit"


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        name: What was measured.
        value: What was found.
        limit: What it is held to.
        setting: That says so; "" where none does.
        holds: None: it is not judged.
    """

    name: str
    value: str
    limit: str
    setting: str
    holds: bool | None


def of_corpus(report: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Check]:
    """The gate before the training.

    Args:
        report: The content of report.json of StatisticsGen.
        limits: Its settings.
    """
    facts = report["corpus"]
    share, least = facts["kept_share"], limits["min_kept_share"]
    yield _check(
        "Tokens kept", f"{share:.1%}", least, "at least {:.1%}", "min_kept_share", share, low=True
    )
    damaged, most = facts["files_skipped"].get("damaged_parts", 0), limits["max_damaged_parts"]
    yield _check(
        "Damaged files, or parts of large ones", f"{damaged:,}", most, "at most {:,}",
        "max_damaged_parts", damaged,
    )  # fmt: skip
    if drift := report["drift"]:
        widest = drift["l_infinity"]["distance"]
        yield _check(
            "Largest change of a word's share", f"{widest:g}", limits["max_l_infinity"],
            "at most {:g}", "max_l_infinity", widest,
        )  # fmt: skip
        distance = drift["jensen_shannon"]
        yield _check(
            "Jensen-Shannon distance to the corpus before", f"{distance:g}",
            limits["max_jensen_shannon"], "at most {:g}", "max_jensen_shannon", distance,
        )  # fmt: skip


def _check(
    name: str,
    shown: str,
    limit: float | None,
    form: str,
    setting: str,
    value: float,
    *,
    low: bool = False,
) -> Check:
    said = _NO_LIMIT if limit is None else form.format(limit)
    holds = None if limit is None else (value >= limit if low else value <= limit)
    return Check(name, shown, said, f"statistics_gen.{setting}", holds)


def of_model(report: Mapping[str, Any]) -> Iterator[Check]:
    """The gate after the training.

    Args:
        report: The content of evaluation.json.
    """
    limits, broken = report["limits"], report["broken_vectors"]
    yield Check("Vectors that are not finite", f"{broken:,}", "none", "", not broken)
    loss, most = report["loss"], limits["max_loss"]
    yield Check(
        f"{report['loss_of'].capitalize()} loss, nats a pair (guessing by frequency: "
        f"{report['frequency_loss']:.3f})",
        _number(loss),
        f"below {most:.3f}",
        "evaluator.max_loss",
        # A loss that is no number is written as none.
        loss is not None and loss < most,
    )
    if before := report["before"]:
        yield from _beside(report, before, limits)


def _beside(
    report: Mapping[str, Any], before: Mapping[str, Any], limits: Mapping[str, Any]
) -> Iterator[Check]:
    version = f"version {before['version']}"
    missing, must = before["missing"], limits["require_comparison"]
    yield Check(
        f"What is left of {version} to compare with",
        f"no {', no '.join(missing)}" if missing else "all",
        "all" if must else _NO_LIMIT,
        "evaluator.require_comparison",
        not missing if must else None,
    )
    most = limits["max_loss_increase"]
    for whose, losses in before["losses"].items():
        documents = "own" if whose == "own_documents" else f"{version}'s"
        now, then = losses["now"], losses["before"]
        yield _against(
            f"Loss on {documents} held-out documents, words of both", now, then, most,
            "max_loss_increase",
        )  # fmt: skip
    most = limits["max_score_drop"]
    for kind, score in (("word_pairs", "spearman"), ("analogies", "accuracy")):
        for name, old in before[kind].items():
            new = report[kind][name]
            few = min(new["covered"], old["covered"]) < FEWEST_QUESTIONS
            yield _against(
                f"{score.capitalize()} of {name}", new[score], old[score],
                None if few else most, "max_score_drop", falls=True,
                note=f" (fewer than {FEWEST_QUESTIONS} known questions)" if few else "",
            )  # fmt: skip
    if drift := before["drift"]:
        yield from _moved(drift, version, limits)


def _moved(drift: Mapping[str, Any], version: str, limits: Mapping[str, Any]) -> Iterator[Check]:
    for name, setting, value in (
        (
            "Neighbours of frequent words that stayed",
            "min_neighbor_overlap",
            drift["neighbors"]["overlap"],
        ),
        (f"Words of {version} still known", "min_coverage", drift["words"]["coverage"]),
    ):
        least = limits[setting]
        unjudged = least is None or value is None
        yield Check(
            name,
            "not measured" if value is None else f"{value:.1%}",
            _NO_LIMIT if least is None else f"at least {least:.0%}",
            f"evaluator.{setting}",
            None if unjudged else value >= least,
        )
    now, then = drift["now"], drift["before"]
    most, norm, old = limits["max_norm_ratio"], now["median_norm"], then["median_norm"]
    yield Check(
        "Median length of frequent words' vectors",
        f"{norm:.3g} (was {old:.3g})",
        _NO_LIMIT if most is None else f"{old / most:.3g} to {old * most:.3g}",
        "evaluator.max_norm_ratio",
        None if most is None else old / most <= norm <= old * most,
    )
    most, cosine, old = limits["max_cosine_increase"], now["mean_cosine"], then["mean_cosine"]
    yield Check(
        "Mean cosine of two frequent words",
        f"{cosine:.3f} (was {old:.3f})",
        _NO_LIMIT if most is None else f"at most {old + most:.3f}",
        "evaluator.max_cosine_increase",
        None if most is None else not cosine - old > most,
    )


def _against(
    name: str,
    now: float | None,
    then: float | None,
    most: float | None,
    setting: str,
    *,
    falls: bool = False,
    note: str = "",
) -> Check:
    """A number that may be worse than before by so much. `falls`: less is worse."""
    value = f"{_number(now)} (was {_number(then)})"
    if most is None or now is None or then is None:
        limit, holds = f"{'not judged' if note else _NO_LIMIT}{note}", None
    elif falls:
        limit, holds = f"at least {then - most:.3f}", not now < then - most
    else:
        limit, holds = f"at most {then + most:.3f}", now <= then + most
    return Check(name, value, limit, f"evaluator.{setting}", holds)


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.3f}"
