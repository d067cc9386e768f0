"""Whether a model may be served: limits on what the evaluator measured. None of it needs labels."""

from collections.abc import Iterator
from typing import Any

from components.defaults import ENOUGH_TOKENS
from components.settings import EvaluatorSettings

# Nats a pair that a loss must be below what frequencies cost. Wikipedia with its words shuffled is
# 0.05 to 0.10 above that, at 100,000 to 2.5 million tokens; in its own order, 0.2 to 0.3 below.
LEAST_LEARNED = 0.02
# Of the scores of fewer questions, chance makes too much.
FEWEST_QUESTIONS = 100


def most_loss(settings: EvaluatorSettings, frequency_loss: float) -> float:
    """What the loss must be below, in nats a pair.

    Args:
        settings: Of the evaluator.
        frequency_loss: What guessing by frequency costs.
    """
    return settings.max_loss or frequency_loss - LEAST_LEARNED


def limits(settings: EvaluatorSettings, frequency_loss: float) -> dict[str, Any]:
    """What `refusals` goes by, as JSON; the arguments are those of `most_loss`."""
    found = settings.model_dump(mode="json", exclude={"word_pairs", "analogies"})
    return found | {"max_loss": most_loss(settings, frequency_loss)}


def refusals(report: dict[str, Any], settings: EvaluatorSettings) -> list[str]:
    """Reasons against serving the model; none: it is blessed.

    Args:
        report: The content of evaluation.json. Where no document is held out, the loss of the
            training is judged in place of the held-out one. The first version has none before it.
            What was not measured is not judged; what could not be, because the version before is
            gone, is.
        settings: The limits.

    >>> report = {"broken_vectors": 0, "loss_of": "held-out", "loss": 2.69, "frequency_loss": 2.66}
    >>> seen = {"tokens": 90_000, "left": 40_000, "epochs": 5, "setting": "trainer.epochs"}
    >>> print(*refusals(report | {"trained_on": seen, "before": None}, EvaluatorSettings()))
    the model must learn which words go together, and has not: its held-out loss is 2.690 nats a \
pair, guessing by frequency costs 2.660, and the limit is 2.640; it saw 40,000 of 90,000 tokens in \
each of 5 epochs: give more text in its own order, or raise trainer.epochs
    """
    reasons = []
    if broken := report["broken_vectors"]:
        reasons.append(f"all vectors must be finite, got {broken} that are not")
    loss, most = report["loss"], most_loss(settings, report["frequency_loss"])
    if loss is not None and not loss < most:
        reasons.append(
            f"the {report['loss_of']} loss must be below {most:.3f} nats a pair "
            f"(evaluator.max_loss), got {loss:.3f}"
            if settings.max_loss
            else _learned_nothing(report, most)
        )
    if report["before"]:
        reasons += _against(report, report["before"], settings)
    return reasons


def _learned_nothing(report: dict[str, Any], most: float) -> str:
    loss_of, seen = report["loss_of"], report["trained_on"]
    # More epochs learn any text by heart. Where nothing is held out, that would pass for learning.
    remedy = "give more text in its own order"
    if loss_of == "training":
        loss_of = "training loss (no document is held out)"
    else:
        loss_of, remedy = "held-out loss", f"{remedy}, or raise {seen['setting']}"
    if seen["tokens"] < ENOUGH_TOKENS:
        remedy = (
            f"the text is too small, word vectors begin to be of use at {ENOUGH_TOKENS:,} tokens"
        )
    epochs = "1 epoch" if seen["epochs"] == 1 else f"each of {seen['epochs']} epochs"
    return (
        f"the model must learn which words go together, and has not: its {loss_of} is "
        f"{report['loss']:.3f} nats a pair, guessing by frequency costs "
        f"{report['frequency_loss']:.3f}, and the limit is {most:.3f}; it saw {seen['left']:,} of "
        f"{seen['tokens']:,} tokens in {epochs}: {remedy}"
    )


def _against(
    report: dict[str, Any], before: dict[str, Any], settings: EvaluatorSettings
) -> Iterator[str]:
    version = f"version {before['version']}"
    if settings.require_comparison and (missing := before["missing"]):
        yield (
            f"{version} cannot be compared (evaluator.require_comparison): there is no "
            f"{', no '.join(missing)}"
        )
    most = settings.max_loss_increase
    for whose, losses in before["losses"].items():
        now, then = losses["now"], losses["before"]
        if None not in (most, now, then) and not now <= then + most:
            documents = "its own" if whose == "own_documents" else f"{version}'s"
            yield (
                f"the loss on {documents} held-out documents must be at most {most:g} nats a pair "
                f"(evaluator.max_loss_increase) above {version}'s {then:.3f}, got {now:.3f}"
            )
    most = settings.max_score_drop
    for kind, score in (("word_pairs", "spearman"), ("analogies", "accuracy")):
        for name, old in before[kind].items():
            new = report[kind][name]
            if min(new["covered"], old["covered"]) < FEWEST_QUESTIONS:
                continue
            now, then = new[score], old[score]
            if None not in (most, now, then) and now < then - most:
                yield (
                    f"the {score} of {name} must be at most {most:g} (evaluator.max_score_drop) "
                    f"below {version}'s {then:.3f}, got {now:.3f}"
                )
    if drift := before["drift"]:
        yield from _moved(drift, version, settings)


def _moved(drift: dict[str, Any], version: str, settings: EvaluatorSettings) -> Iterator[str]:
    """What moved too far. Only the vocabulary counts as known: n-grams answer for anything."""
    least, overlap = settings.min_neighbor_overlap, drift["neighbors"]["overlap"]
    if least is not None and overlap is not None and overlap < least:
        yield (
            f"frequent words must keep {least:.0%} of the neighbours that they had in {version} "
            f"(evaluator.min_neighbor_overlap), got {overlap:.1%}"
        )
    least, coverage = settings.min_coverage, drift["words"]["coverage"]
    if least is not None and coverage < least:
        answered = drift["words"]["coverage_with_ngrams"]
        others = "" if answered is None else f" ({answered:.1%} with what only n-grams answer for)"
        yield (
            f"{least:.0%} of the words of {version} must still be known (evaluator.min_coverage), "
            f"got {coverage:.1%}{others}: another corpus needs another --output, or once "
            "--force-push"
        )
    now, then = drift["now"], drift["before"]
    most, norm, old_norm = settings.max_norm_ratio, now["median_norm"], then["median_norm"]
    if most is not None and not old_norm / most <= norm <= old_norm * most:
        yield (
            f"the median length of frequent words' vectors must be within {most:g} times "
            f"(evaluator.max_norm_ratio) {version}'s {old_norm:.3g}, got {norm:.3g}"
        )
    most, rise = settings.max_cosine_increase, now["mean_cosine"] - then["mean_cosine"]
    if most is not None and rise > most:
        yield (
            f"the mean cosine of two frequent words must be at most {most:g} "
            f"(evaluator.max_cosine_increase) above {version}'s {then['mean_cosine']:.3f}, "
            f"got {now['mean_cosine']:.3f}"
        )
