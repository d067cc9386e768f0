"""What the SavedModel answers: the tokeniser, the vocabulary and the vectors in one graph.

Plain TensorFlow ops only, so that TF Serving, C, Java or Go serve it with nothing else installed.
The vectors are stored once; of their unit-length form only the inverse norms are kept.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.exporter.storage import store
from components.phrases import FILE, Phrases
from components.settings import Storage
from components.text import Tokenizer, join_phrases, line_numbers, spell, tokenize

Tensors = dict[str, tf.Tensor]

_WORDS = _TEXT = tf.TensorSpec([None], tf.string)
_K = tf.TensorSpec([], tf.int32)
_MISSING = -1
_BLOCK = 128
_TINY = 1e-30  # squared length below which a vector counts as zeros


class EmbeddingModel(tf.Module):
    """Strings in, vectors out.

    Attributes:
        vectors: float32, float16 or int8 [types, dimensions], by token id.
        scales: float32 [types], what int8 is multiplied by; there is none for the others.
        inverse_norms: float32 [types], 1 / length of each row of `vectors`; 0 for zeros.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float32],
        vocabulary: Path,
        *,
        tokenizer: Tokenizer,
        lowercase: bool,
        phrases: Path | None = None,
        storage: Storage = "float32",
    ) -> None:
        """Build the tables.

        Args:
            vectors: float32 [types, dimensions], by token id.
            vocabulary: File with one token a line, in the order of the ids. It becomes an asset.
            tokenizer: How the training text was split.
            lowercase: Whether the training text was lowered.
            phrases: Directory with the file of the pairs of tokens that became one, if any. The
                file becomes an asset, too.
            storage: Numbers that are stored.
        """
        super().__init__(name="skipstream")
        self._tokenizer: Tokenizer = tokenizer
        self._lowercase = lowercase
        self._size = len(vectors)
        stored = store(vectors, storage)
        norms = np.linalg.norm(stored.values.astype(np.float32), axis=1)
        inverse_norms = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        self.vectors = tf.Variable(stored.values, trainable=False, name="vectors")
        if stored.scales is not None:
            self.scales = tf.Variable(stored.scales, trainable=False, name="scales")
        self.inverse_norms = tf.Variable(inverse_norms, trainable=False, name="inverse_norms")
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        # With its size given, a table refuses a vocabulary file that was cut short.
        self._ids = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.string, line, tf.int64, number, vocab_size=self._size
            ),
            default_value=_MISSING,
        )
        self._tokens = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.int64, number, tf.string, line, vocab_size=self._size
            ),
            default_value="",
        )
        self._passes = 0
        if phrases and (found := Phrases.load(phrases)):
            self._passes = len(found.passes)
            self._phrases = line_numbers(str(phrases / FILE), 1 + len(found))

    @property
    def signatures(self) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
        """The served functions, by the name a client calls."""
        return {
            "serving_default": self.look_up,
            "embed_text": self.embed_text,
            "nearest": self.nearest,
            "analogy": self.analogy,
        }

    @tf.function(input_signature=[_WORDS])
    def look_up(self, words: tf.Tensor) -> Tensors:
        """The vector of each word.

        Args:
            words: string [batch].

        Returns:
            embedding: float32 [batch, dimensions], zeros for an unknown word.
            in_vocabulary: bool [batch].
        """
        ids = self._ids_of(words)
        known = ids != _MISSING
        rows = self._rows(ids)
        return {
            "embedding": tf.where(known[:, tf.newaxis], rows, 0.0),
            "in_vocabulary": known,
        }

    @tf.function(input_signature=[_TEXT])
    def embed_text(self, text: tf.Tensor) -> Tensors:
        """The mean vector of each text's known tokens.

        Args:
            text: string [batch].

        Returns:
            embedding: float32 [batch, dimensions], zeros where no token is known.
            token_count: int32 [batch].
            known_count: int32 [batch], tokens that are in the vocabulary.
        """
        tokens = self._tokenize(text)
        ids = self._ids.lookup(tokens.flat_values)
        known = ids != _MISSING
        rows, known_ids = self.vectors, tf.boolean_mask(ids, known)
        # Gathers and adds in one op: a long text's rows are never all in memory, if they are
        # stored as they are.
        if rows.dtype != tf.float32:
            rows, known_ids = self._rows(known_ids), tf.range(tf.size(known_ids))
        return {
            "embedding": tf.sparse.segment_mean(
                rows,
                known_ids,
                tf.boolean_mask(tokens.value_rowids(), known),
                num_segments=tf.size(text),
            ),
            "token_count": tf.cast(tokens.row_lengths(), tf.int32),
            "known_count": tf.reduce_sum(tokens.with_values(tf.cast(known, tf.int32)), axis=1),
        }

    @tf.function(input_signature=[_WORDS, _K])
    def nearest(self, words: tf.Tensor, k: tf.Tensor) -> Tensors:
        """The words whose vectors have the largest cosine with each word's, itself left out.

        Args:
            words: string [batch].
            k: int32 scalar, at least 1. Where fewer words are left, "" and 0 fill the row.

        Returns:
            neighbors: string [batch, k], similarity descending, ties in the order of the ids.
            similarity: float32 [batch, k], cosines.
            in_vocabulary: bool [batch]; the row of an unknown word is "" and 0.
        """
        ids = self._ids_of(words)
        answers = self._most_similar(self._rows(ids), ids[:, tf.newaxis], k)
        return {**answers, "in_vocabulary": ids != _MISSING}

    @tf.function(input_signature=[_WORDS, _WORDS, _WORDS, _K])
    def analogy(self, a: tf.Tensor, b: tf.Tensor, c: tf.Tensor, k: tf.Tensor) -> Tensors:
        """Words that are to `c` as `b` is to `a`: the largest cosines with b - a + c (3CosAdd).

        The sum is taken over unit vectors. `a`, `b` and `c` themselves are left out.

        Args:
            a: string [batch].
            b: string [batch].
            c: string [batch].
            k: int32 scalar, at least 1. Where fewer words are left, "" and 0 fill the row.

        Returns:
            neighbors: string [batch, k], "" where `a`, `b` or `c` is unknown.
            similarity: float32 [batch, k], cosines, 0 where `a`, `b` or `c` is unknown.
        """
        ids = tf.stack([self._ids_of(a), self._ids_of(b), self._ids_of(c)], axis=1)
        units = tf.math.l2_normalize(self._rows(ids), axis=2, epsilon=_TINY)
        return self._most_similar(units[:, 1] - units[:, 0] + units[:, 2], ids, k)

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        tokens = tokenize(text, tokenizer=self._tokenizer, lowercase=self._lowercase)
        if self._passes:
            tokens = join_phrases(tokens, self._phrases.lookup, passes=self._passes)
        return tokens

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 [*ids.shape, dimensions]; what stands for an unknown id is the caller's.

        Reads the variable instead of gathering from it: after one ResourceGather, every later
        read by another signature copies the whole matrix (35 MB, 3 ms a request at 88 k x 100).
        """
        ids = tf.maximum(ids, 0)
        rows = tf.cast(tf.gather(self.vectors.read_value(), ids), tf.float32)
        if self.vectors.dtype != tf.int8:
            return rows
        return rows * tf.gather(self.scales.read_value(), ids)[..., tf.newaxis]

    def _ids_of(self, words: tf.Tensor) -> tf.Tensor:
        """int64 [batch]: the word as it is, else in the tokeniser's spelling, white space aside.

        Nothing else is changed: what the tokeniser would cut off or split is unknown. Most requests
        hold tokens as they are in the vocabulary and never pay for the second look.
        """
        ids = self._ids.lookup(words)

        def spelled() -> tf.Tensor:
            tokens = spell(
                tf.strings.strip(words), tokenizer=self._tokenizer, lowercase=self._lowercase
            )
            return tf.where(ids == _MISSING, self._ids.lookup(tokens), ids)

        return tf.cond(tf.reduce_all(ids != _MISSING), lambda: ids, spelled)

    def _most_similar(self, targets: tf.Tensor, inputs: tf.Tensor, k: tf.Tensor) -> Tensors:
        """Rank the vocabulary by cosine with `targets` [batch, dimensions].

        Args:
            targets: float32 [batch, dimensions], of any length.
            inputs: int64 [batch, asked], ids that are left out; a row with an unknown one is blank.
            k: int32 scalar.
        """
        tf.debugging.assert_positive(k, "k must be at least 1")
        cosines = (
            tf.matmul(
                tf.math.l2_normalize(targets, axis=1, epsilon=_TINY),
                tf.cast(self.vectors, tf.float32),
                transpose_b=True,
            )
            * self.inverse_norms
        )
        # The inputs are dropped from a short list that is as much longer as they are many, which
        # spares writing into [batch, types].
        asked = tf.shape(inputs)[1]
        found = tf.minimum(tf.minimum(k, self._size) + asked, self._size)
        similarity, ids = self._top_k(cosines, found)
        dropped = tf.reduce_any(ids[:, :, tf.newaxis] == inputs[:, tf.newaxis, :], axis=2)
        blank = tf.reduce_any(inputs == _MISSING, axis=1, keepdims=True)
        kept, order = tf.math.top_k(
            tf.where(dropped, similarity.dtype.min, similarity), tf.minimum(k, found)
        )
        ids = tf.gather(ids, order, batch_dims=1)
        ids = tf.where(blank | (kept == kept.dtype.min), tf.constant(_MISSING, tf.int64), ids)
        padding = [[0, 0], [0, k - tf.shape(ids)[1]]]
        ids = tf.pad(ids, padding, constant_values=_MISSING)
        kept = tf.pad(kept, padding)
        return {
            "neighbors": self._tokens.lookup(ids),
            "similarity": tf.where(ids == _MISSING, 0.0, kept),
        }

    def _top_k(self, values: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """tf.math.top_k of [batch, types], ties in the order of the ids, several times as fast.

        The k largest lie in the k blocks with the largest maxima, which are found by SIMD.

        Args:
            values: float32 [batch, types], above the lowest float.
            k: int32 scalar, at most `types`.

        Returns:
            float32 and int64 [batch, k], values and their ids.
        """
        blocks = -(-self._size // _BLOCK)
        lowest = values.dtype.min
        values = tf.pad(values, [[0, 0], [0, blocks * _BLOCK - self._size]], constant_values=lowest)
        values = tf.reshape(values, [-1, blocks, _BLOCK])
        _, chosen = tf.math.top_k(
            tf.reduce_max(values, axis=2), tf.minimum(k, blocks), index_type=tf.int64
        )
        chosen = tf.sort(chosen, axis=1)
        candidates = tf.gather(values, chosen, batch_dims=1)
        candidates = tf.reshape(candidates, [tf.shape(values)[0], tf.shape(chosen)[1] * _BLOCK])
        largest, places = tf.math.top_k(candidates, k, index_type=tf.int64)
        block = tf.gather(chosen, places // _BLOCK, batch_dims=1)
        return largest, block * _BLOCK + places % _BLOCK
