"""Small texts: skipstream with its defaults, and gensim with its own and with the best of a grid.

    make benchmark-small CORPUS='corpus/*.gz' ARGS="--tokens 100000 1000000 --eval eval/*"

A text is the first lines of the corpus, a document each, as many as hold so many tokens. Both train
on the same tokens and are scored by the same code, as in benchmarks/training.py. Then the words of
each text are shuffled over its documents: the gate must refuse the model that is trained on that.
"""

import argparse
import glob
import gzip
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import train_gensim
from scoring import Result, score, table
from training import _tokens_of, alone, train_skipstream, transform

from components.settings import TrainerSettings

GENSIM_EPOCHS, GENSIM_SAMPLES = (5, 20, 50), (1e-3, 1e-4)


def first_lines(patterns: list[str], tokens: int) -> list[str]:
    """Whole lines with at least so many words between white space."""
    paths = sorted(map(Path, itertools.chain.from_iterable(map(glob.glob, patterns))))
    lines: list[str] = []
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            for line in file:
                if tokens <= 0:
                    return lines
                lines.append(line)
                tokens -= len(line.split())
    return lines


def is_refused(lines: list[str], output: Path) -> bool:
    """Whether a model of these lines, their words shuffled, is not pushed."""
    words = [word for line in lines for word in line.split()]
    random.Random(0).shuffle(words)
    left = iter(words)
    text = output / "shuffled.txt"
    text.write_text(
        "".join(" ".join(itertools.islice(left, len(line.split()))) + "\n" for line in lines)
    )
    command = [sys.executable, "-m", "pipeline", "run", "--output", str(output / "shuffled")]
    done = subprocess.run([*command, "--input", str(text)], capture_output=True, text=True)
    print(done.stderr.splitlines()[-1], flush=True)
    return done.returncode == 3


def main() -> None:
    """Cut, train, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-small"))
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", default=["skipstream", "gensim", "shuffled"])
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="pairs, analogies")
    flags = parser.parse_args()
    content: dict[str, Any] = {}
    for tokens in flags.tokens:
        output = flags.output / str(tokens)
        output.mkdir(parents=True, exist_ok=True)
        lines = first_lines(flags.input, tokens)
        (output / "text.txt").write_text("".join(lines))
        examples = transform([str(output / "text.txt")], output / "run")
        work = Path(tempfile.mkdtemp(dir=output))
        alone(_tokens_of, examples, work)
        rows: list[Result] = []
        for seed in flags.seeds:
            ours = TrainerSettings(seed=seed)
            runs: list[tuple[str, Any, TrainerSettings, tuple[Any, ...]]] = []
            if "skipstream" in flags.systems:
                runs.append(("skipstream", train_skipstream, ours, ()))
            if "gensim" in flags.systems:
                for sample, epochs in itertools.product(GENSIM_SAMPLES, GENSIM_EPOCHS):
                    settings = ours.model_copy(update={"sample": sample, "epochs": epochs})
                    name = f"gensim, {epochs} epochs, sample {sample:g}"
                    runs.append((name, train_gensim, settings, (0.025,)))
            for name, train, settings, more in runs:
                result = alone(train, examples, work, settings, *more)
                vectors = np.load(work / "vectors.npy")
                rows.append(
                    {"system": name, "seed": seed} | result | score(examples, vectors, flags.eval)
                )
                print(json.dumps(rows[-1]), flush=True)
        print(f"{tokens:,} tokens\n{table(rows)}" if rows else f"{tokens:,} tokens")
        content[str(tokens)] = {"rows": rows}
        if "shuffled" in flags.systems:
            content[str(tokens)]["shuffled_refused"] = is_refused(lines, output)
            print(f"words shuffled: refused: {content[str(tokens)]['shuffled_refused']}")
        shutil.rmtree(work)
    (flags.output / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
