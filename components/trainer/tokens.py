"""The token ids of a split as one array on disk: TFRecords are read once, not once an epoch."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import threads

_DOCUMENTS = 4096  # In a batch that is parsed: amortises ops.
_ALL = 2**62  # Batches of a file.


def unpacked(
    files: Sequence[str], tokens: int, directory: Path | None = None
) -> npt.NDArray[np.int32]:
    """All documents of `files`, one behind the other.

    Args:
        files: TFRecords.
        tokens: After how many no further file is read.
        directory: Where four bytes a token find room; none: where temporary files go.

    Returns:
        int32 [tokens] ids, mapped from a file that goes with the array. The last token of each
        document is marked: it is stored as `~id`, which is negative.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        with ThreadPoolExecutor(threads.count()) as pool:
            # Some files ahead of the one that is written, and no more: each may be large.
            ahead = threads.count() + 1
            waiting = [pool.submit(_read, name) for name in files[:ahead]]
            for following in [*files[ahead:], *[None] * len(waiting)]:
                if waiting:
                    waiting.pop(0).result().tofile(file)
                if following and file.tell() < 4 * tokens:
                    waiting.append(pool.submit(_read, following))
        if not file.tell():
            return np.zeros(0, np.int32)
        file.flush()
        return np.memmap(file, np.int32, "r")


def lean() -> tf.data.Options:
    """Options of a dataset that TensorFlow neither rewrites nor tunes.

    Rewriting would take a third of the time that it takes to start. The thread that tunes sleeps
    for up to a minute, and may miss the call that ends it. Then whoever frees the iterator waits:
    on one CPU, 10 to 40 s at the end of a training.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _read(file: str) -> npt.NDArray[np.int32]:
    ids: npt.NDArray[np.int32] = _ids(tf.constant(file)).numpy()
    return ids


# One graph reads all files, in 1 ms each: to make a dataset for each took 40 to 50 ms.
@tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
def _ids(file: tf.Tensor) -> tf.Tensor:
    records = tf.data.TFRecordDataset(file, "GZIP", buffer_size=1 << 20)
    batches = records.batch(_DOCUMENTS).map(_parse)
    none = tf.data.Dataset.from_tensors(tf.zeros([0], tf.int32))
    whole = batches.concatenate(none).ragged_batch(_ALL).with_options(lean())
    return whole.get_single_element().flat_values


@tf.function(autograph=False)
def _parse(records: tf.Tensor) -> tf.Tensor:
    documents = tf.io.parse_example(records, {"ids": tf.io.RaggedFeature(tf.int64)})["ids"]
    ids = tf.cast(documents.flat_values, tf.int32)
    lengths = documents.row_lengths()
    last = tf.boolean_mask(tf.cumsum(lengths), lengths > 0)[:, tf.newaxis] - 1
    return tf.tensor_scatter_nd_update(ids, last, ~tf.gather(ids, last[:, 0]))
