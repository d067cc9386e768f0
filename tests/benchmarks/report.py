"""What the benchmarks of rounds share: which corpus, and tables of what was found."""

import argparse
import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training import cpu, transform

from components.artifacts import Examples
from pipeline import baseline

Row = dict[str, Any]


def parser_for(description: str, name: str) -> argparse.ArgumentParser:
    """A parser with the flags that say what is read and where reports go."""
    parser = argparse.ArgumentParser(description=description)
    corpus = parser.add_mutually_exclusive_group(required=True)
    corpus.add_argument("--input", nargs="+", help="the corpus")
    corpus.add_argument("--examples", help="in its place: an output whose transform is finished")
    parser.add_argument("--output", type=Path, default=Path(f"build/benchmark-{name}"))
    return parser


def examples_of(flags: argparse.Namespace) -> Examples:
    """The examples that the flags name; made if need be. The output is there from then on."""
    flags.output.mkdir(parents=True, exist_ok=True)
    if flags.examples:
        return baseline.examples(flags.examples)
    return transform([pattern for pattern in flags.input if pattern], flags.output)


def about(examples: Examples, **more: Any) -> Row:
    """What a report has to say of the machine and the corpus."""
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]
    versions = {name: version(name) for name in ("skipstream", "tensorflow", "numpy")}
    machine = {"cpu": cpu(), "system": platform.platform(), "versions": versions}
    return machine | {"tokens": tokens} | more


def markdown(rows: Sequence[Row], columns: Iterable[str] = ()) -> str:
    """A table with a line for each row.

    Args:
        rows: Figures by column; what is not there is left empty.
        columns: Which of them; none: all.

    >>> print(markdown([{"a": 1234.5, "b": 0.12345}, {"a": "x"}]))
    | a | b |
    |---|---|
    | 1,234 | 0.123 |
    | x |  |
    """
    columns = list(columns) or list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        size = abs(value)
        return (
            f"{value:,.0f}" if size >= 100 else f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"
        )
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def write(path: Path, content: Any) -> None:
    """The same for programs."""
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\n{path}")
