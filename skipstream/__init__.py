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


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'skipstream' has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
