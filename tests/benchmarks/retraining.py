"""Retrains on a corpus that grows night by night, warm and cold; then in nights that went wrong.

    make benchmark-retraining CORPUS='corpus/*.gz' ARGS='--nights 3 --eval ws353.tsv men3000.tsv'

The corpus is cut by the order of its documents: a base, which warm and cold begin with, and a slice
a night, each in a directory of its own. A night is `skipstream run` in a fresh process, and every
figure but its wall time is from its run.json and evaluation.json. Poisoned nights follow the last
warm one, against the version that it pushed.

What a night reported is kept below --output: the same command again goes on behind it, and more
nights may be asked for. The corpus is held in memory.
"""

import argparse
import glob
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scoring import is_analogies
from transform import read_lines

from components.exporter.served import resolve
from components.settings import TrainerSettings

Report = dict[str, Any]

PER_FILE = 1_000  # documents
POISONS = {"words": "words shuffled", "files": "every other file gone", "rate": "rate 1"}


def write(directory: Path, documents: pa.Array) -> None:
    """Files of PER_FILE documents, a line each; what is there already stays."""
    if directory.exists():
        return
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for start in range(0, len(documents), PER_FILE):
        lines = documents[start : start + PER_FILE].to_pylist()
        with pa.output_stream(unfinished / f"{start // PER_FILE:06}.txt.gz") as file:
            file.write(b"\n".join(lines) + b"\n")
    unfinished.rename(directory)


def shuffled(documents: pa.Array) -> pa.Array:
    """Documents as long as they were, of words (what blanks separate) drawn from all of them."""
    words = pc.split_pattern(documents, b" ")
    order = np.random.default_rng(0).permutation(len(words.values))
    values = words.values.take(pa.array(order))
    return pc.binary_join(pa.ListArray.from_arrays(words.offsets, values), b" ")


class Nights:
    """Runs in output directories of their own, and what each has reported."""

    def __init__(self, output: Path, settings: Iterable[str]) -> None:
        """Go on with what lies in `output`; `settings` are those of all nights."""
        self.output = output
        self.reports: dict[str, Report] = {}
        self._settings = tuple(settings)
        self._directory = output / "reports"
        self._directory.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, kind: str, corpus: Iterable[Path], *settings: str) -> Report:
        """The report of one night: made before, or by running it."""
        output, file = self.output / kind, self._directory / f"{name}.json"
        command = [sys.executable, "-m", "pipeline", "run", "--output", str(output)]
        command += ["--input", *map(str, corpus), "--set", *self._settings, *settings]
        if file.exists():
            report: Report = json.loads(file.read_text())
            if report["command"] != command:
                sys.exit(f"{file} tells of another command: delete {self.output}, or name another")
        else:
            start = time.monotonic()
            code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
            seconds = round(time.monotonic() - start, 1)
            run = json.loads((output / "run.json").read_text())
            if code not in (0, 3):
                sys.exit(f"{' '.join(command)} ended with {code}")
            evaluated = run["stages"].get("evaluator", {})
            evaluation = Path(evaluated.get("artifact", "")) / "evaluation.json"
            report = {"command": command, "exit_code": code, "wall_seconds": seconds, "run": run}
            report["evaluation"] = json.loads(evaluation.read_text()) if evaluated else None
            report["served"] = int(resolve(output / "serving").name)
            file.write_text(json.dumps(report, indent=2) + "\n")
        self.reports[name] = report
        print(json.dumps({"night": name} | figures(report)), flush=True)
        return report


def figures(report: Report) -> dict[str, Any]:
    """The columns of the table."""
    stages, evaluation = report["run"]["stages"], report["evaluation"] or {}
    transform, trainer = stages["transform"], stages["trainer"]
    before = evaluation.get("before") or {}
    drift = before.get("drift") or {}
    losses = before.get("losses", {}).get("documents_before", {})
    scored = evaluation.get("word_pairs", {}) | evaluation.get("analogies", {})
    errors = [stage["error"] for stage in stages.values() if "error" in stage]
    limits = re.findall(r"evaluator\.(\w+)", " ".join(evaluation.get("reasons", [])))
    refused = ", ".join(dict.fromkeys(limits))
    return {
        "wall s": report["wall_seconds"],
        "transform s": transform["seconds"],
        "units reused": f"{transform['units_reused']} of {transform['units']}",
        "tokens": transform["tokens"],
        "epochs": trainer.get("epochs"),
        "training s": trainer.get("training_seconds"),
        "loss": evaluation.get("held_out_loss"),
        "on documents before": losses.get("now"),
        "was": losses.get("before"),
        **{name: score.get("spearman", score.get("accuracy")) for name, score in scored.items()},
        "neighbours kept": drift.get("neighbors", {}).get("overlap"),
        "residual": (drift.get("procrustes") or {}).get("residual"),
        "exit code": report["exit_code"],
        "refused by": refused or "".join(errors),
        "serves version": report["served"],
    }


def table(reports: dict[str, Report]) -> str:
    """Markdown, a night a row."""
    rows = {name: figures(report) for name, report in reports.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            "" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"
            for value in map(row.get, columns)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus: lines of text")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-retraining"))
    parser.add_argument("--base", type=float, default=0.7, help="share of the documents")
    parser.add_argument("--growth", type=float, default=0.1, help="share added each night")
    parser.add_argument("--nights", type=int, default=3)
    defaults = TrainerSettings()
    parser.add_argument("--cold-epochs", type=int, default=defaults.epochs)
    parser.add_argument("--warm-epochs", type=int, default=defaults.warm_epochs)
    parser.add_argument("--warm-rate", type=float, default=defaults.warm_learning_rate)
    parser.add_argument("--poisons", nargs="*", default=list(POISONS), choices=POISONS)
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()

    paths = sorted(path for pattern in flags.input for path in glob.glob(pattern))
    documents = pa.array([line for path in paths for line in read_lines(path)], pa.binary())
    corpus = flags.output / "corpus"
    days = range(flags.nights + 1)
    ends = [round((flags.base + flags.growth * day) * len(documents)) for day in days]
    if not 0 < ends[0] <= ends[-1] <= len(documents):
        sys.exit("--base and the --growth of all --nights must be 1 at most")
    for day, start, end in zip(days, [0, *ends], ends, strict=False):
        write(corpus / f"day-{day}", documents[start:end])

    def grown(night: int, files: str = "*.txt.gz") -> list[Path]:
        return [corpus / f"day-{day}" / files for day in range(night + 1)]

    files = [str(path.absolute()) for path in flags.eval]
    analogies = [path for path in files if is_analogies(Path(path))]
    pairs = [path for path in files if path not in analogies]
    settings = {"evaluator.word_pairs": pairs, "evaluator.analogies": analogies}
    nights = Nights(flags.output, [f"{key}={json.dumps(v)}" for key, v in settings.items()])
    cold = [f"trainer.epochs={flags.cold_epochs}"]
    warm = [*cold, "trainer.warm_start=latest", f"trainer.warm_epochs={flags.warm_epochs}"]
    rate = [f"trainer.warm_learning_rate={flags.warm_rate}"]
    nights.run("base", "warm", grown(0), *warm, *rate)
    if not (flags.output / "cold").exists():
        shutil.copytree(flags.output / "warm", flags.output / "copy", dirs_exist_ok=True)
        (flags.output / "copy").rename(flags.output / "cold")
    for night in days[1:]:
        nights.run(f"night {night}, warm", "warm", grown(night), *warm, *rate)
        nights.run(f"night {night}, cold", "cold", grown(night), *cold)
    for poison in flags.poisons:
        name = f"after night {flags.nights}, {POISONS[poison]}"
        if poison == "words":
            directory = corpus / f"shuffled-{flags.nights}"
            write(directory, shuffled(documents[: ends[-1]]))
            nights.run(name, "warm", [directory / "*.txt.gz"], *warm, *rate)
        elif poison == "files":
            nights.run(name, "warm", grown(flags.nights, "*[02468].txt.gz"), *warm, *rate)
        else:
            nights.run(name, "warm", grown(flags.nights), *warm, "trainer.warm_learning_rate=1")
    print(table(nights.reports))
    rows = {name: figures(report) for name, report in nights.reports.items()}
    (flags.output / "benchmark.json").write_text(json.dumps({"nights": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
