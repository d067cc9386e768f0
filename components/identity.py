"""Which code computes: a digest of our own, and the versions of the libraries.

Both follow the imports. What a module does not import, it does not depend on: a change in the
pusher is no change of the trainer. Imports are read, not made, so nothing heavy is loaded.
"""

import ast
import functools
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import components
from components.errors import SkipstreamError

# Distributions whose version can change a result, by the name that is imported.
LIBRARIES = {
    "apache_beam": "apache-beam",
    "fontTools": "fonttools",
    "keras": "keras",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "tensorflow": "tensorflow",
    "tensorflow_transform": "tensorflow-transform",
    "tfx_bsl": "tfx-bsl",
}
_ROOT = Path(components.__path__[0])
# Of settings, values count, and each artifact's fingerprint has those of its stage. Where things
# lie, and how many work at them where, is nothing that a result depends on.
_LEFT_OUT = (
    "components.settings",
    "components.places",
    "components.threads",
    "components.beam_options",
    "components.trainer.cluster",
)


@functools.cache
def code_identity(module: str) -> dict[str, Any]:
    """What a module of `components` computes with.

    Args:
        module: Its name. Nothing is imported.

    Returns:
        JSON-able: `code`, a digest of its source and of all in `components` that it imports,
        directly or not; and `libraries`, the versions of Python and of those among LIBRARIES.
    """
    digest = hashlib.sha256()
    found = imported(module)
    for name in sorted(found):
        if path := _path(name):
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    libraries = {
        LIBRARIES[name]: importlib.metadata.version(LIBRARIES[name])
        for name in sorted(found & LIBRARIES.keys())
    }
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"code": digest.hexdigest()[:32], "libraries": libraries | {"python": python}}


def imported(module: str) -> set[str]:
    """A module of `components`, what it imports of them, directly or not, and of LIBRARIES.

    >>> sorted(imported("components.example_gen.split"))
    ['components', 'components.example_gen', 'components.example_gen.split', 'numpy', 'pyarrow']
    """
    found: set[str] = set()
    waiting = [module]
    left_out = tuple(name for name in _LEFT_OUT if not module.startswith(name))
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(left_out):
            found.add(name)
            waiting.extend(_imports(name))
    return found


def check_identity(module: str, expected: dict[str, Any]) -> None:
    """Compare this process with another one.

    Args:
        module: What both run.
        expected: The `code_identity` of the other one.

    Raises:
        SkipstreamError: They are not the same.
    """
    found, wanted = (_flat(identity) for identity in (code_identity(module), expected))
    differences = [
        f"{name} {found.get(name, 'none')[:12]} instead of {version[:12]}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    if differences:
        raise SkipstreamError(
            "workers must have the code and the libraries of the process that launches them, got "
            f"{', '.join(differences)}: build their image from the same version"
        )


def _flat(identity: dict[str, Any]) -> dict[str, str]:
    return {**identity["libraries"], "code": identity["code"]}


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """What one module imports: its packages, modules of `components`, and LIBRARIES."""
    path = _path(module)
    if path is None:
        return frozenset()
    parts = module.split(".")
    found = {".".join(parts[:end]) for end in range(1, len(parts))}
    for name in _names(ast.parse(path.read_bytes())):
        top = name.partition(".")[0]
        if top in LIBRARIES:
            found.add(top)
        elif top == components.__name__:
            # The last part may be a module, or something in one.
            found.add(name if _path(name) else name.rpartition(".")[0])
    return frozenset(found)


def _names(tree: ast.AST) -> Iterator[str]:
    """The names behind all imports that are made when the code runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from _names(other)
        elif not isinstance(node, ast.expr):  # No import stands in one.
            yield from _names(node)


def _path(module: str) -> Path | None:
    """The source of a module of `components`; None: there is no such module."""
    top, *parts = module.split(".")
    if top != components.__name__:
        return None
    path = _ROOT.joinpath(*parts)
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None
