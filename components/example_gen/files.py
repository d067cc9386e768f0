"""Which files a set of patterns means."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components import names
from components.errors import SettingsError, SkipstreamError
from components.example_gen import patterns


@dataclass(frozen=True, order=True)
class File:
    """A file of the corpus.

    Attributes:
        path: Absolute local path, or URL of another file system.
        size: Bytes as stored, so compressed ones where it is compressed.
        modified: Nanoseconds since 1970; 0 where the file system does not say.
        changed: The same, of its name and rights, too, and nobody can set it; 0 for URLs.
    """

    path: str
    size: int
    modified: int
    changed: int = 0

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> "File":
        """A local file."""
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL, such as gs://bucket/name.

    >>> is_remote("gs://bucket/a.txt"), is_remote("/data/a.txt")
    (True, False)
    """
    return "://" in path


def list_files(wanted: Iterable[str]) -> tuple[list[File], dict[str, int]]:
    r"""All files that match any of `wanted`, each once, in the order of their paths.

    Local patterns follow the shell: `~` is the home directory, `**` any number of directories,
    `{a,b}` one of the two, `{01..12}` one of the numbers, and a name that starts with a dot has to
    be named so. `\xe9` is a byte that is not UTF-8, as messages show it. URLs follow Beam's
    FileSystems.

    Returns:
        The files, and how many matches were left out by reason: `directory` and `not_a_file`
        (broken links, pipes, sockets).

    Raises:
        SettingsError: A pattern names a stream, or a place that cannot be read from.
        SkipstreamError: A pattern matches no file, or a file cannot be read.
    """
    files: dict[str, File] = {}
    skipped: dict[str, str] = {}
    for pattern in wanted:
        for path, what in _matches(pattern).items():
            if isinstance(what, File):
                files[path] = what
            else:
                skipped[path] = what
    return sorted(files.values()), dict(sorted(Counter(skipped.values()).items()))


def _matches(pattern: str) -> dict[str, File | str]:
    """What a pattern matches, by path: files, or the reason why not; at least one file."""
    patterns.refuse_what_is_no_file(pattern)
    found = dict(_match_remote(pattern) if is_remote(pattern) else _match_local(pattern))
    # A file whose very name has braces is meant before those that they could stand for.
    choices = () if found else patterns.choices(pattern)
    for choice in choices:
        found |= _matches(choice)
    if not any(isinstance(what, File) for what in found.values()):
        reasons = {path: what for path, what in found.items() if isinstance(what, str)}
        raise SkipstreamError(patterns.no_file(pattern, reasons))
    return found


def state_of(paths: Iterable[str], urls: Iterable[str] = ()) -> dict[str, tuple[int, int] | None]:
    """Bytes and time of change, in nanoseconds, of files; None where one is gone.

    Two states that are equal mean that nothing was written in between.

    Args:
        paths: The files. Of those that are not local, only what `urls` list is known: to ask for
            each would cost a request a file.
        urls: Patterns.

    Raises:
        SkipstreamError: One of `urls` cannot be listed.
    """
    listed = {path: what for pattern in urls for path, what in _match_remote(pattern)}
    found: dict[str, tuple[int, int] | None] = {}
    for path in paths:
        if is_remote(path):
            if urls:
                file = listed.get(path)
                found[path] = (file.size, file.modified) if isinstance(file, File) else None
        else:
            try:
                status = os.stat(path)
            except OSError:
                found[path] = None
            else:
                found[path] = status.st_size, status.st_mtime_ns
    return found


def _match_local(pattern: str) -> Iterator[tuple[str, File | str]]:
    """Python's glob, as Beam's walks through every folder below the pattern's fixed part."""
    path = os.path.abspath(os.path.expanduser(pattern))
    # A file whose very name has brackets is meant before the pattern it could be.
    paths = [path] if os.path.lexists(path) else glob.glob(path, recursive=True)
    if not paths and (named := names.meant(path)) != path:
        paths = [named] if os.path.lexists(named) else glob.glob(named, recursive=True)
    for path in map(os.path.abspath, paths):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            yield path, "not_a_file"
            continue
        except OSError as error:
            raise SkipstreamError(f"cannot read {names.shown(path)}: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode):
            yield path, "directory"
        elif not stat.S_ISREG(status.st_mode):
            yield path, "not_a_file"
        elif not os.access(path, os.R_OK):
            name = names.shown(path)
            raise SkipstreamError(f"cannot read {name}: permission denied, try chmod +r")
        else:
            yield path, File.of(path, status)


def _match_remote(pattern: str) -> Iterator[tuple[str, File | str]]:
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    if not FileSystems._pipeline_options:  # A pipeline would set them; S3 refuses to have none.
        FileSystems.set_options(PipelineOptions([]))
    try:
        (result,) = FileSystems.match([pattern])
    except ValueError as error:
        scheme = pattern.partition("://")[0]
        extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
        remedy = (
            f"pip install 'skipstream[{extra}]'" if extra else "use a local path, gs:// or s3://"
        )
        raise SettingsError(
            f"no file system for example_gen.input pattern '{pattern}': {remedy}"
        ) from error
    except Exception as error:  # Every cloud library has exceptions of its own.
        details = getattr(error, "exception_details", None) or {pattern: error}
        reason = " ".join(str(next(iter(details.values()))).split())
        login = {"gs": "gcloud auth application-default login", "s3": "aws configure"}
        how = login.get(pattern.partition("://")[0])
        raise SkipstreamError(
            f"cannot list example_gen.input pattern '{pattern}': {reason}: check the name, the "
            f"network and the credentials{f', as of {how!r}' if how else ''}"
        ) from error
    for found in result.metadata_list:
        if found.path.endswith("/"):  # The empty object that consoles make for a folder.
            yield found.path, "directory"
        else:
            modified = round((found.last_updated_in_seconds or 0) * 1e9)
            yield found.path, File(found.path, found.size_in_bytes, modified)
