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
from components.exporter.subword_ops import NgramVectors
from components.phrases import Phrases
from components.settings import Storage
from components.subwords import Buckets
from components.text import Tokenizer, join_phrases, line_numbers, spell, tokenize

Tensors = dict[str, tf.Tensor]

_WORDS = _TEXT = tf.TensorSpec([None], tf.string)
_K = tf.TensorSpec([], tf.int32)
_BLOCK = 128  # rows
_CHUNK_BLOCKS = 64
_MOST_ANSWERS = 10_000  # to a word, or as many as there are words: rows are filled up to k
_TINY = 1e-30  # squared length below which a vector counts as zeros


class EmbeddingModel(tf.Module):
    """Strings in, vectors out.

    Attributes:
        vectors: float32, float16 or int8 [rows, dimensions], by token id. At least one row of zeros
            follows the last token's: that of unknown words. There are as many as fill the blocks in
            which neighbours are sought.
        scales: float32 [rows], what int8 is multiplied by; there is none for the others.
        inverse_norms: float32 [rows], 1 / length of each row of `vectors`; 0 for zeros.
        ngrams: The vectors of n-grams, of which those of unknown words are made; None: there are
            none, and unknown words have zeros.
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
        buckets: Buckets | None = None,
    ) -> None:
        """Build the tables.

        Args:
            vectors: float32 [types, dimensions], by token id.
            vocabulary: File with one token a line, in the order of the ids. It becomes an asset.
            tokenizer: How the training text was split.
            lowercase: Whether the training text was lowered.
            phrases: File of the pairs of tokens that became one, if any. The
                file becomes an asset, too.
            storage: Numbers that are stored.
            buckets: The vectors of n-grams, if any.
        """
        super().__init__(name="skipstream")
        self._tokenizer: Tokenizer = tokenizer
        self._lowercase = lowercase
        self._size = self._unknown = len(vectors)
        blocks = self._size // _BLOCK + 1
        self._chunks = 1 if storage == "float32" else -(-blocks // _CHUNK_BLOCKS)
        self._blocks = -(-blocks // self._chunks) * self._chunks
        zeros = self._blocks * _BLOCK - self._size
        stored = store(np.pad(vectors, [(0, zeros), (0, 0)]), storage)
        norms = np.linalg.norm(stored.values.astype(np.float32, copy=False), axis=1)
        inverse_norms = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        self.vectors = tf.Variable(stored.values, trainable=False, name="vectors")
        if stored.scales is not None:
            self.scales = tf.Variable(stored.scales, trainable=False, name="scales")
        self.inverse_norms = tf.Variable(inverse_norms, trainable=False, name="inverse_norms")
        self.ngrams = NgramVectors(buckets, storage) if buckets else None
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        # With its size given, a table refuses a vocabulary file that was cut short.
        self._ids = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.string, line, tf.int64, number, vocab_size=self._size
            ),
            default_value=self._unknown,
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
            self._phrases = line_numbers(str(phrases), 1 + len(found))

    @property
    def signatures(self) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
        """The served functions, by the name a client calls."""
        return {
            "serving_default": self.look_up,
            "embed_text": self.embed_text,
            "nearest": self.nearest,
            "analogy": self.analogy,
        }

    @tf.function(autograph=False, input_signature=[_WORDS])
    def look_up(self, words: tf.Tensor) -> Tensors:
        """The vector of each word.

        Args:
            words: string [batch].

        Returns:
            embedding: float32 [batch, dimensions]. Of an unknown word the mean of its n-grams, in
                the tokeniser's spelling; zeros if none of them was trained.
            in_vocabulary: bool [batch].
        """
        ids, vectors = self._find(words)
        return {"embedding": vectors, "in_vocabulary": ids != self._unknown}

    @tf.function(autograph=False, input_signature=[_TEXT])
    def embed_text(self, text: tf.Tensor) -> Tensors:
        """The mean vector of those of each text's tokens that have one.

        Args:
            text: string [batch].

        Returns:
            embedding: float32 [batch, dimensions], zeros where no token has a vector.
            token_count: int32 [batch].
            known_count: int32 [batch], tokens that are in the vocabulary.
        """
        tokens = self._tokenize(text)
        ids = self._ids.lookup(tokens.flat_values)
        known = ids != self._unknown
        rows, known_ids = self.vectors, tf.boolean_mask(ids, known)
        # Gathers and adds in one op: a long text's rows are never all in memory, if they are
        # stored as they are.
        if rows.dtype != tf.float32:
            rows, known_ids = self._rows(known_ids), tf.range(tf.size(known_ids))
        texts, number = tokens.value_rowids(), tf.size(text)
        known_texts = tf.boolean_mask(texts, known)
        if ngrams := self.ngrams:
            sums = tf.sparse.segment_sum(rows, known_ids, known_texts, num_segments=number)
            embedding = ngrams.mean(sums, tokens, known)
        else:
            embedding = tf.sparse.segment_mean(rows, known_ids, known_texts, num_segments=number)
        return {
            "embedding": embedding,
            "token_count": tf.cast(tokens.row_lengths(), tf.int32),
            "known_count": tf.reduce_sum(tokens.with_values(tf.cast(known, tf.int32)), axis=1),
        }

    @tf.function(autograph=False, input_signature=[_WORDS, _K])
    def nearest(self, words: tf.Tensor, k: tf.Tensor) -> Tensors:
        """The words whose vectors have the largest cosine with each word's, itself left out.

        Args:
            words: string [batch].
            k: int32 scalar, from 1 to 10,000 or the size of the vocabulary, whichever is more.
                Where fewer words are left, "" and 0 fill the row.

        Returns:
            neighbors: string [batch, k], similarity descending, ties in the order of the ids.
            similarity: float32 [batch, k], cosines.
            in_vocabulary: bool [batch]; the row of an unknown word without a vector is "" and 0.
        """
        ids, vectors = self._find(words)
        blank = self._without_vector(ids, vectors)
        answers = self._most_similar(vectors, ids[:, tf.newaxis], blank, k)
        return {**answers, "in_vocabulary": ids != self._unknown}

    @tf.function(autograph=False, input_signature=[_WORDS, _WORDS, _WORDS, _K])
    def analogy(self, a: tf.Tensor, b: tf.Tensor, c: tf.Tensor, k: tf.Tensor) -> Tensors:
        """Words that are to `c` as `b` is to `a`: the largest cosines with b - a + c (3CosAdd).

        The sum is taken over unit vectors. `a`, `b` and `c` themselves are left out.

        Args:
            a: string [batch].
            b: string [batch].
            c: string [batch].
            k: int32 scalar, from 1 to 10,000 or the size of the vocabulary, whichever is more.
                Where fewer words are left, "" and 0 fill the row.

        Returns:
            neighbors: string [batch, k], "" where `a`, `b` or `c` is unknown and has no vector.
            similarity: float32 [batch, k], cosines, 0 where `neighbors` is "".
        """
        ids, vectors = self._find(tf.reshape(tf.stack([a, b, c], axis=1), [-1]))
        blank = tf.reduce_any(tf.reshape(self._without_vector(ids, vectors), [-1, 3]), axis=1)
        units = tf.math.l2_normalize(vectors, axis=1, epsilon=_TINY)
        units = tf.reshape(units, [-1, 3, self.vectors.shape[1]])
        ids = tf.reshape(ids, [-1, 3])
        return self._most_similar(units[:, 1] - units[:, 0] + units[:, 2], ids, blank, k)

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        tokens = tokenize(text, tokenizer=self._tokenizer, lowercase=self._lowercase)
        if self._passes:
            tokens = join_phrases(tokens, self._phrases.lookup, passes=self._passes)
        return tokens

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 [*ids.shape, dimensions], zeros for unknown words.

        Reads the variable instead of gathering from it: after one ResourceGather, every later
        read by another signature copies the whole matrix (35 MB, 3 ms a request at 88 k x 100).
        """
        rows = tf.cast(tf.gather(self.vectors.read_value(), ids), tf.float32)
        if self.vectors.dtype != tf.int8:
            return rows
        return rows * tf.gather(self.scales.read_value(), ids)[..., tf.newaxis]

    def _find(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """int64 [batch] ids and float32 [batch, dimensions] vectors.

        The word as it is, else in the tokeniser's spelling, white space aside. Nothing else is
        changed: what the tokeniser would split is unknown. Most requests hold tokens as they are
        in the vocabulary and never pay for the second look, nor for n-grams.
        """
        ids = self._ids.lookup(words)

        def spelled() -> tuple[tf.Tensor, tf.Tensor]:
            tokens = spell(
                tf.strings.strip(words), tokenizer=self._tokenizer, lowercase=self._lowercase
            )
            found = tf.where(ids == self._unknown, self._ids.lookup(tokens), ids)
            vectors = self._rows(found)
            if ngrams := self.ngrams:
                places = tf.where(found == self._unknown)[:, 0]
                vectors, _ = ngrams.add(tf.gather(tokens, places), places, vectors)
            return found, vectors

        known = tf.reduce_all(ids != self._unknown)
        found, vectors = tf.cond(known, lambda: (ids, self._rows(ids)), spelled)
        return found, vectors

    def _without_vector(self, ids: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Which words are unknown and have no vector: bool [batch], of `_find`'s answers."""
        unknown = ids == self._unknown
        return unknown & tf.reduce_all(vectors == 0, axis=1) if self.ngrams else unknown

    def _most_similar(
        self, targets: tf.Tensor, inputs: tf.Tensor, blank: tf.Tensor, k: tf.Tensor
    ) -> Tensors:
        """Rank the vocabulary by cosine with `targets`.

        The k largest lie in the k blocks with the largest maxima, which are found by SIMD: several
        times as fast as tf.math.top_k of whole rows. Each input may bring one block among them in
        vain, and so may the zeros behind the last token.

        Args:
            targets: float32 [batch, dimensions], of any length.
            inputs: int64 [batch, asked], ids that are left out.
            blank: bool [batch], whose rows are "" and 0.
            k: int32 scalar.
        """
        most = max(self._size, _MOST_ANSWERS)
        checks = [
            tf.debugging.assert_positive(k, "k must be at least 1"),
            tf.debugging.assert_less_equal(k, most, f"k must be at most {most}"),
        ]
        with tf.control_dependencies(checks):  # Else rows for any k are made beside them.
            k = tf.identity(k)
        units = tf.math.l2_normalize(targets, axis=1, epsilon=_TINY)
        cosines = self._products(units) * self.inverse_norms.read_value()
        cosines = tf.reshape(cosines, [-1, self._blocks, _BLOCK])
        in_vain = inputs.shape[1] + self._blocks - self._size // _BLOCK
        wanted = tf.minimum(tf.minimum(k, self._blocks) + in_vain, self._blocks)
        _, blocks = tf.math.top_k(tf.reduce_max(cosines, axis=2), wanted, index_type=tf.int64)
        blocks = tf.sort(blocks, axis=1)  # top_k leaves ties in their order: that of the ids
        candidates = wanted * _BLOCK
        ids = blocks[:, :, tf.newaxis] * _BLOCK + tf.range(_BLOCK, dtype=tf.int64)
        ids = tf.reshape(ids, [-1, candidates])
        cosines = tf.reshape(tf.gather(cosines, blocks, batch_dims=1), [-1, candidates])
        left_out = (
            (ids >= self._size)
            | tf.reduce_any(ids[:, :, tf.newaxis] == inputs[:, tf.newaxis, :], axis=2)
            | blank[:, tf.newaxis]
        )
        lowest = cosines.dtype.min
        cosines = tf.where(left_out, lowest, cosines)
        similarity, order = tf.math.top_k(cosines, tf.minimum(k, candidates))
        ids = tf.gather(ids, order, batch_dims=1)
        padding = [[0, 0], [0, tf.maximum(k - candidates, 0)]]
        similarity = tf.pad(similarity, padding, constant_values=lowest)
        found = similarity > lowest
        return {
            "neighbors": tf.where(found, self._tokens.lookup(tf.pad(ids, padding)), ""),
            "similarity": tf.where(found, similarity, 0.0),
        }

    def _products(self, targets: tf.Tensor) -> tf.Tensor:
        """float32 [batch, rows], the inner products of `targets` with all rows of `vectors`."""
        vectors = self.vectors.read_value()
        if vectors.dtype == tf.float32:
            return tf.matmul(targets, vectors, transpose_b=True)
        # A chunk in float32 stays in the cache; the whole would be new memory at each request.
        chunks = tf.reshape(vectors, [self._chunks, -1, vectors.shape[1]])
        products = tf.map_fn(
            lambda i: tf.matmul(
                targets, tf.cast(tf.gather(chunks, i), tf.float32), transpose_b=True
            ),
            tf.range(self._chunks),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return tf.reshape(tf.transpose(products, [1, 0, 2]), [-1, vectors.shape[0]])
