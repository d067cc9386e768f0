"""Keras without the packages that only its wrappers and plots use.

TensorFlow imports Keras, and Keras what is installed of these. A sixth of the CPU time of `import
tensorflow` is scikit-learn's, and as much again Matplotlib's. Keras is told that they are not
there; all others may import them.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SPARED = ("sklearn", "matplotlib", "IPython")


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, for the next finder to look; Keras is told that the spared ones are missing."""
        if name in SPARED and _importer().startswith("keras."):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return None


def _importer() -> str:
    """The module in which the `import` stands that is being carried out."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def install() -> None:
    """From now on, in this process. To be called before TensorFlow is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
