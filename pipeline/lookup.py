"""What earlier runs left in an output directory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from components.artifacts import (
    MANIFEST,
    VOCABULARY,
    Artifact,
    Examples,
    ExportedModel,
    Model,
    Served,
)
from components.errors import SettingsError, SkipstreamError
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import History
from pipeline.runner import REPORT

A = TypeVar("A", bound=Artifact)

LATEST = "latest"  # A value of trainer.warm_start.
SERVING = "serving"  # Where versions go unless the settings say otherwise.


def examples(path: Path) -> Examples:
    """The examples that `path` stands for.

    Args:
        path: A transform artifact, or an output directory: then those of its last run.

    Raises:
        SkipstreamError: There are none.
    """
    found = Examples.load(path) if _kind(path) == Examples.__name__ else None
    found = found or last(path, "transform", Examples)
    if found is None:
        raise SkipstreamError(
            f"{path} must be an output directory whose last run finished transform, or a "
            "transform artifact in one: run 'skipstream transform' with that --output first"
        )
    return found


def given_start(warm_start: str | None, output: Path) -> Model | None:
    """The trained model that `trainer.warm_start` names; None if that is `latest` or nothing.

    Args:
        warm_start: A trainer artifact, or an output directory: then that of its last run.
        output: That of this run.

    Raises:
        SettingsError: It is this run's own.
        SkipstreamError: There is none.
    """
    if not warm_start or warm_start == LATEST:
        return None
    path = Path(warm_start).expanduser().absolute()
    if path == output:
        raise SettingsError(
            f"trainer.warm_start must be another output directory than --output, got {path}: "
            f"'{LATEST}' goes on from the last pushed version"
        )
    found = Model.load(path) if _kind(path) == Model.__name__ else None
    found = found or last(path, "trainer", Model)
    if found is None:
        raise SkipstreamError(
            f"trainer.warm_start must be '{LATEST}', a trainer artifact, or an output directory "
            f"whose last run finished training, got {path}"
        )
    return found


def report(output: Path) -> dict[str, Any]:
    """The report of the last run in `output`; empty if there is none.

    Raises:
        SkipstreamError: It is damaged.
    """
    found = _read(output / REPORT)
    stages = found.get("stages", {})
    records = stages.values() if isinstance(stages, dict) else [stages]
    if not all(isinstance(r, dict) and isinstance(r.get("fingerprint"), str) for r in records):
        raise _damaged(output / REPORT, "its stages must be records with a fingerprint")
    return found


def last(output: Path, stage: str, kind: type[A]) -> A | None:
    """The artifact of `stage` in the last run of `output`; None if it finished none."""
    record = report(output).get("stages", {}).get(stage)
    # Not by the path in the record: the directory may have been moved.
    return kind.load(output / stage / record["fingerprint"]) if record else None


def destinations(output: Path) -> list[Destination]:
    """Where models of `output` were ever pushed to, the last place last."""
    return [
        open_destination(address if "://" in address else output / address)
        for address in report(output).get("destinations", [])
    ]


def served_before(history: History, output: Path, other_than: Examples) -> Examples | None:
    """What the newest version that was served was trained on.

    Versions that were trained on `other_than` are passed over: so a run that is repeated after
    its push is compared with the same examples as before. So are models that were rolled back
    from.

    Args:
        history: The versions and their records.
        output: The output directory that they were trained in.
        other_than: The examples that are to be compared.

    Returns:
        None if nothing else was pushed, or its examples are no longer in `output`.
    """
    for version in history.trusted:
        fingerprint = history.artifacts(version).get("transform")
        if fingerprint and fingerprint != other_than.fingerprint:
            return Examples.load(output / "transform" / fingerprint)
    return None


def trained_before(history: History, output: Path) -> list[Model]:
    """The trained models of all versions but those rolled back from, newest first, each once.

    They may be gone: only their fingerprints are known.
    """
    fingerprints = [history.artifacts(version).get("trainer") for version in history.trusted]
    return [Model(output / "trainer" / name, name) for name in dict.fromkeys(fingerprints) if name]


def is_whole(model: Model) -> bool:
    """Whether there is still all that a training needs that starts from it."""
    return bool(Model.load(model.path)) and (model.path / VOCABULARY).exists()


def latest(served: Sequence[Model], trained_from: Callable[[Model | None], str]) -> Model | None:
    """What a training starts from that goes on from the last pushed version.

    That is the newest, unless it is what this training itself has brought forth. Then the run is a
    repetition, and starts from what it started from then: so it finds its artifact again, and a
    command that is given twice trains once.

    Args:
        served: Newest first.
        trained_from: The fingerprint of this training for each model that it may start from.

    Returns:
        None: from nothing.

    >>> night_1, night_2 = (Model(Path(name), name) for name in ("night-1", "night-2"))
    >>> latest([night_2, night_1], lambda start: f"night-3 from {start}") == night_2
    True
    >>> latest([night_2, night_1], lambda start: "night-2" if start == night_1 else "") == night_1
    True
    """
    if not served:
        return None
    newest, *others = served
    for start in (*others, None):
        if trained_from(start) == newest.fingerprint:
            return start
    return newest


def served_model(
    history: History, output: Path, destination: Destination, other_than: Model
) -> Served | None:
    """The newest version that was served, made of another trained model than `other_than`.

    So a run that is repeated after its push is compared with the same version as before. A
    SavedModel that is no longer in `output` is taken from the destination.

    Returns:
        What is left of it; None if there was none.

    Raises:
        SkipstreamError: The destination cannot be read.
    """
    for version in history.trusted:
        trainer = history.artifacts(version).get("trainer")
        if trainer != other_than.fingerprint:
            name = history.model(version)
            if not trainer:  # Copied in by hand: it need not be a model of ours.
                return Served(version, name, None, None, None, missing=("record",))
            return _left(history, version, output, destination)
    return None


def _left(history: History, version: int, output: Path, destination: Destination) -> Served:
    """What is left of a version that has a record."""
    name, made_of = history.model(version), history.artifacts(version)
    saved_model = None
    exported = ExportedModel.load(output / "exporter" / name)
    if exported and (exported.saved_model / "saved_model.pb").exists():
        saved_model = exported.saved_model
    elif version in history.versions:
        copy = output / "exporter" / name / "fetched"
        saved_model = pusher.fetch(destination, version, copy)
    model = Model(output / "trainer" / made_of["trainer"], made_of["trainer"])
    left = model if is_whole(model) else None
    transform = made_of.get("transform", "unknown")
    examples = Examples.load(output / "transform" / transform)
    parts = {
        "SavedModel": saved_model,
        f"trainer/{model.fingerprint}": left,
        f"transform/{transform}": examples,
    }
    missing = tuple(name for name, part in parts.items() if not part)
    return Served(version, name, saved_model, left, examples, missing)


def _kind(path: Path) -> str | None:
    return _read(path / MANIFEST).get("kind")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it must be an object")
    return content


def _damaged(path: Path, reason: object) -> SkipstreamError:
    return SkipstreamError(f"{path} is damaged ({reason}): delete it and run again")
