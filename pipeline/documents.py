"""Texts that a Python program hands over, as files that a run reads: JSON Lines, packed."""

import glob
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from components.errors import SettingsError, SkipstreamError
from components.places.directory import Directory
from components.places.place import SCRATCH
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
        SkipstreamError: They cannot be written, or another process writes some there.
    """
    lines = _lines(texts)
    if (first := next(lines, None)) is None:
        raise SettingsError("documents must hold a text, got none")
    if "://" in output:
        root = cache.directory_for(output, _DIRECTORY)
    else:
        root = Path(output).expanduser().absolute() / _DIRECTORY
    place = Directory(root)
    scratch = root / f"{SCRATCH}documents"
    with ExitStack() as stack:
        with _told(root):
            stack.enter_context(place.hold("documents"))
            place.sweep()  # What a process left that was killed.
            scratch.mkdir()
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        name = _write_files(chain([first], lines), scratch)
        with _told(root):
            if not (root / name).exists():
                scratch.rename(root / name)
    return root / name


def pattern(directory: Path) -> str:
    """What finds the files of `write`."""
    return f"{glob.escape(str(directory))}/*.jsonl.gz"


def forget_others(directory: Path) -> None:
    """Remove the files of earlier texts, when a run with those of `directory` has finished."""
    for other in directory.parent.iterdir():
        if not other.name.startswith(".") and other != directory:
            shutil.rmtree(other, ignore_errors=True)


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """What the system says of the files is the user's to mend; errors of the texts are not here."""
    try:
        yield
    except OSError as error:
        raise SkipstreamError(
            f"documents cannot be written to {root} ({error.strerror}): make room or choose "
            "another output"
        ) from error


def _write_files(lines: Iterable[bytes], directory: Path) -> str:
    """Write files, and return a digest of all lines."""
    digest = hashlib.blake2b(digest_size=8)
    with ExitStack() as stack:
        file: gzip.GzipFile | None = None
        written, number = 0, 0
        for line in lines:
            with _told(directory.parent):
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
        with _told(directory.parent):
            stack.close()
    return digest.hexdigest()


def _lines(texts: Iterable[str]) -> Iterator[bytes]:
    if isinstance(texts, str | bytes):
        shown = repr(texts) if len(texts) <= 60 else "text"
        raise SettingsError(f"documents must be texts, got one text alone: documents=[{shown}]")
    try:
        several = iter(texts)
    except TypeError as error:
        raise SettingsError(
            f"documents must be texts, got {type(texts).__name__}: documents=[text, …]"
        ) from error
    for place, text in enumerate(several):
        if not isinstance(text, str):
            raise SettingsError(
                f"documents must be texts, got {type(text).__name__} at place {place}: join the "
                "tokens of a document with blanks"
            )
        yield json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
