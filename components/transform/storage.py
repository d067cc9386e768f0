"""Files where all workers see them: in local directories, or below a prefix of a bucket.

All goes through Beam's file systems, which take their credentials from Beam's options. TensorFlow
has its own, which know gs:// only.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import SkipstreamError
from components.example_gen.files import is_remote
from components.names import is_below

_AS_IT_IS = CompressionTypes.UNCOMPRESSED  # whatever its name says
_BYTES = 2**20  # that are copied at a time


def make_directory(path: str) -> None:
    """Make `path` and its parents, if there are none; a bucket needs none.

    Raises:
        SkipstreamError: It cannot be made, or nothing here can write to such a bucket.
    """
    try:
        if is_remote(path):
            FileSystems.get_filesystem(path)
        else:
            os.makedirs(path, exist_ok=True)
    except (OSError, ValueError, BeamIOError) as error:
        raise SkipstreamError(
            f"a directory must be writable by the job, got {path} ({_reason(error)}): "
            "set transform.work_directory to a local directory, or to gs:// with skipstream[gcp]"
        ) from error


def create(path: str) -> IO[bytes]:
    """A file to write; whatever happens, it is there once it is closed."""
    file: IO[bytes] = FileSystems.create(path, compression_type=_AS_IT_IS)
    return file


def open_(path: str) -> IO[bytes]:
    """A file to read."""
    file: IO[bytes] = FileSystems.open(path, compression_type=_AS_IT_IS)
    return file


@contextmanager
def whole(path: str) -> Iterator[IO[bytes]]:
    """A file to write, which is there in the end, or not at all.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    with naming(path):
        temporary = unfinished(path)
        with create(temporary) as file:
            yield file
        FileSystems.rename([temporary], [path])


def unfinished(path: str) -> str:
    """A name beside `path` that no other worker uses."""
    return f"{path}.{secrets.token_hex(8)}"


def write(content: bytes, path: str) -> str:
    """Write a small file as `whole` does; returns its path."""
    with whole(path) as file:
        file.write(content)
    return path


def read(path: str) -> bytes:
    """A small file.

    Raises:
        SkipstreamError: The bucket cannot be read.
    """
    with naming(path), open_(path) as file:
        return file.read()


@contextmanager
def near(path: str) -> Iterator[str]:
    """A local path for a file that TensorFlow writes: `path`, or of a bucket one that is copied.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        local = f"{directory}/file"
        yield local
        copy(local, path)


def copy(source: str, target: str) -> None:
    """Copy a file, from or to a bucket; of `target`, there may be a part if that fails.

    Raises:
        SkipstreamError: The bucket cannot be read or written.
    """
    with naming(source), naming(target), open_(source) as read, create(target) as written:
        shutil.copyfileobj(read, written, _BYTES)


def exists(path: str) -> bool:
    """Whether there is a file `path`, or a local directory.

    Raises:
        SkipstreamError: The bucket cannot be read.
    """
    with naming(path):
        return bool(FileSystems.exists(path))


def move(source: str, target: str) -> None:
    """Rename a file; one that is at `target` is replaced.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    with naming(target):
        FileSystems.rename([source], [target])


def move_first(source: str, target: str) -> None:
    """Rename a file, unless another worker has written the same: that is perhaps read just now.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    with naming(target):
        if FileSystems.exists(target):
            FileSystems.delete([source])
        else:
            FileSystems.rename([source], [target])


def files_in(directory: str) -> list[str]:
    """The paths of all files below it; none if there is no such directory.

    Raises:
        SkipstreamError: The bucket cannot be read.
    """
    with naming(directory):
        (found,) = FileSystems.match([f"{directory}/**"])
        return [file.path for file in found.metadata_list]


def delete(paths: Collection[str]) -> None:
    """Remove files.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    if paths:
        with naming(next(iter(paths))):
            FileSystems.delete(list(paths))


def remove(directory: str) -> None:
    """Remove a directory with all it holds, if it is there.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    if is_remote(directory):
        delete(files_in(directory))
    else:
        shutil.rmtree(directory, ignore_errors=True)


def fetch(source: str, target: Path, leave: Collection[str] = ()) -> None:
    """Bring what the directory `source` holds to the local directory `target`.

    A local one is moved, and goes. One in a bucket stays as it is.

    Args:
        source: Local or in a bucket.
        target: It has none of what is moved.
        leave: Names in `source` that are not wanted.

    Raises:
        SkipstreamError: The bucket cannot be read, or a name leads out of the directory.
    """
    if is_remote(source):
        for file in files_in(source):
            name = file.removeprefix(f"{source}/")
            if not is_below(name):
                raise SkipstreamError(
                    f"{source} must hold files with plain names, got '{name}': somebody else wrote "
                    "it; find out who may write there, and delete it"
                )
            if name.partition("/")[0] not in leave:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                copy(file, str(path))
    else:
        for entry in sorted(set(os.listdir(source)).difference(leave)):
            shutil.move(Path(source, entry), target / entry)  # perhaps to another file system
        remove(source)


@contextmanager
def naming(path: str, expected: type[Exception] = Exception) -> Iterator[None]:
    """Turn what reaching for a file in a bucket can raise into an error that names it.

    Args:
        path: The file; of local ones, errors stay as they are.
        expected: What is raised. Every cloud library has exceptions of its own.
    """
    try:
        yield
    except SkipstreamError:
        raise
    except expected as error:
        if not is_remote(path):
            raise
        raise SkipstreamError(
            f"cannot read or write {path}: {_reason(error)}: check the bucket, the network and the "
            "credentials, and run again"
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    details = getattr(error, "exception_details", None) or {"": error}
    first = next(iter(details.values()))
    return " ".join(str(first).split()) or type(first).__name__
