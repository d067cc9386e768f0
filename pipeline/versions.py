"""`skipstream versions`, `rollback` and `gc`: what is served, and what that needs."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from components.errors import SkipstreamError
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import History
from pipeline import lookup, runner


def show(arguments: argparse.Namespace) -> None:
    """`skipstream versions`."""
    destination = destination_of(arguments.place)
    history = pusher.read(destination)
    if arguments.json:
        print(json.dumps(describe(history), indent=2, ensure_ascii=False))
    elif history.versions:
        print(table(history))
    else:
        print(f"no version yet in {destination.address}", file=sys.stderr)


def roll_back(arguments: argparse.Namespace) -> None:
    """`skipstream rollback`."""
    destination = destination_of(arguments.place)
    record = pusher.rollback(destination, arguments.to, arguments.reason)
    print(destination.path_of(record.version))
    text = f"version {record.version} is a copy of {record.restores}; {record.previous} stays"
    print(f"{text}, and its model is not pushed again unless forced", file=sys.stderr)


def collect(arguments: argparse.Namespace) -> None:
    """`skipstream gc`."""
    total = 0
    for path, size in collect_garbage(arguments.output, dry_run=arguments.dry_run):
        print(f"{size:>15,}  {path}")
        total += size
    done = "would be freed" if arguments.dry_run else "freed"
    print(f"{total:>15,}  bytes {done}")


def destination_of(place: str) -> Destination:
    """Where versions are served from.

    Args:
        place: That place itself, a directory or a URL; or an output directory: then where it was
            last pushed to.

    Raises:
        SkipstreamError: It is neither.
    """
    if "://" in place:
        return open_destination(place)
    directory = Path(place).expanduser()
    if not directory.is_dir():
        raise SkipstreamError(
            f"the versions must be in a directory, gs:// or s3://, got {place}, which is no "
            "directory"
        )
    if destinations := lookup.destinations(directory):
        return destinations[-1]
    below = directory / lookup.SERVING
    return open_destination(below if below.is_dir() else directory)


def describe(history: History) -> list[dict[str, Any]]:
    """The versions that are there, newest first, as JSON."""
    return [
        {
            "version": version,
            "served": version == history.newest,
            "rolled_back": history.model(version) in history.withdrawn,
            **(record.model_dump(mode="json") if (record := history.records.get(version)) else {}),
        }
        for version in reversed(history.versions)
    ]


def table(history: History) -> str:
    """The versions that are there, newest first, as text for a person."""
    rows = [("version", "published", "run", "model", "loss", "")]
    for version in reversed(history.versions):
        record = history.records.get(version)
        rows.append(
            (
                str(version),
                f"{record.published or record.claimed:%Y-%m-%d %H:%M:%SZ}" if record else "-",
                (record and record.run_id) or "-",
                record.model if record else "-",
                f"{record.held_out_loss:.4f}" if record and record.held_out_loss else "-",
                ", ".join(_remarks(history, version)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def unneeded(output: Path, histories: Iterable[History]) -> Iterator[tuple[Path, int]]:
    """Artifacts in an output directory that nothing needs, with their bytes.

    Needed are those that the last run read or wrote, those that the runs before it did in stages
    that it did not come to, and those that the models of the versions in `histories` were made of.
    """
    report = lookup.report(output)
    last = {stage: record["fingerprint"] for stage, record in report["stages"].items()}
    needed = set((report.get("earlier", {}) | last).items())
    for history in histories:
        for version in history.versions:
            needed |= set(history.artifacts(version).items())
    for stage in get_args(runner.Stage):
        for path in sorted((output / stage).glob("*")):
            if path.is_dir() and not path.is_symlink() and (stage, path.name) not in needed:
                files = (file for file in path.rglob("*") if file.is_file())
                yield path, sum(file.lstat().st_size for file in files)


def collect_garbage(output: Path, *, dry_run: bool) -> Iterator[tuple[Path, int]]:
    """Remove what `unneeded` names, and yield it, with its bytes, when it is gone.

    The versions are those of all places that were ever pushed to.

    Args:
        output: The output directory; no run may be under way in it.
        dry_run: Remove nothing.

    Raises:
        SkipstreamError: It is none, a run holds it, or the versions cannot be read.
    """
    if "stages" not in lookup.report(output):
        raise SkipstreamError(
            f"gc takes an output directory, got {output}, which has no {runner.REPORT}"
        )
    with runner.lock(output):
        places = [open_destination(output / lookup.SERVING), *lookup.destinations(output)]
        histories = [pusher.read(place) for place in places]
        for path, size in unneeded(output, histories):
            if not dry_run:
                # Without it, what a kill leaves of the rest is not taken for whole.
                (path / "manifest.json").unlink(missing_ok=True)
                shutil.rmtree(path)
            yield path, size


def _remarks(history: History, version: int) -> Iterator[str]:
    if version == history.newest:
        yield "served"
    if history.model(version) in history.withdrawn:
        yield "rolled back from"
    record = history.records.get(version)
    if record is None:
        yield "copied in by hand"
        return
    why = f" ({'; '.join(record.reasons)})" if record.reasons else ""
    if record.restores:
        yield f"copy of {record.restores}{why}"
    elif record.forced:
        yield f"forced{why}"
