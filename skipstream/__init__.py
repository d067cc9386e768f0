"""Unlabelled text in, a word embedding out, from Python.

```python
import skipstream

model = skipstream.train("texts/*.txt", output="OUT", dimensions=100)
model = skipstream.load("OUT")
model.most_similar("king", topn=10)
```
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.errors import NotBlessedError, SkipstreamError, UnknownWordError
    from components.exporter.embeddings import Embeddings
    from pipeline.face import load, train

__all__ = [
    "Embeddings",
    "NotBlessedError",
    "SkipstreamError",
    "UnknownWordError",
    "load",
    "train",
]
_HOMES = {
    "Embeddings": "components.exporter.embeddings",
    "NotBlessedError": "components.errors",
    "SkipstreamError": "components.errors",
    "UnknownWordError": "components.errors",
    "load": "pipeline.face",
    "train": "pipeline.face",
}


if not TYPE_CHECKING:  # Else a checker of types would take any name.

    def __getattr__(name: str) -> Any:
        """Import what is asked for when it is asked for."""
        if name not in _HOMES:
            raise AttributeError(f"module 'skipstream' has no attribute {name!r}")
        from importlib import import_module

        try:
            found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        except (ImportError, AttributeError) as error:
            if hidden := _hidden():
                raise ImportError(hidden) from error
            raise
        return found


def _hidden() -> str:
    """What hides a package of ours, such as one in the working directory; empty: nothing."""
    from importlib.util import find_spec
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    for name in ("components", "pipeline"):
        spec = find_spec(name)
        places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        if (other := next(filter(None, places), None)) and not Path(other).resolve().is_relative_to(
            root / name
        ):
            return (
                f"skipstream needs its own package {name}, and {other} hides it: rename that, or "
                "start Python in another directory"
            )
    return ""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
