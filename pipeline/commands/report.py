"""`skipstream report`: what a run made of a text, as one page for a person."""

import argparse

from components.errors import SkipstreamError
from pipeline import failures, logs
from pipeline.report import FILE
from pipeline.store import Store


def report(arguments: argparse.Namespace) -> None:
    """`skipstream report`."""
    store = Store.open(arguments.output, "OUT")
    write(store)
    print(store.place.at(FILE))


def write(store: Store) -> None:
    """Write report.html of the last run, unless what is there is made of the same.

    Raises:
        SkipstreamError: No run has finished example_gen, or the store cannot be read or written.
    """
    from pipeline.report.facts import Facts

    facts = Facts(store)
    there = store.place.read(FILE) or b""
    if f'content="{facts.digest()}"'.encode() in there[:1000]:
        return
    from pipeline.report.page import render

    store.place.write(FILE, render(facts).encode("utf-8", "backslashreplace"))


def write_if_possible(store: Store) -> None:
    """The same at the end of a run, which is as good without the page."""
    try:
        write(store)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run's own end matters more.
        explained = failures.explain(error)
        if isinstance(error, SkipstreamError) or explained:
            reason = explained[0] if explained else failures.one_line(error)
        else:
            reason = f"{type(error).__name__}: {failures.one_line(error)}"
        logs.say(f"warning: {FILE} was not written: {reason}", event="no_report")
