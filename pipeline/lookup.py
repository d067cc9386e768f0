"""What earlier runs left in an output directory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from components.artifacts import MANIFEST, Artifact, Examples, ExportedModel, Model, Served
from components.errors import SkipstreamError
from components.pusher.destination import Destination
from components.pusher.history import History, Record
from pipeline.runner import REPORT

A = TypeVar("A", bound=Artifact)

LATEST = "latest"  # A value of trainer.warm_start.


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
        SkipstreamError: There is none, or it is this run's own.
    """
    if not warm_start or warm_start == LATEST:
        return None
    path = Path(warm_start).expanduser().absolute()
    if path == output:
        raise SkipstreamError(
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
    """The report of the last run in `output`; empty if there is none."""
    return _read(output / REPORT)


def last(output: Path, stage: str, kind: type[A]) -> A | None:
    """The artifact of `stage` in the last run of `output`; None if it finished none."""
    record = report(output).get("stages", {}).get(stage)
    # Not by the path in the record: the directory may have been moved.
    return kind.load(output / stage / record["fingerprint"]) if record else None


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
    for record in _trusted(history):
        fingerprint = record.artifacts.get("transform")
        if fingerprint and fingerprint != other_than.fingerprint:
            return Examples.load(output / "transform" / fingerprint)
    return None


def trained_before(history: History, output: Path) -> list[Model]:
    """The trained models of all versions but those rolled back from, newest first, each once.

    They may be gone: only their fingerprints are known.
    """
    fingerprints = [record.artifacts.get("trainer") for record in _trusted(history)]
    return [Model(output / "trainer" / name, name) for name in dict.fromkeys(fingerprints) if name]


def is_whole(model: Model) -> bool:
    """Whether there is still all that a training needs that starts from it."""
    from components.vocabulary import FILE  # Loads numpy.

    return bool(Model.load(model.path)) and (model.path / FILE).exists()


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

    So a run that is repeated after its push is compared with the same version as before.

    Returns:
        What is left of it; None if there was none.
    """
    for record in _trusted(history):
        made_of = record.artifacts
        if made_of.get("trainer", other_than.fingerprint) != other_than.fingerprint:
            exported = ExportedModel.load(output / "exporter" / record.model)
            places = [exported.saved_model] if exported else []
            # Of an object store, a URL: nothing that could be opened here.
            places.append(Path(destination.path_of(record.version)))
            return Served(
                version=record.version,
                fingerprint=record.model,
                saved_model=next((p for p in places if (p / "saved_model.pb").exists()), None),
                model=Model.load(output / "trainer" / made_of["trainer"]),
                examples=Examples.load(output / "transform" / made_of.get("transform", "-")),
            )
    return None


def _trusted(history: History) -> list[Record]:
    """Records, newest first, without those of models that were rolled back from."""
    return [
        record
        for version, record in sorted(history.records.items(), reverse=True)
        if history.model(version) not in history.withdrawn
    ]


def _kind(path: Path) -> str | None:
    return _read(path / MANIFEST).get("kind")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SkipstreamError(f"{path} is damaged ({error}): delete it and run again") from error
    return content
