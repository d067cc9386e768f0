"""What moved between two embeddings: words, lengths, neighbours, and the space as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from components.artifacts import VOCABULARY, Model
from components.exporter import ranking
from components.exporter.alignment import FREQUENT, Ids, Vectors, fit, shared_words
from components.exporter.served import Served
from components.subwords import Buckets
from components.vocabulary import Vocabulary

ASKED = 1_000  # Words whose neighbours are compared, the most frequent that both know.
ANSWERS = 50_000  # Words that may be neighbours, the most frequent that both know.
NEIGHBORS = 10
_LISTED = 20
_SHOWN = 5
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK_ROWS = 65_536
_ASKED_AT_ONCE = 100

# float32 [words]: with the spaces as they are, and with one turned onto the other.
Cosines = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Space:
    """Words and their vectors.

    Attributes:
        tokens: By id, most frequent first.
        vectors: float32 [types, dimensions], finite.
        buckets: The vectors of n-grams; None: there are none.
    """

    tokens: Sequence[str]
    vectors: Vectors
    buckets: Buckets | None = None

    @classmethod
    def load(cls, path: Path, address: str | None = None) -> Self:
        """Read a trainer artifact, a SavedModel, or the newest version in a serving directory.

        Args:
            path: Where it lies.
            address: What it is called in messages, if that is a copy.

        Raises:
            SkipstreamError: It is none of them, or damaged.
        """
        if (path / "vectors.npy").exists() and (model := Model.load(path)):
            tokens = Vocabulary.load(path / VOCABULARY).tokens
            return cls(tokens, np.load(path / "vectors.npy"), model.buckets)
        served = Served.load(path, address)
        return cls(served.words, served.vectors, served.buckets())

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
        `coverage`, the share of the former vocabulary that is still there; and
        `coverage_with_ngrams`, the share that still has a vector, be it of n-grams. Vanished and
        new words have `composed`: of how many the n-grams of the other model make a vector
        (`types`), and quantiles of the cosine of that with their own (`self_cosine`, as below).
        None where that model has no n-grams.
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
    turn = found.rotation if found else None
    cosines = _self_cosines(now.vectors, before.vectors, ids, old_ids, turn)
    stayed = kept if cosines is None else list(cosines.values())[-1][: len(near)]
    order = np.argsort(stayed, kind="stable")

    def words(places: Sequence[int] | Ids) -> list[str]:
        return [now.tokens[int(ids[place])] for place in places]

    new = _alone(now, ids, before, turn)
    vanished = _alone(before, old_ids, now, None if turn is None else turn.T)
    answered = len(ids) + vanished["composed"]["types"] if vanished["composed"] else None

    return {
        "now": now.facts,
        "before": before.facts,
        "words": {
            "shared": len(ids),
            "coverage": _share(len(ids), before),
            "coverage_with_ngrams": None if answered is None else _share(answered, before),
            "new": new,
            "vanished": vanished,
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
        "self_cosine": _all_quantiles(cosines),
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
    unit = ranking.unit(space.vectors[ids[:ANSWERS]])
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
    vectors: Vectors, others: Vectors, ids: Ids, other_ids: Ids, turn: Vectors | None
) -> Cosines | None:
    """Of the rows `ids` with the rows `other_ids` of the other space."""
    blocks = (slice(start, start + _BLOCK_ROWS) for start in range(0, len(ids), _BLOCK_ROWS))
    return _joined([_cosines(vectors[ids[b]], others[other_ids[b]], turn) for b in blocks])


def _alone(space: Space, shared: Ids, other: Space, turn: Vectors | None) -> dict[str, Any]:
    """Words that another space lacks: how many, the most frequent, and what it makes of them.

    Args:
        space: Whose words they are.
        shared: Ids in it of those that the other space has.
        other: The other space.
        turn: float32 [dimensions, dimensions], turns `space` onto it; None: nothing does.
    """
    left = np.ones(len(space.tokens), bool)
    left[shared] = False
    ids = np.flatnonzero(left)
    return {
        "types": len(ids),
        "top": [space.tokens[int(id_)] for id_ in ids[:_LISTED]],
        "composed": _composed(space, ids, other.buckets, turn) if other.buckets else None,
    }


def _composed(space: Space, ids: Ids, other: Buckets, turn: Vectors | None) -> dict[str, Any]:
    """How many of the words `ids` have a vector of n-grams, and how near that is to their own."""
    types, parts = 0, []
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = ids[start : start + _BLOCK_ROWS]
        composed = other.compose([space.tokens[int(id_)] for id_ in block])
        there = composed.any(axis=1)
        types += int(there.sum())
        parts.append(_cosines(space.vectors[block[there]], composed[there], turn))
    return {"types": types, "self_cosine": _all_quantiles(_joined(parts))}


def _cosines(vectors: Vectors, others: Vectors, turn: Vectors | None) -> Cosines:
    """Of each row with that of the other space; {} where vectors have another length."""
    if vectors.shape[1] != others.shape[1]:
        return {}
    a, b = ranking.unit(vectors), ranking.unit(others)
    spaces = {"as_they_are": a} | ({} if turn is None else {"turned": a @ turn})
    return {name: np.einsum("wd,wd->w", rows, b) for name, rows in spaces.items()}


def _joined(parts: Sequence[Cosines]) -> Cosines | None:
    """None: there are no cosines."""
    names = parts[0] if parts else ()
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return joined if any(map(len, joined.values())) else None


def _share(words: int, before: Space) -> float:
    return round(words / max(1, len(before.tokens)), 6)


def _all_quantiles(cosines: Cosines | None) -> dict[str, dict[str, float]] | None:
    if cosines is None:
        return None
    return {name: _quantiles(values) for name, values in cosines.items()}


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, _QUANTILES)
    return {f"{q:g}": round(float(v), 4) for q, v in zip(_QUANTILES, found, strict=True)}
