"""Threads that work beside each other, each with a device of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import TypeVar

import tensorflow as tf

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """As many threads as there are devices."""

    def __init__(self, devices: Sequence[str]) -> None:
        """Nothing runs yet.

        Args:
            devices: Names of TensorFlow's.
        """
        # Few items go to the same few devices each time: XLA compiles for each.
        self._free: LifoQueue[str] = LifoQueue()
        for device in devices:
            self._free.put(device)
        self._pool = ThreadPoolExecutor(len(devices), "worker")

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The function of each item, in their order; its ops run on a device of its own."""

        def apply(item: T) -> R:
            device = self._free.get()
            try:
                with tf.device(device):
                    return function(item)
            finally:
                self._free.put(device)

        return self._pool.map(apply, items)


def each(workers: Workers, work: Callable[[T], None], items: Iterable[T]) -> None:
    """Let work be done on all items; the first failure is raised."""
    for _ in workers.map(work, items):
        pass
