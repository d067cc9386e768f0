"""Directories that all workers share: local ones, or a prefix of an object store."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import SkipstreamError
from components.example_gen.files import is_remote


def make_directory(path: str) -> None:
    """Make `path` and its parents, if there are none.

    Raises:
        SkipstreamError: It cannot be made.
    """
    try:
        if not FileSystems.exists(path):  # Beam refuses to make what is there.
            FileSystems.mkdirs(path)
    except (OSError, ValueError, BeamIOError) as error:
        reason = " ".join(str(error).split())
        raise SkipstreamError(
            f"a directory must be writable by the job, got {path} ({reason}): "
            "set transform.work_directory to a local directory, or to gs:// with skipstream[gcp]"
        ) from error


@contextmanager
def whole(path: str) -> Iterator[IO[bytes]]:
    """A text file to write anywhere Beam can, which is there in the end, or not at all."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    with FileSystems.create(temporary, mime_type="text/plain") as file:
        yield file
    FileSystems.rename([temporary], [path])


def write(content: bytes, path: str) -> str:
    """Write a small file as `whole` does; returns its path."""
    with whole(path) as file:
        file.write(content)
    return path


def holds(directory: str, name: str) -> bool:
    """Whether there is such a file below `directory`, or a directory with files in it."""
    found = FileSystems.match([f"{directory}/{name}", f"{directory}/{name}/**"])
    return any(match.metadata_list for match in found)


def remove(path: str) -> None:
    """Remove a file, or a directory with all it holds, if it is there."""
    if is_remote(path):
        found = FileSystems.match([path, f"{path}/**"])
        if files := [file.path for match in found for file in match.metadata_list]:
            FileSystems.delete(files)
    elif os.path.isfile(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def fetch(source: str, target: Path) -> None:
    """Move all that the directory `source` holds to the local directory `target`."""
    if is_remote(source):
        (found,) = FileSystems.match([f"{source}/**"])
        for file in found.metadata_list:
            path = target / file.path.removeprefix(f"{source}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = CompressionTypes.UNCOMPRESSED  # as it is, whatever its name says
            with (
                FileSystems.open(file.path, compression_type=stored) as remote,
                path.open("wb") as local,
            ):
                shutil.copyfileobj(remote, local, 2**20)
    else:
        for entry in sorted(os.listdir(source)):
            shutil.move(Path(source, entry), target / entry)  # perhaps to another file system
    remove(source)
