"""`skipstream versions`, `rollback` and `gc`: what is served, and what that needs."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from components.errors import SkipstreamError
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.pusher.history import History
from pipeline.commands import places
from pipeline.store import SERVING, Store


def show(arguments: argparse.Namespace) -> None:
    """`skipstream versions`."""
    destination = places.destination_of(arguments.place)
    history = pusher.read(destination)
    if arguments.json:
        print(json.dumps(describe(history), indent=2, ensure_ascii=False))
    elif history.versions:
        print(table(history))
    else:
        print(f"no version yet in {destination.address}", file=sys.stderr)


def roll_back(arguments: argparse.Namespace) -> None:
    """`skipstream rollback`."""
    destination = places.destination_of(arguments.place)
    record = pusher.rollback(destination, arguments.to, arguments.reason)
    print(destination.path_of(record.version))
    text = f"version {record.version} is a copy of {record.restores}; {record.previous} stays"
    print(f"{text}, and its model is not pushed again unless forced", file=sys.stderr)


def collect(arguments: argparse.Namespace) -> None:
    """`skipstream gc`."""
    total = 0
    store = Store.open(arguments.output)
    for path, size in collect_garbage(store, dry_run=arguments.dry_run):
        print(f"{size:>15,}  {path}")
        total += size
    done = "would be freed" if arguments.dry_run else "freed"
    print(f"{total:>15,}  bytes {done}")


def describe(history: History) -> list[dict[str, Any]]:
    """The versions that are there, newest first, as JSON, without the digests of their files."""

    def described(version: int) -> dict[str, Any]:
        record = history.records.get(version)
        return record.model_dump(mode="json", exclude={"files"}) if record else {}

    return [
        {
            "version": version,
            "served": version == history.newest,
            "rolled_back": history.model(version) in history.withdrawn,
            **described(version),
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


def collect_garbage(store: Store, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove artifacts that nothing needs, and yield each, with its bytes, when it is gone.

    Needed are what the last run of each stage used, and what the versions were made of, in all
    places that were ever pushed to.

    Args:
        store: No run may be under way in it.
        dry_run: Remove nothing.

    Raises:
        SkipstreamError: There is none, a run holds it, or the versions cannot be read.
    """
    if not store.exists:
        raise SkipstreamError(f"gc takes an output, got {store.address}, in which nothing ever ran")
    with store.hold("gc"):
        needed: set[tuple[str, str]] = set()
        for place in [SERVING, *store.ledger.destinations]:
            history = pusher.read(open_destination(store.at(place)))
            for version in history.versions:
                needed |= set(history.artifacts(version).items())
        for name, size in store.unneeded(needed):
            if not dry_run:
                store.remove(name)
            yield store.place.at(name), size
        if not dry_run:
            store.place.sweep()


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
