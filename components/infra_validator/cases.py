"""What an export is asked, and what numpy and the tokeniser say that it must answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from components.infra_validator.tables import Tables, Vectors, unit
from components.subwords import END_OF_LINE

Answer = dict[str, Any]  # output name -> array, or list of rows of strings

COMPARED_WORDS = 10_000
_QUERIES = 16
_RESPELLED = 50
_PHRASES = 50  # of each pass
_K = 10
_LONG = 10_000  # characters of a word
_INVALID = "\udcff\udcfe"  # the bytes ff fe, which are no UTF-8
_TOLERANCE = 1e-4  # of cosines and means: sums of float32 in another order


@dataclass(frozen=True)
class Case:
    """One request and the outputs that it must have.

    Attributes:
        name: What is asked, for a person.
        signature: The signature that is called.
        inputs: Strings or an integer for each input.
        exact: Outputs that must be equal, shape and bits.
        close: Outputs that may differ by the order of a sum.
        ranking: For each row of `neighbors`, the cosine of every id, -inf for those left out;
            None for a row that must be blank.
        tables: What neighbours' cosines are looked up in.
    """

    name: str
    signature: str
    inputs: dict[str, list[str] | int]
    tables: Tables = field(repr=False)
    exact: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    close: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    ranking: list[npt.NDArray[np.float32] | None] | None = None

    def differences(self, answer: Answer) -> Iterator[str]:
        """What in `answer` is not as it must be."""
        names = {*self.exact, *self.close}
        if self.ranking is not None:
            names |= {"neighbors", "similarity"}
        if set(answer) != names:
            yield f"outputs must be {sorted(names)}, got {sorted(answer)}"
            return
        for name, expected in (self.exact | self.close).items():
            got = answer[name]
            if (got.dtype, got.shape) != (expected.dtype, expected.shape):
                yield (
                    f"{name} must be {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}"
                )
                continue
            tolerance = _TOLERANCE if name in self.close else 0
            wrong = ~np.isclose(got, expected, rtol=tolerance, atol=tolerance)
            if wrong.any():
                at = tuple(int(i) for i in np.argwhere(wrong)[0])
                yield (
                    f"{name}{list(at)} must be {expected[at]}, got {got[at]} "
                    f"({int(wrong.sum())} of {wrong.size} differ)"
                )
        if self.ranking is not None:
            yield from self._misranked(answer["neighbors"], answer["similarity"], self.ranking)

    def _misranked(
        self,
        neighbors: list[list[str]],
        similarity: npt.NDArray[np.float32],
        ranking: list[npt.NDArray[np.float32] | None],
    ) -> Iterator[str]:
        """Compares cosines instead of words: two words may be as near as each other."""
        if len(neighbors) != len(ranking) or similarity.shape != (len(ranking), _K):
            yield f"neighbors must have {len(ranking)} rows of {_K}, got {similarity.shape}"
            return
        for row, (words, cosines) in enumerate(zip(neighbors, ranking, strict=True)):
            best = np.empty(0, np.float32)
            if cosines is not None:
                best = np.sort(cosines[cosines > -np.inf])[::-1][:_K]
            ids = [self.tables.types.index.get(word) for word in words[: len(best)]]
            padding = [""] * (_K - len(best))
            if None in ids or len(set(ids)) < len(ids) or words[len(best) :] != padding:
                yield f"neighbors[{row}] must be {len(best)} distinct tokens, got {words}"
                continue
            named = np.array([cosines[id_] for id_ in ids] if cosines is not None else [])
            expected = np.concatenate([best, np.zeros(len(padding), np.float32)])
            for title, got in {
                "similarity": similarity[row],
                "the cosines of neighbors": np.concatenate([named, np.zeros(len(padding))]),
            }.items():
                if not np.allclose(got, expected, rtol=0, atol=_TOLERANCE):
                    yield f"{title}[{row}] must be {expected.tolist()}, got {got.tolist()}"


def cases(tables: Tables) -> list[Case]:
    """Every signature with known, unknown and empty words, invalid UTF-8 and an empty batch."""
    return [*_look_ups(tables), *_texts(tables), *_neighbors(tables), *_analogies(tables)]


def _look_ups(tables: Tables) -> Iterator[Case]:
    ids = tables.spread(COMPARED_WORDS)
    for name, words, embedding in [
        (f"{len(ids)} tokens", tables.words(ids), tables.vectors[ids]),
        ("one token", tables.words([0]), tables.vectors[:1]),
        ("an empty batch", [], tables.vectors[:0]),
    ]:
        exact = {"embedding": embedding, "in_vocabulary": np.full(len(words), True)}
        yield Case(name, "serving_default", {"words": words}, tables, exact=exact)
    for name, words in _unknown(tables).items():
        vectors, found = tables.look_up(words)
        exact = {"in_vocabulary": _known(found)}
        close = {"embedding": vectors}
        if not tables.buckets:
            exact, close = exact | close, {}
        yield Case(name, "serving_default", {"words": words}, tables, exact=exact, close=close)
    words, ids = tables.respelled(tables.spread(_RESPELLED))
    exact = {"embedding": tables.vectors[ids], "in_vocabulary": np.full(len(words), True)}
    yield Case("other spellings", "serving_default", {"words": words}, tables, exact=exact)


def _unknown(tables: Tables) -> dict[str, list[str]]:
    """Batches with words that are not in the vocabulary, by what they are."""
    unknown = tables.unknown
    batches = {
        "unknown words": [unknown, "", _INVALID],
        "words without a token": ["", " ", "\0"],
        "known and unknown words": [unknown, *tables.words([0])],
    }
    if tables.buckets:
        long = unknown * (_LONG // len(unknown))
        batches |= {
            "words by their n-grams": [
                unknown.upper(),
                "q",
                "ß",
                "👩\u200d🔬",
                "東京",
                END_OF_LINE,
            ],
            "very long words": [long, *tables.words([0]), "é" * _LONG, unknown],
        }
    return batches


def _known(ids: list[int | None]) -> npt.NDArray[np.bool_]:
    return np.array([id_ is not None for id_ in ids], np.bool_)


def _texts(tables: Tables) -> Iterator[Case]:
    frequent = " ".join(tables.words(list(range(min(20, len(tables.types))))))
    spread = ", ".join(tables.words(tables.spread(50))).upper()
    phrases = [
        " ".join(pair) for pairs in tables.phrases.passes for pair in sorted(pairs)[:_PHRASES]
    ]
    batches = {
        "texts": [frequent, spread, f"{frequent} {tables.unknown}", f"{_INVALID} {frequent}"],
        "texts without known tokens": ["", " \n", tables.unknown, _INVALID],
        "an empty batch": [],
    }
    if phrases:
        batches["phrases"] = [*phrases, " ".join(phrases)]
    if tables.buckets:
        batches |= {name: [frequent, " ".join(words)] for name, words in _unknown(tables).items()}
    for name, texts in batches.items():
        tokens = tables.tokenize(texts)
        mean = np.zeros((len(texts), tables.vectors.shape[1]), np.float32)
        for row, words in enumerate(tokens):
            known = np.array([word in tables.types.index for word in words], np.bool_)
            vectors = tables.vectors_of(words)
            if (counted := known | vectors.any(axis=1)).any():
                mean[row] = vectors[counted].mean(axis=0)
        known_counts = [sum(word in tables.types.index for word in words) for words in tokens]
        counts = {
            "token_count": np.array([len(row) for row in tokens], np.int32),
            "known_count": np.array(known_counts, np.int32),
        }
        yield Case(
            name, "embed_text", {"text": texts}, tables, exact=counts, close={"embedding": mean}
        )


def _neighbors(tables: Tables) -> Iterator[Case]:
    ids = tables.spread(_QUERIES)
    batches = {f"{len(ids)} tokens": tables.words(ids), "an empty batch": [], **_unknown(tables)}
    for name, words in batches.items():
        vectors, found = tables.look_up(words)
        ranking = [
            _ranked(tables, [id_], [vector], vector)
            for id_, vector in zip(found, vectors, strict=True)
        ]
        yield Case(
            name,
            "nearest",
            {"words": words, "k": _K},
            tables,
            exact={"in_vocabulary": _known(found)},
            ranking=ranking,
        )


def _ranked(
    tables: Tables, ids: list[int | None], vectors: list[Vectors], target: Vectors
) -> Vectors | None:
    """The cosine of each token with `target`, -inf for `ids`; None: a word has no vector.

    Args:
        tables: The tokens.
        ids: Of the words that are asked for.
        vectors: Theirs.
        target: What was made of these.
    """
    if any(id_ is None and not vector.any() for id_, vector in zip(ids, vectors, strict=True)):
        return None
    return tables.cosines(target, [id_ for id_ in ids if id_ is not None])


def _analogies(tables: Tables) -> Iterator[Case]:
    words = tables.words(tables.spread(_QUERIES))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    yield _analogy(tables, f"{len(triples)} triples", triples)
    known, unknown = tables.types.tokens[0], tables.unknown
    triples = [(unknown, known, known), (known, unknown, known), (known, "", known)]
    yield _analogy(tables, "triples with an unknown word", triples)
    yield _analogy(tables, "empty words", [("", "", "")])
    if tables.buckets:
        others = [word for batch in _unknown(tables).values() for word in batch]
        triples = list(zip(others, reversed(others), others[1:] + others[:1], strict=True))
        yield _analogy(tables, "words by their n-grams", triples)


def _analogy(tables: Tables, name: str, triples: list[tuple[str, str, str]]) -> Case:
    ranking = []
    for triple in triples:
        vectors, ids = tables.look_up(list(triple))
        a, b, c = map(unit, vectors)
        ranking.append(_ranked(tables, ids, list(vectors), b - a + c))
    return Case(
        name,
        "analogy",
        {name: [triple[i] for triple in triples] for i, name in enumerate("abc")} | {"k": _K},
        tables,
        ranking=ranking,
    )
