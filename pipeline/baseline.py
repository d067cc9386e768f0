"""The version before: which one it is, and what of it is there to compare with or to start from."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from operator import truediv
from pathlib import Path
from typing import TypeVar

from components.artifacts import (
    MANIFEST,
    VOCABULARY,
    Artifact,
    Examples,
    ExportedModel,
    Model,
    VersionBefore,
)
from components.errors import SettingsError, SkipstreamError
from components.pusher import pusher
from components.pusher.destination import Destination
from components.pusher.history import History
from pipeline import cache
from pipeline.store import Store

A = TypeVar("A", bound=Artifact)

LATEST = "latest"  # A value of trainer.warm_start.


def examples(address: str) -> Examples:
    """The examples that a user's words stand for.

    Args:
        address: A transform artifact, or an output: then those of its last run.

    Raises:
        SkipstreamError: There are none.
    """
    found = _artifact(address, Examples)
    if found is None:
        raise SkipstreamError(
            f"{address} must be an output whose last run finished transform, or a transform "
            "artifact in one: run 'skipstream transform' with that --output first"
        )
    return found


def given_start(warm_start: str | None, store: Store) -> Model | None:
    """The trained model that `trainer.warm_start` names; None if that is `latest` or nothing.

    Args:
        warm_start: A trainer artifact, or an output: then that of its last run.
        store: Of this run.

    Raises:
        SettingsError: It is this run's own.
        SkipstreamError: There is none.
    """
    if not warm_start or warm_start == LATEST:
        return None
    if Store.open(warm_start, "trainer.warm_start").address == store.address:
        raise SettingsError(
            f"trainer.warm_start must be another output than --output, got {store.address}: "
            f"'{LATEST}' goes on from the last pushed version"
        )
    found = _artifact(warm_start, Model)
    if found is None:
        raise SkipstreamError(
            f"trainer.warm_start must be '{LATEST}', a trainer artifact, or an output whose last "
            f"run finished training, got {warm_start}"
        )
    return found


def _artifact(address: str, kind: type[A]) -> A | None:
    place = Store.open(address, "a corpus or a model")
    output, _, rest = place.address.rpartition(f"/{kind.STAGE}/")
    if output and "/" not in rest and (found := Store.open(output).find(kind, rest)):
        return found
    if not place.is_remote and _kind(Path(place.address)) == kind.__name__:
        return kind.load(Path(place.address))  # It was moved out of its output.
    return place.last(kind)


def _kind(path: Path) -> str | None:
    """Of the artifact that a directory is; None: it is none, or its manifest is damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest.get("kind") if isinstance(manifest, dict) else None


def examples_before(history: History, store: Store, other_than: Examples) -> Examples | None:
    """What the newest version that was served was trained on.

    Versions that were trained on `other_than` are passed over: so a run that is repeated after
    its push is compared with the same examples as before. So are models that were rolled back
    from.

    Args:
        history: The versions and their records.
        store: That they were trained in.
        other_than: The examples that are to be compared.

    Returns:
        None if nothing else was pushed, or its examples are no longer in the store.
    """
    for version in history.trusted:
        fingerprint = history.artifacts(version).get(Examples.STAGE)
        if fingerprint and fingerprint != other_than.fingerprint:
            return store.find(Examples, fingerprint)
    return None


def trained_before(history: History) -> list[str]:
    """The trained models of all versions but those rolled back from, newest first, each once.

    Returns:
        Their fingerprints; they may be gone.
    """
    fingerprints = [history.artifacts(version).get(Model.STAGE) for version in history.trusted]
    return [name for name in dict.fromkeys(fingerprints) if name]


def start_of(models: Sequence[str], trained_from: Callable[[str | None], str]) -> str | None:
    """What a training starts from that goes on from the last pushed version.

    That is the newest, unless it is what this training itself has brought forth. Then the run is a
    repetition, and starts from what it started from then: so it finds its artifact again, and a
    command that is given twice trains once.

    Args:
        models: Fingerprints, newest first.
        trained_from: The fingerprint of this training for each model that it may start from.

    Returns:
        None: from nothing.

    >>> start_of(["night-2", "night-1"], lambda start: f"night-3 from {start}")
    'night-2'
    >>> start_of(["night-2", "night-1"], lambda start: "night-2" if start == "night-1" else "")
    'night-1'
    """
    if not models:
        return None
    newest, *others = models
    for start in (*others, None):
        if trained_from(start) == newest:
            return start
    return newest


def whole_model(store: Store, fingerprint: str) -> Model | None:
    """A trained model with all that a training needs that starts from it; None: it is gone."""
    model = store.find(Model, fingerprint)
    return model if model and model.has(VOCABULARY) else None


def version_before(
    history: History, store: Store, destination: Destination, other_than: Model
) -> VersionBefore | None:
    """The newest version that was served, made of another trained model than `other_than`.

    So a run that is repeated after its push is compared with the same version as before. A
    SavedModel that is no longer in the store is taken from the destination.

    Returns:
        What is left of it; None if there was none.

    Raises:
        SkipstreamError: The store or the destination cannot be read.
    """
    for version in history.trusted:
        trainer = history.artifacts(version).get(Model.STAGE)
        if trainer != other_than.fingerprint:
            if not trainer:  # Copied in by hand: it need not be a model of ours.
                name = history.model(version)
                return VersionBefore(version, name, None, None, None, missing=("record",))
            return _left(history, version, store, destination)
    return None


def _left(history: History, version: int, store: Store, destination: Destination) -> VersionBefore:
    """What is left of a version that has a record."""
    name, made_of = history.model(version), history.artifacts(version)
    saved_model: Callable[[], Path] | None = None
    exported = store.find(ExportedModel, name)
    if exported and exported.has("saved_model/saved_model.pb"):
        saved_model = partial(truediv, exported, "saved_model")  # It may have to be fetched.
    elif version in history.versions:
        saved_model = partial(local_copy, destination, version)
    model = whole_model(store, made_of[Model.STAGE])
    transform = made_of.get(Examples.STAGE, "unknown")
    found = store.find(Examples, transform)
    parts = {
        "SavedModel": saved_model,
        f"{Model.STAGE}/{made_of[Model.STAGE]}": model,
        f"{Examples.STAGE}/{transform}": found,
    }
    missing = tuple(name for name, part in parts.items() if not part)
    return VersionBefore(version, name, saved_model, model, found, missing)


def local_copy(destination: Destination, version: int) -> Path:
    """A local directory with the SavedModel of a version."""
    directory = cache.directory_for(destination.address, f"version-{version}")
    return pusher.fetch(destination, version, directory)
