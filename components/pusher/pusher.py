"""Blessed models into the serving directory: integer versions, only ever whole.

TF Serving serves the highest number. So a push and a rollback are the same act: a whole version,
which carries the next number, appears. A rollback appears as a copy of the earlier version, and
the version that was no good stays where it is: readers see neither a gap nor a number that means
two models, and a person can still look at what went wrong.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.artifacts import Evaluation, ExportedModel, InfraBlessing, PushedModel
from components.errors import NotBlessedError, SkipstreamError
from components.pusher.destination import Destination
from components.pusher.history import History, Record, now
from components.settings import PusherSettings


def build(
    exported: ExportedModel,
    evaluation: Evaluation,
    validation: InfraBlessing,
    *,
    settings: PusherSettings,
    destination: Destination,
    out: PushedModel,
    run_id: str | None = None,
    artifacts: Mapping[str, str] | None = None,
    made_by: History | None = None,
    force: bool = False,
) -> PushedModel:
    """Copy the candidate to the destination, as one version above the highest there.

    A candidate that is served already is not copied again.

    Args:
        exported: The candidate.
        evaluation: Its scores. They must bless it.
        validation: That it answers as trained. It exists only for a candidate that does.
        settings: How many versions stay.
        destination: TF Serving's model base path; made if there is none.
        out: Where the push is recorded.
        run_id: The run that pushes.
        artifacts: What the candidate was made of: fingerprints by stage.
        made_by: The versions that it was made from and held against. Where others have been
            pushed since, or one was rolled back from, it is not pushed; None: whatever there is.
        force: Push what is not blessed, was rolled back from or is overtaken, and say so in the
            record.

    Raises:
        NotBlessedError: The evaluation did not bless the candidate, or someone rolled back from
            it, or from the same training.
        SkipstreamError: The candidate is overtaken, or the destination cannot be written.
    """
    artifacts = dict(artifacts or {})
    refusals = _refusals(evaluation)
    if refusals and not force:
        raise NotBlessedError(f"only a blessed model is pushed: {refusals[0]}")
    removed: list[int] = []
    with _failures_explained(destination), destination.lock():
        destination.sweep()
        number = destination.highest() + 1  # Before the history: whoever comes between has it.
        history = destination.history()
        newest = history.newest
        if newest and history.model(newest) == exported.fingerprint:
            record = history.records[newest]
        else:
            if rollback := _rollback_from(history, exported, artifacts.get("trainer")):
                refusals.append(_withdrawn(rollback))
                if not force:
                    raise NotBlessedError(
                        f"{refusals[-1]}: train another, or push it again with --force-push"
                    )
            if made_by and made_by.last != history.last:
                refusals.append(_overtaken(made_by, history))
                if not force:
                    raise SkipstreamError(f"{refusals[-1]}: run again")
            record = destination.publish(
                exported.saved_model,
                Record(
                    version=number,
                    action="push",
                    claimed=now(),
                    run_id=run_id,
                    model=exported.fingerprint,
                    held_out_loss=evaluation.report.get("held_out_loss"),
                    previous=newest,
                    forced=bool(refusals),
                    reasons=tuple(refusals),
                    artifacts=artifacts,
                ),
                alone=made_by is not None and not force,
            )
            removed = destination.prune(settings.keep)
    # No path: the output directory may be moved.
    return out.finish(
        version=record.version,
        previous=record.previous,
        forced=record.forced,
        versions_removed=removed,
    )


def is_served(destination: Destination, pushed: PushedModel, exported: ExportedModel) -> bool:
    """Whether what `pushed` records is the newest version still, and is that candidate.

    Raises:
        SkipstreamError: The destination cannot be read.
    """
    history = read(destination)
    return history.newest == pushed.version and (
        history.model(pushed.version) == exported.fingerprint
    )


def read(destination: Destination) -> History:
    """The versions at a destination, and what became of them.

    Raises:
        SkipstreamError: It cannot be read, or holds a damaged record.
    """
    with _failures_explained(destination):
        return destination.history()


def fetch(destination: Destination, version: int, directory: Path) -> Path:
    """The files of a version: where they lie, or a copy, made once, that is `directory`.

    Raises:
        SkipstreamError: The destination cannot be read.
    """
    with _failures_explained(destination):
        return destination.fetch(version, directory)


def rollback(destination: Destination, to: int | None = None, reason: str | None = None) -> Record:
    """Serve an earlier version again, as a copy that carries the next number.

    No version is removed; the next push sees to `pusher.keep`. The models of all versions above
    the one that is restored are not pushed again, unless forced.

    Args:
        destination: Where the versions are.
        to: The version to restore; None: the last before the newest that holds another model and
            was not rolled back from.
        reason: What the record says of why.

    Returns:
        The record of the new version.

    Raises:
        SkipstreamError: There is no such version, or its model is what is served.
    """
    with _failures_explained(destination):
        if not destination.versions():  # A lock would make a directory that is not there.
            raise SkipstreamError(f"there is no version in {destination.address}")
        with destination.lock():
            destination.sweep()
            history = destination.history()
            newest = history.versions[-1]
            target = history.before() if to is None else to
            if target not in history.versions:
                raise SkipstreamError(
                    f"--to must be one of {', '.join(map(str, history.versions))}, got {target}"
                )
            if history.model(target) == history.model(newest):
                raise SkipstreamError(
                    f"version {newest}, which is served, holds the model of version {target} "
                    "already: name another with --to"
                )
            source = history.records.get(target)
            return destination.publish(
                target,
                Record(
                    version=destination.highest() + 1,
                    action="rollback",
                    claimed=now(),
                    run_id=source and source.run_id,
                    model=history.model(target),
                    held_out_loss=source and source.held_out_loss,
                    previous=newest,
                    restores=target,
                    reasons=(reason,) if reason else (),
                    artifacts=source.artifacts if source else {},
                    files=source.files if source else {},
                ),
            )


def prune(destination: Destination, keep: int) -> list[int]:
    """Remove all but the newest `keep` versions; returns those removed. Their records stay."""
    with _failures_explained(destination), destination.lock():
        return destination.prune(keep)


def _refusals(evaluation: Evaluation) -> list[str]:
    report = evaluation.report
    if report.get("blessed") is True:
        return []
    reasons = "; ".join(report.get("reasons", [])) or "its report gives no reason"
    return [
        f"the evaluation refused this one ({reasons}): see {evaluation.address}/evaluation.json"
    ]


def _rollback_from(history: History, exported: ExportedModel, trainer: str | None) -> Record | None:
    found = history.withdrawn.get(exported.fingerprint)
    return found or (history.withdrawn_trainings.get(trainer) if trainer else None)


def _overtaken(made_by: History, now: History) -> str:
    before = made_by.newest
    if before and now.model(before) in now.withdrawn:
        return f"version {before} was rolled back from while this was made"
    return f"version {now.last} was pushed while this was made"


def _withdrawn(rollback: Record) -> str:
    why = f" ({'; '.join(rollback.reasons)})" if rollback.reasons else ""
    return (
        f"this model was rolled back from on {rollback.claimed:%Y-%m-%d}, "
        f"by version {rollback.version}{why}"
    )


@contextmanager
def _failures_explained(destination: Destination) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # shutil.Error lists what failed of a tree: (source, destination, reason).
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        reason = str(reason).partition("\n")[0]
        raise SkipstreamError(
            f"{destination.address}, where versions are served from, could not be read or written "
            f"({reason}): see to its rights and its room, or name another with pusher.destination"
        ) from error
