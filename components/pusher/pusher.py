"""Blessed models into the serving directory: integer versions, only ever whole."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from components.artifacts import (
    Evaluation,
    ExportedModel,
    InfraBlessing,
    PushedModel,
    versions_in,
)
from components.errors import NotBlessedError, SkipstreamError
from components.settings import PusherSettings

_SCRATCH = ".push-"
_LOCK = ".lock"


def build(
    exported: ExportedModel,
    evaluation: Evaluation,
    validation: InfraBlessing,
    *,
    settings: PusherSettings,
    serving: Path,
    out: PushedModel,
) -> PushedModel:
    """Copy the candidate to serving/<version>, one above the highest there.

    A version appears by a rename, when all of it is on the disk, and disappears by one: TF
    Serving, which polls the directory, never sees a part of one.

    Args:
        exported: The candidate.
        evaluation: Its scores. They must bless it.
        validation: That it answers as trained. It exists only for a candidate that does.
        settings: How many versions stay.
        serving: TF Serving's model base path; made if there is none.
        out: Where the push is recorded.

    Raises:
        NotBlessedError: The evaluation did not bless the candidate.
        SkipstreamError: `serving` cannot be written.
    """
    report = evaluation.report
    if report.get("blessed") is not True:
        reasons = "; ".join(report.get("reasons", [])) or "its report gives no reason"
        raise NotBlessedError(
            f"only a blessed model is pushed, and the evaluation refused this one ({reasons}): "
            f"see {evaluation.path / 'evaluation.json'}"
        )
    try:
        serving.mkdir(parents=True, exist_ok=True)
        with _locked(serving):
            _remove_leftovers(serving)
            pushed = _publish(exported.saved_model, serving)
            removed = _remove_old(serving, settings.keep)
    except OSError as error:
        # shutil.Error lists what failed of a tree: (source, destination, reason).
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise SkipstreamError(
            f"the serving directory must be writable, with room for the model, got {serving} "
            f"({reason}): mend it, or name another"
        ) from error
    # No path: the output directory may be moved.
    return out.finish(version=int(pushed.name), versions_removed=removed)


def prune(serving: Path, keep: int) -> list[int]:
    """Remove all but the newest `keep` versions; returns those removed."""
    with _locked(serving):
        return _remove_old(serving, keep)


@contextmanager
def _locked(serving: Path) -> Iterator[None]:
    """One pusher at a time. The system lets go of the lock of a process that dies."""
    with (serving / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(serving: Path) -> None:
    """What dead pushes left: a living one would hold the lock."""
    for leftover in serving.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover)


def _publish(saved_model: Path, serving: Path) -> Path:
    scratch = Path(mkdtemp(dir=serving, prefix=_SCRATCH))
    try:
        whole = scratch / "model"
        shutil.copytree(saved_model, whole)
        for directory, _, files in os.walk(whole, topdown=False):
            for name in files:
                _sync(Path(directory, name))
            _sync(Path(directory))
        # The lock excludes other pushers, but not a person who copies a version in by hand.
        while True:
            version = serving / str(max(versions_in(serving), default=0) + 1)
            try:
                whole.rename(version)
            except OSError:
                if not version.exists():
                    raise
            else:
                _sync(serving)
                return version
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_old(serving: Path, keep: int) -> list[int]:
    """All but the newest `keep` versions. They leave their names first, then the disk."""
    versions = {number: path for number, path in versions_in(serving).items() if path.is_dir()}
    old = list(versions)[:-keep]
    for number in old:
        scratch = Path(mkdtemp(dir=serving, prefix=_SCRATCH))
        versions[number].rename(scratch / "old")
        shutil.rmtree(scratch)
    return old


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
