"""What an export is asked, and what numpy and the tokeniser say that it must answer."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.phrases import Phrases
from components.text import Tokenizer, tokenize
from components.vocabulary import Vocabulary

Answer = dict[str, Any]  # output name -> array, or list of rows of strings

COMPARED_WORDS = 10_000
_QUERIES = 16
_RESPELLED = 50
_PHRASES = 50  # of each pass
_K = 10
_TOLERANCE = 1e-4  # of cosines and means: sums of float32 in another order


@dataclass(frozen=True, eq=False)
class Tables:
    """The trained side of the comparison.

    Attributes:
        vectors: float32 [types, dimensions].
        types: The vocabulary.
        phrases: Pairs of tokens that became one.
    """

    vectors: npt.NDArray[np.float32]
    types: Vocabulary
    phrases: Phrases
    tokenizer: Tokenizer = field(kw_only=True)
    lowercase: bool = field(kw_only=True)

    def spread(self, number: int) -> list[int]:
        """Up to `number` ids from the first to the last, evenly."""
        last = len(self.types) - 1
        return sorted({round(id_) for id_ in np.linspace(0, last, min(number, last + 1)).tolist()})

    def words(self, ids: list[int]) -> list[str]:
        """The tokens of `ids`."""
        return [self.types.tokens[id_] for id_ in ids]

    @cached_property
    def unknown(self) -> str:
        """A word that is not in the vocabulary."""
        word = "zzzznotaword"
        while word in self.types.index:
            word += "z"
        return word

    @cached_property
    def norms(self) -> npt.NDArray[np.float32]:
        """float32 [types], the length of each vector; infinite for a vector of zeros."""
        norms: npt.NDArray[np.float32] = np.linalg.norm(self.vectors, axis=1).astype(np.float32)
        norms[norms == 0] = np.inf
        return norms

    def unit(self, id_: int) -> npt.NDArray[np.float32]:
        """float32 [dimensions], the vector of `id_` at length 1; zeros stay zeros."""
        unit: npt.NDArray[np.float32] = self.vectors[id_] / self.norms[id_]
        return unit

    def cosines(
        self, target: npt.NDArray[np.float32], left_out: list[int]
    ) -> npt.NDArray[np.float32]:
        """float32 [types], cosines with `target`; -inf for the ids `left_out`."""
        unit = target / max(float(np.linalg.norm(target)), 1e-15)
        cosines = np.asarray(self.vectors @ unit / self.norms, np.float32)
        cosines[left_out] = -np.inf
        return cosines

    def respelled(self, ids: list[int]) -> tuple[list[str], list[int]]:
        """Words that are not in the vocabulary, and which of `ids` the tokeniser reads them as."""
        words = [(word, id_) for id_ in ids for word in _spellings(self.types.tokens[id_])]
        read = self.tokenize([word for word, _ in words])
        found = {
            word: id_
            for (word, id_), tokens in zip(words, read, strict=True)
            if word not in self.types.index and tokens == [self.types.tokens[id_]]
        }
        return list(found), list(found.values())

    def tokenize(self, texts: list[str]) -> list[list[str]]:
        """The tokens of each text, by the tokeniser of the training, phrases joined."""
        raw = [text.encode("utf-8", "surrogateescape") for text in texts]
        split = tokenize(
            tf.constant(raw, tf.string, [len(raw)]),
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
        )
        return [self.phrases.join(token.decode() for token in row) for row in split.to_list()]


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


def _spellings(token: str) -> list[str]:
    """A token as people may type it, too."""
    return [
        token.upper(),
        unicodedata.normalize("NFD", token),
        token.replace("'", "’"),
        f"{token[:1]}\u00ad{token[1:]}",
    ]


_INVALID = "\udcff\udcfe"  # the bytes ff fe, which are no UTF-8


def _look_ups(tables: Tables) -> Iterator[Case]:
    ids = tables.spread(COMPARED_WORDS)
    blank = np.zeros((3, tables.vectors.shape[1]), np.float32)
    for name, words, embedding, known in [
        (f"{len(ids)} tokens", tables.words(ids), tables.vectors[ids], True),
        ("one token", tables.words([0]), tables.vectors[:1], True),
        ("unknown words", [tables.unknown, "", _INVALID], blank, False),
        ("words without a token", ["", " ", "\0"], blank, False),
        ("an empty batch", [], blank[:0], False),
    ]:
        exact = {"embedding": embedding, "in_vocabulary": np.full(len(words), known)}
        yield Case(name, "serving_default", {"words": words}, tables, exact=exact)
    words, ids = tables.respelled(tables.spread(_RESPELLED))
    exact = {"embedding": tables.vectors[ids], "in_vocabulary": np.full(len(words), True)}
    yield Case("other spellings", "serving_default", {"words": words}, tables, exact=exact)


def _texts(tables: Tables) -> Iterator[Case]:
    frequent = " ".join(tables.words(list(range(min(20, len(tables.types))))))
    spread = ", ".join(tables.words(tables.spread(50))).upper()
    phrases = [
        " ".join(pair) for pairs in tables.phrases.passes for pair in sorted(pairs)[:_PHRASES]
    ]
    for name, texts in {
        "texts": [frequent, spread, f"{frequent} {tables.unknown}", f"{_INVALID} {frequent}"],
        "texts without known tokens": ["", " \n", tables.unknown, _INVALID],
        "an empty batch": [],
        **({"phrases": [*phrases, " ".join(phrases)]} if phrases else {}),
    }.items():
        tokens = tables.tokenize(texts)
        known = [
            [tables.types.index[token] for token in row if token in tables.types.index]
            for row in tokens
        ]
        mean = np.zeros((len(texts), tables.vectors.shape[1]), np.float32)
        for row, ids in enumerate(known):
            if ids:
                mean[row] = tables.vectors[ids].mean(axis=0)
        counts = {
            "token_count": np.array([len(row) for row in tokens], np.int32),
            "known_count": np.array([len(row) for row in known], np.int32),
        }
        yield Case(
            name, "embed_text", {"text": texts}, tables, exact=counts, close={"embedding": mean}
        )


def _neighbors(tables: Tables) -> Iterator[Case]:
    ids = tables.spread(_QUERIES)
    yield _nearest(tables, f"{len(ids)} tokens", tables.words(ids), ids)
    yield _nearest(tables, "unknown words", [tables.unknown, "", _INVALID], [None] * 3)
    yield _nearest(tables, "words without a token", ["", " "], [None] * 2)
    yield _nearest(
        tables, "known and unknown words", [tables.unknown, *tables.words([0])], [None, 0]
    )
    yield _nearest(tables, "an empty batch", [], [])


def _nearest(tables: Tables, name: str, words: list[str], ids: list[Any]) -> Case:
    return Case(
        name,
        "nearest",
        {"words": words, "k": _K},
        tables,
        exact={"in_vocabulary": np.array([id_ is not None for id_ in ids], np.bool_)},
        ranking=[None if id_ is None else tables.cosines(tables.unit(id_), [id_]) for id_ in ids],
    )


def _analogies(tables: Tables) -> Iterator[Case]:
    ids = tables.spread(_QUERIES)
    triples = [(a, b, c) for a, b, c in zip(ids, ids[1:], ids[2:], strict=False)]
    yield Case(
        f"{len(triples)} triples",
        "analogy",
        {name: tables.words([triple[i] for triple in triples]) for i, name in enumerate("abc")}
        | {"k": _K},
        tables,
        ranking=[
            tables.cosines(tables.unit(b) - tables.unit(a) + tables.unit(c), [a, b, c])
            for a, b, c in triples
        ],
    )
    known, unknown = tables.types.tokens[0], tables.unknown
    yield Case(
        "triples with an unknown word",
        "analogy",
        {"a": [unknown, known, known], "b": [known, unknown, ""], "c": [known] * 3, "k": _K},
        tables,
        ranking=[None] * 3,
    )
    empty = {name: [""] for name in "abc"}
    yield Case("empty words", "analogy", empty | {"k": _K}, tables, ranking=[None])
