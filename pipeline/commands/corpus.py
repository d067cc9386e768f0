"""`skipstream stats`: what a corpus is made of, and what moved since an earlier one."""

import argparse
from pathlib import Path

from components.artifacts import Statistics
from components.settings import StatisticsGenSettings
from pipeline import baseline, results
from pipeline.store import Store


def stats(arguments: argparse.Namespace) -> None:
    """`skipstream stats`."""
    examples = baseline.examples(arguments.run)
    finished = Store.open(arguments.run, "OUT").last(Statistics)
    directory: Path | None = arguments.output
    if finished and not arguments.against and not directory:
        place, report = finished.address, finished.report
    else:
        from components.statistics_gen import statistics_gen

        against = baseline.examples(arguments.against) if arguments.against else None
        if directory:
            directory.mkdir(parents=True, exist_ok=True)
        report = statistics_gen.describe(
            examples, against, settings=StatisticsGenSettings(), directory=directory
        )
        place = str(directory) if directory else ""
    print(results.corpus(report))
    if place:
        print(place)
