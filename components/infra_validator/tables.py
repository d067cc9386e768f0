"""What numpy and the tokeniser say of the trained vectors, for comparison with the export."""

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.phrases import Phrases
from components.subwords import Buckets
from components.text import Tokenizer, spell, tokenize
from components.vocabulary import Vocabulary

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tables:
    """The trained side of the comparison.

    Attributes:
        vectors: float32 [types, dimensions].
        types: The vocabulary.
        phrases: Pairs of tokens that became one.
        buckets: The vectors of n-grams, if there are any.
    """

    vectors: Vectors
    types: Vocabulary
    phrases: Phrases
    tokenizer: Tokenizer = field(kw_only=True)
    lowercase: bool = field(kw_only=True)
    buckets: Buckets | None = field(default=None, kw_only=True)

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

    def look_up(self, words: list[str]) -> tuple[Vectors, list[int | None]]:
        """Vectors and ids of words as they are, else in the tokeniser's spelling.

        Returns:
            float32 [words, dimensions], those of unknown words made of n-grams, if there are any,
            else zeros; and for each word its id, or None.
        """
        stripped = tf.strings.strip(_tensor(words))
        spelled = spell(stripped, tokenizer=self.tokenizer, lowercase=self.lowercase)
        tokens = [
            word if word in self.types.index else token.decode()
            for word, token in zip(words, spelled.numpy().tolist(), strict=True)
        ]
        return self.vectors_of(tokens), [self.types.index.get(token) for token in tokens]

    def vectors_of(self, tokens: list[str]) -> Vectors:
        """float32 [tokens, dimensions], those of unknown tokens made of n-grams, if any."""
        ids = [self.types.index.get(token) for token in tokens]
        vectors = np.zeros((len(tokens), self.vectors.shape[1]), np.float32)
        for row, id_ in enumerate(ids):
            if id_ is not None:
                vectors[row] = self.vectors[id_]
            elif self.buckets:
                vectors[row] = self.buckets.compose([tokens[row]])[0]
        return vectors

    @cached_property
    def norms(self) -> Vectors:
        """float32 [types], the length of each vector; infinite for a vector of zeros."""
        norms: Vectors = np.linalg.norm(self.vectors, axis=1).astype(np.float32)
        norms[norms == 0] = np.inf
        return norms

    def cosines(self, target: Vectors, left_out: list[int]) -> Vectors:
        """float32 [types], cosines with `target`; -inf for the ids `left_out`."""
        cosines = np.asarray(self.vectors @ unit(target) / self.norms, np.float32)
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
        split = tokenize(_tensor(texts), tokenizer=self.tokenizer, lowercase=self.lowercase)
        return [self.phrases.join(token.decode() for token in row) for row in split.to_list()]


def unit(vector: Vectors) -> Vectors:
    """`vector`, float32 [dimensions], at length 1; zeros stay zeros."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-15), np.float32)


def _tensor(texts: list[str]) -> tf.Tensor:
    raw = [text.encode("utf-8", "surrogateescape") for text in texts]
    return tf.constant(raw, tf.string, [len(raw)])


def _spellings(token: str) -> list[str]:
    """A token as people may type it, too."""
    return [
        token.upper(),
        unicodedata.normalize("NFD", token),
        token.replace("'", "’"),
        f"{token[:1]}\u00ad{token[1:]}",
    ]
