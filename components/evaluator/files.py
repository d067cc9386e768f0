"""Which files a person means by the settings of the evaluator. Loads no TensorFlow."""

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from components.errors import SkipstreamError
from components.names import shown


def matching(patterns: Sequence[str], setting: str) -> list[Path]:
    """Files that match `patterns`, sorted, each once.

    Raises:
        SkipstreamError: A pattern matches nothing, or what is no file.
    """
    found: set[str] = set()
    for pattern in patterns:
        files = glob.glob(str(Path(pattern).expanduser()), recursive=True)
        if not files:
            raise SkipstreamError(f"{setting} must match a file, got {pattern!r}, which does not")
        found.update(files)
    paths = [Path(path) for path in sorted(found)]
    for path in paths:
        if not path.is_file():
            raise SkipstreamError(f"{setting} must match files, got {shown(str(path))}: name files")
    return paths


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names; by their whole paths where two have the same name.

    >>> list(named([Path("a/x.tsv"), Path("b/x.tsv"), Path("b/y.tsv")]))
    ['a/x.tsv', 'b/x.tsv', 'y.tsv']
    """
    names = Counter(path.name for path in paths)
    return {path.name if names[path.name] == 1 else str(path): path for path in paths}
