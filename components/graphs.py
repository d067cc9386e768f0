"""Graphs as TensorFlow writes them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_bytecode() -> Iterator[None]:
    """Where graphs are written, Python writes no bytecode.

    `tf.saved_model.save` has AutoGraph convert a function of its own, to a module that lies where
    temporary files go. TensorFlow removes that in the end, but not its bytecode.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
