"""What earlier runs left in an output directory."""

import json
from pathlib import Path
from typing import Any, TypeVar

from components.artifacts import MANIFEST, Artifact, Examples
from components.errors import SkipstreamError
from components.pusher.history import History
from pipeline.runner import REPORT

A = TypeVar("A", bound=Artifact)


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
    for version, record in sorted(history.records.items(), reverse=True):
        fingerprint = record.artifacts.get("transform")
        withdrawn = history.model(version) in history.withdrawn
        if fingerprint and fingerprint != other_than.fingerprint and not withdrawn:
            return Examples.load(output / "transform" / fingerprint)
    return None


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
