"""Texts that a Python program hands over, as files that a run reads: JSON Lines, packed."""

import glob
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from components.errors import SettingsError
from pipeline import cache

_DIRECTORY = "documents"
_FILE_BYTES = 32_000_000  # of text in a file: files are read beside each other


def write(texts: Iterable[str], output: str) -> Path:
    """Write texts where a run for `output` can read them: below it, or in the cache for a bucket.

    The same texts are the same files, so that a run reuses what it made of them.

    Args:
        texts: Read once, in their order.
        output: Of the run.

    Returns:
        The directory of the files.

    Raises:
        SettingsError: One is no text, or there is none.
    """
    if "://" in output:
        root = cache.directory_for(output, _DIRECTORY)
    else:
        root = Path(output).expanduser().absolute() / _DIRECTORY
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        name = _write_files(texts, made)
        if not (root / name).exists():
            made.rename(root / name)
    return root / name


def pattern(directory: Path) -> str:
    """What finds the files of `write`."""
    return f"{glob.escape(str(directory))}/*.jsonl.gz"


def forget_others(directory: Path) -> None:
    """Remove the files of earlier texts, when a run with those of `directory` has finished."""
    for other in directory.parent.iterdir():
        if not other.name.startswith(".") and other != directory:
            shutil.rmtree(other, ignore_errors=True)


def _write_files(texts: Iterable[str], directory: Path) -> str:
    """Write files, and return a digest of all texts."""
    digest = hashlib.blake2b(digest_size=8)
    with ExitStack() as stack:
        file: gzip.GzipFile | None = None
        written, number = 0, 0
        for line in _lines(texts):
            if file is None or written > _FILE_BYTES:
                stack.close()
                path = directory / f"{number:05}.jsonl.gz"
                raw = stack.enter_context(path.open("wb"))
                # Neither a name nor a time: the same texts are the same bytes.
                file = stack.enter_context(
                    gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)
                )
                written, number = 0, number + 1
            file.write(line)
            digest.update(line)
            written += len(line)
    if not number:
        raise SettingsError("documents must hold a text, got none")
    return digest.hexdigest()


def _lines(texts: Iterable[str]) -> Iterator[bytes]:
    if isinstance(texts, str | bytes):
        raise SettingsError(f"documents must be texts, got one text alone: documents=[{texts!r}]")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise SettingsError(
                f"documents must be texts, got {type(text).__name__} at place {place}: join the "
                "tokens of a document with blanks"
            )
        yield json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
