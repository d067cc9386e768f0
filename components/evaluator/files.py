"""Which files a person means by the settings of the evaluator. Loads no TensorFlow."""

import glob
from collections.abc import Sequence
from pathlib import Path

from components.errors import SkipstreamError


def matching(patterns: Sequence[str], setting: str) -> list[Path]:
    """Files that match `patterns`, sorted, each once.

    Raises:
        SkipstreamError: A pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        files = glob.glob(str(Path(pattern).expanduser()), recursive=True)
        if not files:
            raise SkipstreamError(f"{setting} must match a file, got {pattern!r}, which does not")
        found.update(files)
    return [Path(path) for path in sorted(found)]
