"""The stage: a trained model -> scores and a verdict."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import text
from components.artifacts import (
    VOCABULARY,
    Evaluation,
    Examples,
    ExportedModel,
    Model,
    VersionBefore,
    write_json,
)
from components.defaults import chosen, share_left
from components.evaluator import drift, gate, scores
from components.evaluator.files import matching, named
from components.exporter import ranking
from components.exporter.alignment import served_buckets, served_vectors
from components.settings import (
    EvaluatorSettings,
    TrainerSettings,
    TransformSettings,
)
from components.subwords import Buckets
from components.trainer import comparable_losses, frequency_loss, held_out_loss
from components.vocabulary import Vocabulary

_NEIGHBORS = 8
_PROBES = 8
_FREQUENT = 300


def build(
    exported: ExportedModel,
    model: Model,
    examples: Examples,
    *,
    settings: EvaluatorSettings,
    out: Evaluation,
    before: VersionBefore | None = None,
) -> Evaluation:
    """Measure the model and decide whether it may be served.

    Args:
        exported: The candidate: its vectors, turned and rounded as they are served, are scored.
        model: The tables that it was exported from, which have the losses.
        examples: Vocabulary and held-out documents.
        settings: Files of word pairs and analogies, and the limits of the gate.
        out: Receives evaluation.json.
        before: The version that the model is held against, as far as it is still there.

    Raises:
        SkipstreamError: A file of word pairs or analogies is missing or malformed.
    """
    vocabulary = Vocabulary.load(examples / VOCABULARY)
    vectors, buckets = served_vectors(exported, model), served_buckets(exported, model)
    training, transform = model.settings, examples.settings
    tables = [vectors, *([buckets.rows] if buckets else [])]
    broken = sum(int(np.count_nonzero(~np.isfinite(rows).all(axis=1))) for rows in tables)
    files = {
        "word_pairs": named(matching(settings.word_pairs, "evaluator.word_pairs")),
        "analogies": named(matching(settings.analogies, "evaluator.analogies")),
    }
    unit = ranking.unit(vectors)
    report: dict[str, Any] = {
        "broken_vectors": broken,
        **_learned(model, examples, training),
        **_scored(unit, vocabulary, buckets, transform, files),
        "neighbors": neighbors(unit, probes(vocabulary, vectors), vocabulary),
        "before": None,
    }
    if before and not broken:
        report["before"] = {
            "version": before.version,
            "model": before.fingerprint,
            "missing": before.missing,
            "losses": _losses(model, examples, before, training),
            "word_pairs": {},
            "analogies": {},
            "drift": None,
        }
        if before.saved_model:
            old = drift.Space.load(before.saved_model)
            now = drift.Space(vocabulary.tokens, vectors, buckets)
            report["before"]["drift"] = drift.compare(now, old)
            if any(files.values()):
                unit = ranking.unit(old.vectors)
                known = _vocabulary(old.tokens)
                report["before"] |= _scored(unit, known, old.buckets, transform, files)
    reasons = gate.refusals(report, settings)
    for name in ("held_out_loss", "loss"):
        if report[name] is not None and not math.isfinite(report[name]):
            report[name] = None  # JSON has no such numbers.
    limits = gate.limits(settings, report["frequency_loss"])
    verdict = {"blessed": not reasons, "reasons": reasons, "limits": limits}
    write_json(out.path / "evaluation.json", verdict | report)
    return out.finish(
        settings,
        blessed=not reasons,
        held_out_loss=report["held_out_loss"],
        loss_of=report["loss_of"],
        frequency_loss=report["frequency_loss"],
        **(_summary(report["before"]) if report["before"] else {}),
        word_pairs=report["word_pairs"],
        analogies={
            name: {key: number for key, number in score.items() if key != "sections"}
            for name, score in report["analogies"].items()
        },
    )


def _learned(model: Model, examples: Examples, training: TrainerSettings) -> dict[str, Any]:
    """What the model costs, and what knowing only the counts of words does, on the same pairs.

    Where no document is held out, the pairs are those of the training. Then nothing tells what was
    learned by heart from what holds for other text, too.

    Returns:
        `held_out_loss`, None without a held-out pair; `loss`, that or the training's, as `loss_of`
        says; `frequency_loss`; and `trained_on`: the tokens of the text, those that thresholds and
        subsampling left, how often they were seen, and the setting that says so.
    """
    settings = chosen(training, examples)
    loss = held_out = held_out_loss(model, examples, settings)
    frequency = frequency_loss(examples, settings, "eval")
    loss_of = "held-out"
    if loss is None or frequency is None:
        loss, loss_of = model.summary["loss"], "training"
        # Of a text so small that these draws leave no pair: what an untrained model costs.
        untrained = (1 + settings.negatives) * math.log(2)
        frequency = frequency_loss(examples, settings, "train") or untrained
    statistics, counts = examples.statistics, Vocabulary.load_counts(examples / VOCABULARY)
    left = statistics["splits"]["train"]["kept_tokens"] * share_left(counts, settings.sample)
    return {
        "held_out_loss": held_out,
        "loss": loss,
        "loss_of": loss_of,
        "frequency_loss": frequency,
        "trained_on": {
            "tokens": statistics["tokens"],
            "left": round(left),
            "epochs": model.summary["epochs"],
            "setting": "trainer.warm_epochs" if "warm_start" in model.summary else "trainer.epochs",
        },
    }


def _scored(
    unit: npt.NDArray[np.float32],
    vocabulary: Vocabulary,
    buckets: Buckets | None,
    transform: TransformSettings,
    files: dict[str, dict[str, Path]],
) -> dict[str, dict[str, Any]]:
    """Scores by `word_pairs` and `analogies`, of each file by its name."""

    def find(words: list[str]) -> npt.NDArray[np.int64]:
        return find_ids(words, vocabulary, transform)

    compose = compose_by(buckets, transform) if buckets else None
    report: dict[str, dict[str, Any]] = {"word_pairs": {}, "analogies": {}}
    for name, path in files["word_pairs"].items():
        score = scores.word_similarity(unit, find, path, compose)
        report["word_pairs"][name] = score.as_json("spearman")
    for name, path in files["analogies"].items():
        total, sections = scores.analogy_accuracy(unit, find, path, compose)
        report["analogies"][name] = total.as_json("accuracy") | {
            "sections": {section: sections[section].as_json("accuracy") for section in sections}
        }
    return report


def _losses(
    model: Model, examples: Examples, before: VersionBefore, training: TrainerSettings
) -> dict[str, dict[str, float | None]]:
    """Losses of both models on the held-out documents of the candidate and of the one before.

    Both have seen none of them, as documents are held out by a hash of their content, as long as
    example_gen.eval_share is the same: where it grew, the one before has seen some of the
    candidate's, where it fell, the candidate some of the others. A candidate that was trained on
    nonsense does well on the nonsense that it was held out from, and badly on the documents of
    before; one that learned nothing new does badly on its own.
    """
    if not before.model:
        return {}
    losses = {}
    for whose, held_out in (("own_documents", examples), ("documents_before", before.examples)):
        if held_out:
            now, then = comparable_losses([model, before.model], held_out, training)
            losses[whose] = {"now": now, "before": then}
    return losses


def _summary(before: dict[str, Any]) -> dict[str, Any]:
    summary = {"before_version": before["version"]}
    if moved := before["drift"]:
        summary["neighbor_overlap"] = moved["neighbors"]["overlap"]
        for name in ("coverage", "coverage_with_ngrams"):
            if (share := moved["words"][name]) is not None:
                summary[name] = share
    return summary


def _vocabulary(tokens: Sequence[str]) -> Vocabulary:
    """Of an exported model, which has no counts."""
    return Vocabulary(tuple(tokens), np.zeros(len(tokens), np.int64))


def find_ids(
    words: list[str], vocabulary: Vocabulary, transform: TransformSettings
) -> npt.NDArray[np.int64]:
    """Ids of `words` as the tokeniser writes them; -1 where it makes no one known token of one."""
    index = vocabulary.index
    return np.array([index.get(word, -1) for word in spelled(words, transform)], np.int64)


def compose_by(buckets: Buckets, transform: TransformSettings) -> scores.Compose:
    """Vectors of the n-grams of words, as the tokeniser writes these."""
    return lambda words: buckets.compose(spelled(words, transform))


def spelled(words: list[str], transform: TransformSettings) -> list[str]:
    """Words as the tokeniser writes them.

    What it would split may be a phrase: `New_York` is, as for the signatures, a spelling of one.
    """
    given = tf.strings.strip(tf.constant(words, tf.string))
    wholes, split = (
        function(given, tokenizer=transform.tokenizer, lowercase=transform.lowered)
        for function in (text.spell, text.tokenize)
    )
    return [
        (word[0] if len(word) == 1 else whole).decode()
        for word, whole in zip(split.to_list(), wholes.numpy(), strict=True)
    ]


def probes(vocabulary: Vocabulary, vectors: npt.NDArray[np.float32]) -> list[int]:
    """Ids of a few frequent words that mean something, for a person to look at.

    Among words of like frequency, those with the longer vectors are the more specific ones
    (Schakel and Wilson, "Measuring Word Significance using Distributed Representations of Words",
    2015), so function words stay out without a list of them.

    Args:
        vocabulary: Most frequent first.
        vectors: float32 [types, dimensions].
    """
    frequent = [
        id_
        for id_, token in enumerate(vocabulary.tokens[: 10 * _FREQUENT])
        if token.isalpha() and (len(token) > 4 or not token.isascii())
    ][:_FREQUENT]
    norms = np.linalg.norm(vectors[frequent], axis=1)
    longest = np.argsort(-norms, kind="stable")[:_PROBES]
    return sorted(frequent[place] for place in longest)


def neighbors(
    unit: npt.NDArray[np.float32], ids: list[int], vocabulary: Vocabulary
) -> dict[str, list[tuple[str, float]]]:
    """For each id's token, the nearest tokens by cosine, nearest first."""
    found = {}
    for id_ in ids:
        similarity = unit @ unit[id_]
        similarity[id_] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[: min(_NEIGHBORS, len(unit) - 1)]
        found[vocabulary.tokens[id_]] = [
            (vocabulary.tokens[near], round(float(similarity[near]), 4)) for near in nearest
        ]
    return found
