"""The n-grams of words and their vectors, in TensorFlow ops: `components.subwords` in the graph."""

import numpy as np
import tensorflow as tf

from components.exporter.storage import store
from components.settings import Storage
from components.subwords import BASIS, END_OF_LINE, LONGEST_CHARACTER, PRIME, Buckets, Subwords

_NO_BUCKET = np.iinfo(np.int32).max  # buckets are fewer
_CONTINUES = -64  # bytes of UTF-8 below that, as int8, go on with a character
# Characters whose n-grams are in memory at once. Their rows of 100 numbers, n-grams of 3 to 6
# characters: 3 MB.
_BLOCK = 2048


class NgramVectors(tf.Module):
    """Vectors of words by their n-grams.

    Attributes:
        buckets: float32, float16 or int8 [rows, dimensions]. Only buckets whose vectors are not all
            zeros have a row; the last row, of no bucket, is zeros.
        scales: float32 [rows], what int8 is multiplied by; there is none for the others.
        ids: int32 [rows], the bucket of each row, ascending.
        settings: int32 [3], characters of the shortest and of the longest n-grams, and number of
            buckets into which they are hashed.
    """

    def __init__(self, buckets: Buckets, storage: Storage) -> None:
        """Build the tables."""
        super().__init__(name="ngrams")
        self._subwords = buckets.subwords
        trained = buckets.rows.any(axis=1)
        # Whatever bucket is sought, there is one that is not below it.
        ids = np.append(buckets.ids[trained], np.int32(_NO_BUCKET))
        stored = store(np.pad(buckets.rows[trained], [(0, 1), (0, 0)]), storage)
        self.buckets = tf.Variable(stored.values, trainable=False, name="buckets")
        if stored.scales is not None:
            self.scales = tf.Variable(stored.scales, trainable=False, name="bucket_scales")
        self.ids = tf.Variable(ids, trainable=False, name="bucket_ids")
        settings = np.array(buckets.subwords, np.int32)
        self.settings = tf.Variable(settings, trainable=False, name="subwords")

    def add(
        self, words: tf.Tensor, rows: tf.Tensor, onto: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Add up the vectors of words that are not in the vocabulary.

        Each is the mean over all n-grams of the word; those that were not trained are zeros. The
        bits of a row depend on its own words alone. n-grams and their vectors are in memory a block
        of characters at a time; of the whole there are 9 bytes for each byte of the words.

        Args:
            words: string [words]; what is no UTF-8 is read as U+FFFD.
            rows: int64 [words], ascending: to which row of `onto` the vector of each word is added.
            onto: float32 [rows, dimensions].

        Returns:
            float32 [rows, dimensions], and bool [words], whether any n-gram was trained.
        """
        text = _Text(words, rows, self._subwords)
        dimensions = self.buckets.shape[1]

        def more(start: tf.Tensor, *_: tf.TensorArray) -> tf.Tensor:
            return start < text.size

        def add_block(
            start: tf.Tensor, sums: tf.TensorArray, sum_rows: tf.TensorArray, found: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.TensorArray, tf.TensorArray]:
            end = text.block_end(start)
            buckets, numbers = text.ngrams(start, end)
            ids = self.ids.read_value()
            places = tf.searchsorted(ids, buckets)
            trained = tf.gather(ids, places) == buckets
            numbers = tf.boolean_mask(numbers, trained)
            here, segments = tf.unique(numbers, tf.int64)
            vectors = self._sums(tf.boolean_mask(places, trained), segments, tf.size(here))
            vectors /= tf.gather(text.counts, here)[:, tf.newaxis]
            rows_here, segments = tf.unique(tf.gather(rows, here), tf.int64)
            block = sums.size()
            return (
                end,
                sums.write(block, tf.math.segment_sum(vectors, segments)),
                sum_rows.write(block, rows_here),
                found.write(block, here),
            )

        def list_of(dtype: tf.DType, *shape: int | None) -> tf.TensorArray:
            return tf.TensorArray(
                dtype, size=0, dynamic_size=True, infer_shape=False, element_shape=shape
            )

        # A loop would copy `onto` for each block, if it added to it.
        _, sums, sum_rows, found = tf.while_loop(
            more,
            add_block,
            [
                tf.zeros([], tf.int64),
                list_of(tf.float32, None, dimensions),
                list_of(tf.int64, None),
                list_of(tf.int64, None),
            ],
            parallel_iterations=1,
        )
        places = found.concat()
        return (
            tf.tensor_scatter_nd_add(onto, sum_rows.concat()[:, tf.newaxis], sums.concat()),
            tf.tensor_scatter_nd_update(
                tf.zeros_like(words, tf.bool),
                places[:, tf.newaxis],
                tf.ones_like(places, tf.bool),
            ),
        )

    def mean(self, sums: tf.Tensor, tokens: tf.RaggedTensor, known: tf.Tensor) -> tf.Tensor:
        """The mean vector of those of each text's tokens that have one.

        Args:
            sums: float32 [texts, dimensions], of the tokens that are in the vocabulary.
            tokens: string [texts, (tokens)].
            known: bool [tokens], which these are.

        Returns:
            float32 [texts, dimensions], zeros where no token has a vector.
        """

        def with_unknown() -> tuple[tf.Tensor, tf.Tensor]:
            places = tf.where(~known)[:, 0]
            texts = tf.gather(tokens.value_rowids(), places)
            total, found = self.add(tf.gather(tokens.flat_values, places), texts, sums)
            return total, tf.tensor_scatter_nd_update(known, places[:, tf.newaxis], found)

        total, counted = tf.cond(tf.reduce_all(known), lambda: (sums, known), with_unknown)
        counts = tf.reduce_sum(tokens.with_values(tf.cast(counted, tf.float32)), axis=1)
        return total / tf.maximum(counts, 1)[:, tf.newaxis]

    def _sums(self, places: tf.Tensor, segments: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """float32 [number, dimensions], of rows of `buckets`; see `EmbeddingModel._rows`."""
        buckets = self.buckets.read_value()
        if buckets.dtype != tf.float32:
            buckets = tf.cast(tf.gather(buckets, places), tf.float32)
            if self.buckets.dtype == tf.int8:
                buckets *= tf.gather(self.scales.read_value(), places)[:, tf.newaxis]
            places = tf.range(tf.size(places))
        return tf.sparse.segment_sum(buckets, places, segments, num_segments=number)


class _Text:
    """Words between `<` and `>`, one behind the other.

    Attributes:
        size: int64 scalar, characters.
        counts: float32 [words], how many n-grams each word has.
    """

    def __init__(self, words: tf.Tensor, rows: tf.Tensor, subwords: Subwords) -> None:
        self._rows = rows
        self._shortest, self._longest, self._buckets = subwords
        words = tf.strings.unicode_transcode(words, "UTF-8", "UTF-8", errors="replace")
        wrapped = tf.where(words == END_OF_LINE, "", tf.strings.join(["<", words, ">"]))
        self._lengths = tf.cast(tf.strings.length(wrapped, "UTF8_CHAR"), tf.int64)
        self._ends = tf.cumsum(self._lengths)
        self._bytes = tf.io.decode_raw(tf.strings.reduce_join(wrapped), tf.int8)
        starts = tf.reshape(tf.where(self._bytes >= _CONTINUES), [-1])
        self.size = tf.size(starts, tf.int64)
        # Behind the last character there are more, without any bytes.
        total = tf.size(self._bytes, tf.int64)
        self._starts = tf.concat([starts, tf.fill([self._longest], total)], axis=0)
        sizes = tf.range(self._shortest, self._longest + 1, dtype=tf.int64)
        counts = tf.reduce_sum(tf.maximum(self._lengths[:, tf.newaxis] - sizes + 1, 0), axis=1)
        if self._shortest == 1:  # neither `<` nor `>` alone is one
            counts -= tf.minimum(self._lengths, 2)
        self.counts = tf.cast(counts, tf.float32)

    def block_end(self, start: tf.Tensor) -> tf.Tensor:
        """Where the block of characters ends that begins at `start`, int64 scalar.

        The words of a row are cut where they are cut without the others: a block's length after
        their beginning, or after the cut before.
        """
        end = start + _BLOCK
        last = tf.minimum(end, self.size - 1)
        word = tf.searchsorted(self._ends, [last], side="right")[0]
        first = tf.searchsorted(self._rows, [self._rows[word]])[0]
        begin = self._ends[first] - self._lengths[first]
        inside = tf.where(begin > start, begin, end)
        return tf.where(end < self.size, inside, self.size)

    def ngrams(self, start: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Those that begin at the characters from `start` to `end`.

        Returns:
            int32 [n-grams] buckets and int64 [n-grams] words, ascending.
        """
        places = tf.range(start, end)
        words = tf.searchsorted(self._ends, places, side="right", out_type=tf.int64)
        lasts = tf.gather(self._ends, words)[:, tf.newaxis]
        sizes = tf.range(self._shortest, self._longest + 1, dtype=tf.int64)
        there = places[:, tf.newaxis] + sizes <= lasts
        if self._shortest == 1:
            begins = lasts - tf.gather(self._lengths, words)[:, tf.newaxis]
            place = places[:, tf.newaxis]
            there &= (sizes > 1) | ((place != begins) & (place != lasts - 1))
        numbers = tf.where(there)
        places, sizes = numbers[:, 0], tf.gather(sizes, numbers[:, 1])
        first = tf.gather(self._starts, start + places)
        lengths = tf.gather(self._starts, start + places + sizes) - first
        hashes = tf.gather_nd(self._hashes(start, end), tf.stack([lengths - 1, places], axis=1))
        buckets = tf.cast(hashes, tf.int64) % self._buckets
        return tf.cast(buckets, tf.int32), tf.gather(words, places)

    def _hashes(self, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """uint32 [bytes, characters], of so many bytes, less one, from each character on."""
        steps = LONGEST_CHARACTER * self._longest
        starts = self._starts[start:end]
        at = starts + tf.range(steps, dtype=tf.int64)[:, tf.newaxis]
        content = tf.gather(self._bytes, tf.minimum(at, self._starts[-1] - 1))
        # fastText takes bytes as signed: those above 127 have all higher bits set.
        signed = tf.bitcast(tf.cast(content, tf.int32), tf.uint32)
        hashes = [tf.fill(tf.shape(starts), tf.constant(BASIS, tf.uint32))]
        for row in tf.unstack(signed, steps):
            hashes.append(tf.bitwise.bitwise_xor(hashes[-1], row) * tf.constant(PRIME, tf.uint32))
        return tf.stack(hashes[1:])
