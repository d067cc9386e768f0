"""Two runs at once in one bucket, and a reader that never fails."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import copies
import whole
from nights import Checks, Corpus, Environment, arguments
from stores import Server
from three_nights import Reference

from components.exporter.embeddings import Embeddings
from components.places.place import open_place
from pipeline.commands.places import destination_of


def check(checks: Checks, corpus: Corpus, expected: Reference, server: Server) -> None:
    """A second night, twice at once, over a first one."""
    outputs = copies.first_night(checks, corpus, server)
    url = outputs.at("after-run")
    ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(_read, url, ended)
        with Environment(outputs.variables) as one, Environment(outputs.variables) as other:
            command = arguments(corpus.night(2), url)
            runs = [pool.submit(machine.run, *command) for machine in (one, other)]
            results = sorted((run.result() for run in runs), key=lambda run: run.code)
        ended.set()
        read, failures = reader.result()
    codes = [run.code for run in results]
    if checks(codes == [0, 1], f"{url} of two runs one ends", [run.error for run in results]):
        refused = results[1]
        named = refused.is_one_line and " is in use by run " in refused.error
        checks(named, f"{url} the other is refused in a line that names the holder", refused.error)
        checks.say(f"     {refused.error} ({refused.seconds:.0f} s)")
    bits = whole.bits(open_place(url))
    same = bits == expected.bits[1]
    checks(same, f"{url} nothing is mixed", whole.differences(expected.bits[1], bits))
    halves = whole.half(open_place(url))
    checks(not halves, f"{url} nothing is half there", halves[:3])
    checks(set(read) == {1, 2}, f"{url} the reader saw both versions", read)
    checks(not failures, f"{url} the reader never failed", failures[:3])
    checks.say(f"     loaded by version: {read}")


def _read(url: str, ended: threading.Event) -> tuple[dict[int, int], list[str]]:
    """List and load the newest version until the runs end, and once more."""
    read: dict[int, int] = {}
    failures: list[str] = []
    last = False
    while not last:
        last = ended.wait(0.2)
        try:
            destination = destination_of(url)
            newest = destination.history().newest
            path: Path = destination.fetch(newest, copies.scratch() / "copy")
            if len(Embeddings.load(path).words) < 400:
                failures.append(f"version {newest} has few words")
            read[newest] = read.get(newest, 0) + 1
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
    return read, failures
