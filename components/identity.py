"""Which code computes: a digest of our own, and the versions of the libraries."""

import functools
import hashlib
import importlib.metadata
import sys
from pathlib import Path

import components
from components.errors import SkipstreamError

LIBRARIES = (
    "apache-beam",
    "keras",
    "numpy",
    "pyarrow",
    "tensorflow",
    "tensorflow-transform",
    "tfx-bsl",
)


@functools.cache
def code_identity(*patterns: str) -> dict[str, str]:
    """A digest of the sources below `components`, and the versions of Python and LIBRARIES.

    Args:
        patterns: Which sources, as `Path.glob` takes them; none: all.
    """
    source = hashlib.sha256()
    root = Path(components.__path__[0])
    found = {path for pattern in patterns or ["**/*.py"] for path in root.glob(pattern)}
    for path in sorted(found):
        source.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return versions | {"python": python, "components": source.hexdigest()}


def check_identity(expected: dict[str, str]) -> None:
    """Compare this process with another one.

    Args:
        expected: The `code_identity` of the other one.

    Raises:
        SkipstreamError: They are not the same.
    """
    found = code_identity()
    differences = [
        f"{name} {found.get(name, 'none')[:12]} instead of {version[:12]}"
        for name, version in expected.items()
        if found.get(name) != version
    ]
    if differences:
        raise SkipstreamError(
            "workers must have the code and the libraries of the process that launches them, got "
            f"{', '.join(differences)}: build their image from the same version"
        )
