"""The stage: a trained model -> scores and a verdict."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import text
from components.artifacts import Evaluation, Examples, Model, write_json
from components.evaluator import scores
from components.evaluator.files import matching
from components.settings import (
    EvaluatorSettings,
    ExporterSettings,
    TrainerSettings,
    TransformSettings,
)
from components.trainer import held_out_loss
from components.vocabulary import Vocabulary

_NEIGHBORS = 8
_PROBES = 8
_FREQUENT = 300


def build(
    model: Model,
    examples: Examples,
    *,
    settings: EvaluatorSettings,
    served: ExporterSettings,
    training: TrainerSettings,
    tokens: TransformSettings,
    out: Evaluation,
) -> Evaluation:
    """Measure the model and decide whether it may be served.

    Args:
        model: The tables.
        examples: Vocabulary and held-out documents.
        settings: Files of word pairs and analogies, and the limit of the gate.
        served: Which of the vectors are scored.
        training: What the model was trained with; its pairs are the held-out pairs'.
        tokens: The tokeniser, which the words of the files go through too.
        out: Receives evaluation.json.

    Raises:
        SkipstreamError: A file of word pairs or analogies is missing or malformed.
    """
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    vectors = model.embeddings(served)
    unit = scores.unit_rows(vectors)

    def find(words: list[str]) -> npt.NDArray[np.int64]:
        return find_ids(words, vocabulary, tokens)

    loss = held_out_loss(model, examples, training)
    untrained = (1 + training.negatives) * math.log(2)
    reasons = gate(vectors, loss, settings.max_loss or untrained)
    report: dict[str, Any] = {
        "blessed": not reasons,
        "reasons": reasons,
        "held_out_loss": loss,
        "untrained_loss": untrained,
        "word_pairs": {},
        "analogies": {},
        "neighbors": neighbors(unit, probes(vocabulary, vectors), vocabulary),
    }
    for name, path in named(matching(settings.word_pairs, "evaluator.word_pairs")).items():
        report["word_pairs"][name] = _as_json("spearman", scores.word_similarity(unit, find, path))
    for name, path in named(matching(settings.analogies, "evaluator.analogies")).items():
        total, sections = scores.analogy_accuracy(unit, find, path)
        report["analogies"][name] = _as_json("accuracy", total) | {
            "sections": {section: _as_json("accuracy", sections[section]) for section in sections}
        }
    write_json(out.path / "evaluation.json", report)
    return out.finish(
        blessed=report["blessed"],
        held_out_loss=loss,
        word_pairs=report["word_pairs"],
        analogies={
            name: {key: score[key] for key in ("accuracy", "covered", "total")}
            for name, score in report["analogies"].items()
        },
    )


def gate(vectors: npt.NDArray[np.float32], loss: float | None, max_loss: float) -> list[str]:
    """Reasons against serving the model; none: it is blessed. Needs no labels.

    Args:
        vectors: float32 [types, dimensions].
        loss: Nats a held-out pair; None where nothing was held out, and nothing is judged.
        max_loss: Must be undercut.

    >>> gate(np.ones((2, 3), np.float32), 2.5, max_loss=4.16)
    []
    >>> gate(np.ones((2, 3), np.float32), 4.5, max_loss=4.16)
    ['the held-out loss must be below 4.160 nats a pair (evaluator.max_loss), got 4.500']
    """
    reasons = []
    broken = int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
    if broken:
        reasons.append(f"all vectors must be finite, got {broken} that are not")
    if loss is not None and not loss < max_loss:
        reasons.append(
            f"the held-out loss must be below {max_loss:.3f} nats a pair (evaluator.max_loss), "
            f"got {loss:.3f}"
        )
    return reasons


def find_ids(
    words: list[str], vocabulary: Vocabulary, tokens: TransformSettings
) -> npt.NDArray[np.int64]:
    """Ids of `words` as the tokeniser writes them; -1 where it makes no one known token of one."""
    split = text.tokenize(
        tf.constant(words, tf.string), tokenizer=tokens.tokenizer, lowercase=tokens.lowercase
    )
    return np.array(
        [
            vocabulary.index.get(word[0].decode("utf-8"), -1) if len(word) == 1 else -1
            for word in split.to_list()
        ],
        np.int64,
    )


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


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names; by their whole paths where two have the same name.

    >>> list(named([Path("a/x.tsv"), Path("b/x.tsv"), Path("b/y.tsv")]))
    ['a/x.tsv', 'b/x.tsv', 'y.tsv']
    """
    names = Counter(path.name for path in paths)
    return {path.name if names[path.name] == 1 else str(path): path for path in paths}


def _as_json(name: str, score: scores.Score) -> dict[str, float | int | None]:
    return {name: score.value, "covered": score.covered, "total": score.total}
