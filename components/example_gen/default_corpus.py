"""The corpus for when there is none: the docstrings of the installed dependencies.

About two million words of technical English that are wherever skipstream is. The packages are
found and parsed, never imported. A document is a paragraph of prose, in one line: examples in
doctest or code fences are left out, as their words are names of variables, and so are tests and
generated aliases.
"""

import ast
import gzip
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

from components.errors import SkipstreamError

# Import package: distribution.
PACKAGES = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "numpy": "numpy",
    "apache_beam": "apache-beam",
    "pyarrow": "pyarrow",
    "tensorflow_transform": "tensorflow-transform",
    "tfx_bsl": "tfx-bsl",
}
MIN_WORDS = 3

# tensorflow/_api and keras/api repeat names that are defined elsewhere.
_LEFT_OUT = re.compile(
    r"/(tests?|testing|_api|api|testdata)/|(^|/)(test_|conftest)|_(test|tests|pb2|pb2_grpc)\.py$"
)
_FENCED = re.compile(r"^[ ]*```.*?(^[ ]*```|\Z)", re.DOTALL | re.MULTILINE)
_EXAMPLE = re.compile(r"^[ ]*>>>.*", re.DOTALL | re.MULTILINE)
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_WORD = re.compile(r"[^\W\d_]{2,}")
_FILES_A_TASK = 32


def versions() -> dict[str, str]:
    """Package: version, of those of PACKAGES that are installed; imports none of them."""
    found = {}
    for package, distribution in PACKAGES.items():
        if _root(package) is None:
            continue
        try:
            found[package] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu, a source checkout
            names = importlib.metadata.packages_distributions().get(package, [])
            found[package] = ",".join(importlib.metadata.version(name) for name in sorted(names))
    return found


def _root(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def write(path: Path, packages: Iterable[str] = tuple(PACKAGES)) -> dict[str, int]:
    """Write the corpus to `path`: gzip, a document a line, the same bits each time.

    Takes about ten seconds on two cores, and says so on stderr.

    Returns:
        How much was left out, by reason: `duplicate_paragraph`, `short_paragraph` (fewer than
        MIN_WORDS words, or code), `unparsable_file`.

    Raises:
        SkipstreamError: None of the packages is installed as source.
    """
    files = list(_sources(packages))
    if not files:
        raise SkipstreamError(
            f"none of {', '.join(packages)} is installed with its source, so there are no "
            "docstrings to read: name a corpus with --input"
        )
    skipped: Counter[str] = Counter()
    seen: set[str] = set()
    # No name and no time in the header: equal docstrings give equal bits.
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        closing(_with_progress(files)) as documents,  # Its processes do not outlive an interrupt.
    ):
        for paragraphs in documents:
            if paragraphs is None:
                skipped["unparsable_file"] += 1
                continue
            for paragraph in paragraphs:
                if len(_WORD.findall(paragraph)) < MIN_WORDS:
                    skipped["short_paragraph"] += 1
                elif paragraph in seen:
                    skipped["duplicate_paragraph"] += 1
                else:
                    seen.add(paragraph)
                    packed.write(paragraph.encode("utf-8", "replace") + b"\n")
    return dict(sorted(skipped.items()))


def _sources(packages: Iterable[str]) -> Iterator[Path]:
    for package in packages:
        root = _root(package)
        if root is None:
            continue
        found = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
        for name in sorted(found):
            if not _LEFT_OUT.search(f"/{name}"):
                yield found[name]


def _with_progress(files: list[Path]) -> Generator[list[str] | None]:
    """The paragraphs of each of `files`, in order; on a terminal, a line says how far it is."""
    # spawn: this process may have threads by now, which a fork would leave in any state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(_cores(), mp_context=context)
    try:
        results = pool.map(paragraphs_of, files, chunksize=_FILES_A_TASK)
        for done, result in enumerate(results, start=1):
            if sys.stderr.isatty() and (done % _FILES_A_TASK == 0 or done == len(files)):
                end = "\n" if done == len(files) else ""
                message = f"\rreading docstrings: {done:,} of {len(files):,} files"
                print(message, end=end, file=sys.stderr, flush=True)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def paragraphs_of(path: Path) -> list[str] | None:
    """The paragraphs of all docstrings in a Python file, in its order; None if it is not Python."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Invalid escapes in somebody else's source.
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    return [
        paragraph
        for node in _in_order(tree)
        for paragraph in paragraphs(ast.get_docstring(node) or "")
    ]


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _in_order(node: ast.AST) -> Iterator[_Documented]:
    if isinstance(node, _Documented):
        yield node
    for child in ast.iter_child_nodes(node):
        # Nothing inside an expression has a docstring, and most of a tree is expressions.
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _in_order(child)


def paragraphs(docstring: str) -> Iterator[str]:
    r"""The paragraphs of prose in a docstring, each in one line.

    >>> list(paragraphs("Adds two\n  tensors.\n\nFor example:\n>>> add(1, 2)\n3\n\nReturns it."))
    ['Adds two tensors.', 'For example:', 'Returns it.']
    """
    for paragraph in _PARAGRAPH_END.split(_FENCED.sub("\n\n", docstring)):
        words = _EXAMPLE.sub("", paragraph).split()
        if words:
            yield " ".join(words)
