"""What moved between two embeddings: words, lengths, neighbours, and the space as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from components.artifacts import VOCABULARY, Model
from components.evaluator.scores import unit_rows
from components.exporter.alignment import FREQUENT, Fit, Ids, Vectors, fit, shared_words
from components.exporter.embeddings import Embeddings
from components.vocabulary import Vocabulary

ASKED = 1_000  # Words whose neighbours are compared, the most frequent that both know.
ANSWERS = 50_000  # Words that may be neighbours, the most frequent that both know.
NEIGHBORS = 10
_LISTED = 20
_SHOWN = 5
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK_ROWS = 65_536
_ASKED_AT_ONCE = 100


@dataclass(frozen=True, eq=False)
class Space:
    """Words and their vectors.

    Attributes:
        tokens: By id, most frequent first.
        vectors: float32 [types, dimensions], finite.
    """

    tokens: Sequence[str]
    vectors: Vectors

    @classmethod
    def load(cls, path: Path, address: str | None = None) -> Self:
        """Read a trainer artifact, a SavedModel, or the newest version in a serving directory.

        Args:
            path: Where it lies.
            address: What it is called in messages, if that is a copy.

        Raises:
            SkipstreamError: It is none of them, or damaged.
        """
        if (path / "vectors.npy").exists() and Model.load(path):
            tokens = Vocabulary.load(path / VOCABULARY).tokens
            return cls(tokens, np.load(path / "vectors.npy"))
        embeddings = Embeddings.load(path, address)
        return cls(embeddings.tokens(), embeddings.vectors())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Size, length of vectors and isotropy.

        `mean_cosine` of two different words, of the 10,000 most frequent: 0 where vectors point
        everywhere alike, near 1 where they lie in a narrow cone.
        """
        frequent = self.vectors[:FREQUENT].astype(np.float64)
        norms = np.linalg.norm(frequent, axis=1)
        total = (frequent / np.where(norms == 0, 1, norms)[:, np.newaxis]).sum(axis=0)
        count = int(np.count_nonzero(norms))
        return {
            "types": len(self.tokens),
            "dimensions": int(self.vectors.shape[1]),
            "median_norm": round(float(np.median(norms)), 6),
            "largest_norm": round(float(max(map(np.max, self._norms()))), 6),
            "mean_cosine": round(float((total @ total - count) / max(1, count * (count - 1))), 6),
        }

    def _norms(self) -> list[npt.NDArray[np.float32]]:
        starts = range(0, len(self.vectors), _BLOCK_ROWS)
        return [np.linalg.norm(self.vectors[s : s + _BLOCK_ROWS], axis=1) for s in starts]


def compare(now: Space, before: Space) -> dict[str, Any]:
    """The drift report, as JSON.

    Frequent words are those of which both vocabularies think so; see `shared_words`.

    Returns:
        `now`, `before`: see `Space.facts`.
        `words`: how many are shared, new and vanished, with the most frequent of them, and
        `coverage`, the share of the former vocabulary that is still there.
        `neighbors`: of the most frequent shared words, the ten nearest among shared words: the
        mean share that stayed (`overlap`), its quantiles, and the words that kept none of them
        (`churned`).
        `procrustes`: how well the space fits the former one, once it is turned onto it: see `Fit`.
        None where it cannot be turned: vectors have another length, or too few words are shared.
        `self_cosine`: quantiles of the cosine of each shared word's vectors, with the spaces as
        they are, and turned. None where vectors have another length.
        `moved`: the asked words that have the lowest cosine with themselves (or kept the fewest
        neighbours, where there is no such cosine), with their nearest words.
    """
    ids, old_ids = shared_words(now.tokens, before.tokens)
    found = fit(now.vectors[ids[:FREQUENT]], before.vectors[old_ids[:FREQUENT]])
    near = _nearest(now, ids)
    old_near = _nearest(before, old_ids)
    # Both count places among the shared words, so that they can be compared.
    kept = np.array([len(set(a) & set(b)) for a, b in zip(near, old_near, strict=True)], np.int64)
    most = near.shape[1]
    cosines = _self_cosines(now.vectors, before.vectors, ids, old_ids, found)
    stayed = kept if cosines is None else list(cosines.values())[-1][: len(near)]
    order = np.argsort(stayed, kind="stable")

    def words(places: Sequence[int] | Ids) -> list[str]:
        return [now.tokens[int(ids[place])] for place in places]

    return {
        "now": now.facts,
        "before": before.facts,
        "words": {
            "shared": len(ids),
            "coverage": round(len(ids) / max(1, len(before.tokens)), 6),
            "new": _others(now.tokens, ids),
            "vanished": _others(before.tokens, old_ids),
        },
        "neighbors": {
            "words": len(near),
            "of": most,
            "overlap": round(float(kept.mean() / most), 6) if kept.size and most else None,
            "quantiles": _quantiles(kept / most) if kept.size and most else None,
            "churned": {
                "words": int((kept == 0).sum()),
                "top": words(np.flatnonzero(kept == 0)[:_LISTED]),
            },
        },
        "procrustes": {"words": found.words, "residual": found.residual} if found else None,
        "self_cosine": {name: _quantiles(values) for name, values in cosines.items()}
        if cosines
        else None,
        "moved": [
            {
                "token": words([place])[0],
                "cosine": round(float(stayed[place]), 4) if cosines else None,
                "kept": int(kept[place]),
                "before": words(old_near[place][:_SHOWN]),
                "now": words(near[place][:_SHOWN]),
            }
            for place in order[:_LISTED]
        ],
    }


def _nearest(space: Space, ids: Ids) -> npt.NDArray[np.int64]:
    """The nearest shared words of the most frequent shared words, as places in `ids`.

    Returns:
        int64 [asked, up to NEIGHBORS], nearest first.
    """
    unit = unit_rows(space.vectors[ids[:ANSWERS]])
    count = max(0, min(NEIGHBORS, len(unit) - 1))
    blocks = [np.empty([0, count], np.int64)]
    for start in range(0, min(ASKED, len(unit)), _ASKED_AT_ONCE):
        asked = np.arange(start, min(start + _ASKED_AT_ONCE, ASKED, len(unit)))
        cosines = unit[asked] @ unit.T
        cosines[np.arange(len(asked)), asked] = -np.inf
        best = np.argpartition(-cosines, max(0, count - 1), axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
        blocks.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(blocks)


def _self_cosines(
    vectors: Vectors, others: Vectors, ids: Ids, other_ids: Ids, found: Fit | None
) -> dict[str, npt.NDArray[np.float32]] | None:
    """float32 [shared] each: with the spaces as they are, and with one turned onto the other."""
    if vectors.shape[1] != others.shape[1] or not len(ids):
        return None
    rotations = {"as_they_are": None} | ({"turned": found.rotation} if found else {})
    cosines: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in rotations}
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        a, b = unit_rows(vectors[ids[block]]), unit_rows(others[other_ids[block]])
        for name, rotation in rotations.items():
            turned = a if rotation is None else a @ rotation
            cosines[name].append(np.einsum("wd,wd->w", turned, b))
    return {name: np.concatenate(parts) for name, parts in cosines.items()}


def _others(tokens: Sequence[str], shared: Ids) -> dict[str, Any]:
    """Words that the other vocabulary lacks: how many, and the most frequent."""
    alone = np.ones(len(tokens), bool)
    alone[shared] = False
    return {
        "types": int(alone.sum()),
        "top": [tokens[int(id_)] for id_ in np.flatnonzero(alone)[:_LISTED]],
    }


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, _QUANTILES)
    return {f"{q:g}": round(float(v), 4) for q, v in zip(_QUANTILES, found, strict=True)}
