"""How a SavedModel stores its vectors: as they are, or in fewer bytes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.settings import Storage

Vectors = npt.NDArray[np.float32]


class Stored(NamedTuple):
    """Vectors as a SavedModel holds them.

    Attributes:
        values: float32, float16 or int8 [types, dimensions].
        scales: float32 [types], what the values of each row are multiplied by; of int8 only.
    """

    values: npt.NDArray[np.floating | np.int8]
    scales: Vectors | None

    def restored(self) -> Vectors:
        """What is served of them: float32 [types, dimensions], as they are if they are float32."""
        vectors = self.values.astype(np.float32, copy=False)
        return vectors if self.scales is None else vectors * self.scales[:, np.newaxis]


def store(vectors: Vectors, storage: Storage) -> Stored:
    """Round `vectors`, float32 [types, dimensions], to what `storage` can hold.

    int8 has a scale for each row, by which its largest number becomes 127.

    >>> stored = store(np.array([[127, -63.4], [0, 0]], np.float32) / 100, "int8")
    >>> stored.values.tolist(), (100 * stored.restored()).round().tolist()
    ([[127, -63], [0, 0]], [[127.0, -63.0], [0.0, 0.0]])
    """
    if storage == "float32":
        return Stored(vectors, None)
    if storage == "float16":
        return Stored(vectors.astype(np.float16), None)
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    divisors = np.where(scales > 0, scales, np.float32(1))[:, np.newaxis]
    return Stored(np.rint(vectors / divisors).astype(np.int8), scales)
