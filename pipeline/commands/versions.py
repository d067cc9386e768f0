"""`skipstream versions`, `rollback` and `gc`: what is served, and what that needs."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from components.errors import SkipstreamError
from components.names import quoted
from components.places.directory import Directory
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.pusher.history import History
from pipeline.commands import places
from pipeline.store import SERVING, Store


def show(arguments: argparse.Namespace) -> None:
    """`skipstream versions`."""
    destination = places.destination_of(arguments.place)
    history = pusher.read(destination)
    if not history.last and not Store.open(arguments.place, "OUT").exists:
        raise SkipstreamError(
            "versions takes an output, or a place that models were pushed to, got "
            f"{destination.address}, in which nothing ever ran and to which nothing was pushed: "
            "check the path"
        )
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
    store = Store.open(arguments.output, "OUT")
    forget, dry_run = arguments.forget, arguments.dry_run
    for path, size in collect_garbage(store, dry_run=dry_run, forget=forget):
        print(f"{size:>15,}  {path}")
        total += size
    print(f"{total:>15,}  bytes {'would be freed' if dry_run else 'freed'}")
    if forget:
        said = "would no longer be" if dry_run else "is no longer"
        print(f"{forget} {said} a place that versions are looked for in", file=sys.stderr)


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


def collect_garbage(
    store: Store, *, dry_run: bool, forget: str | None = None
) -> Iterator[tuple[str, int]]:
    """Remove artifacts that nothing needs, and yield each, with its bytes, when it is gone.

    Needed are what the last run of each stage used, and what the versions were made of, in all
    places that were ever pushed to.

    Args:
        store: No run may be under way in it.
        dry_run: Remove nothing, and forget nothing.
        forget: A place outside the output that was given up: it is struck from store.json.

    Raises:
        SkipstreamError: There is none, a run holds it, the versions cannot be read, or nothing was
            pushed to what is to be forgotten.
    """
    if not store.exists:
        raise SkipstreamError(f"gc takes an output, got {store.address}, in which nothing ever ran")
    with store.hold("gc"):
        if forget:
            store.ledger.destinations.remove(_outside(store, forget))
            if not dry_run:
                store.save_ledger()
        needed: set[tuple[str, str]] = set()
        for place in [SERVING, *store.ledger.destinations]:
            history = _history(store, place)
            for version in history.versions:
                needed |= set(history.artifacts(version).items())
        for name, size in store.unneeded(needed):
            if not dry_run:
                store.remove(name)
            yield store.place.at(name), size
        if not dry_run:
            store.place.sweep()


def _outside(store: Store, place: str) -> str:
    """A place outside the output, as store.json names it.

    Raises:
        SkipstreamError: Nothing was pushed there.
    """
    address = place.rstrip("/") if "://" in place else Directory(place).address
    known = [other for other in store.ledger.destinations if other != SERVING]
    if address not in known:
        raise SkipstreamError(
            "--forget takes a place outside the output that models were pushed to "
            f"({', '.join(known) or 'there is none'}), got {place}"
        )
    return address


def _history(store: Store, place: str) -> History:
    """The versions at a place that store.json names.

    Raises:
        SkipstreamError: They cannot be read, or the place is a directory that is not there.
    """
    try:
        history = pusher.read(open_destination(store.at(place)))
        # What is not mounted may be an empty directory. Below the output, a push makes it.
        if place.startswith("/") and not history.last:
            raise SkipstreamError(
                "gc must see the versions in all places that models were pushed to, and there are "
                f"none in {place}: mount it, or run gc where it is"
            )
    except SkipstreamError as error:
        if place == SERVING:
            raise
        remedy = f"skipstream gc {quoted(store.address)} --forget {quoted(place)}"
        raise SkipstreamError(f"{error}; if it was given up, '{remedy}' strikes it") from error
    return history


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
