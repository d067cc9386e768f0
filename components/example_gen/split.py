"""Which documents are held out for the loss."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def held_out(documents: pa.Array, share: float) -> npt.NDArray[np.bool_]:
    """Choose about `share` of all documents by a hash of their bytes.

    Equal documents are always on the same side, in every run, file and order of files, and what
    is held out at a small share is held out at a larger one too.

    Args:
        documents: binary [documents].
        share: 0 to 1.

    Returns:
        bool [documents], true where the document is held out.

    >>> held_out(pa.array([b"one", b"two", b"three", b"one"], pa.binary()), 0.5).tolist()
    [False, True, False, False]
    """
    digests = b"".join(
        hashlib.blake2b(document, digest_size=8).digest() for document in documents.to_pylist()
    )
    return np.frombuffer(digests, "<u8") < share * 2.0**64
