"""Where versions are served from: a directory or an object store."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from components.errors import SettingsError
from components.pusher.history import Record

RECORDS = ".versions"  # TF Serving takes names of digits alone.
SCRATCH = ".push-"


class Destination(Protocol):
    """What a push asks of a place. A number names a version; the highest is the one served.

    Attributes:
        address: Where it is: an absolute path or a URL.
        failures: What its methods raise where the place, not the program, is at fault.
    """

    address: str
    failures: tuple[type[Exception], ...]

    def path_of(self, version: int) -> str:
        """Path or URL of a version."""

    def fetch(self, version: int, directory: Path) -> Path:
        """The files of a version: where they lie, or a copy, made once, that is `directory`."""

    def lock(self) -> AbstractContextManager[None]:
        """Keeps other pushes out, where the place has locks. Makes the place if it is not there."""

    def versions(self) -> list[int]:
        """The whole versions: those with a saved_model.pb."""

    def highest(self) -> int:
        """The highest number that anything has, whole or not; 0 where nothing has one."""

    def records(self) -> dict[int, Record]:
        """All records by version."""

    def claim(self, record: Record) -> bool:
        """Write the record of a number that nobody else has; False: somebody has."""

    def confirm(self, record: Record) -> None:
        """Write the record again."""

    def disclaim(self, record: Record) -> None:
        """Take back the claim of a version that was not published."""

    def stage(self, source: Path | int) -> Any:
        """Copy a SavedModel, or a version, to where nobody looks; for `publish`."""

    def publish(self, staged: Any, version: int) -> bool:
        """Make what was staged a version, saved_model.pb last; False: the name is taken."""

    def discard(self, staged: Any) -> None:
        """Remove what is left of what was staged."""

    def remove(self, version: int) -> None:
        """Remove a version, so that no part of it is ever taken for whole."""

    def sweep(self) -> None:
        """Remove what pushes that died have left."""


def open_destination(setting: str | Path) -> Destination:
    """The place that `pusher.destination` names. Nothing is read or written yet.

    Args:
        setting: A directory, gs://bucket/path or s3://bucket/path.

    Raises:
        SettingsError: It is a URL of another kind.
    """
    scheme, separator, rest = str(setting).partition("://")
    if not separator:
        from components.pusher.local import LocalDestination

        return LocalDestination(Path(os.path.abspath(Path(setting).expanduser())))
    if scheme not in ("gs", "s3") or not rest.partition("/")[0]:
        raise SettingsError(
            "pusher.destination must be a directory, gs://bucket/path or s3://bucket/path, "
            f"got '{setting}'"
        )
    from components.pusher.objects import ObjectDestination

    return ObjectDestination.open(str(setting))
