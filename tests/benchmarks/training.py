"""Trains skipstream, gensim and fastText on the same tokens; prints what they cost and reach.

    make benchmark-training CORPUS='corpus/*.gz' ARGS="--epochs 5 --seeds 1 2 3 --eval eval/*"

Fair by construction: the others read the very tokens that skipstream trains on, on two threads and
through their own fastest paths (gensim: `corpus_file`; fastText: C++, no subwords), with the same
dimensions, window, negatives, sample and epochs, and are scored by the same code. Each training has
a process of its own. Seconds are of the training alone, without start-up, reading the vocabulary or
writing vectors; building the graph, the held-out loss and checkpoints are part of ours. Peak memory
is that of the process when the training ends. One difference stays: fastText draws noise words by
their counts to the power .5, which is fixed in its source.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from components import threads
from components.artifacts import Examples, Model
from components.settings import TrainerSettings, TransformSettings
from components.vocabulary import Vocabulary
from pipeline import baseline

Result = dict[str, Any]

THREADS = 2
PEERS = ("gensim", "fasttext-numpy2")


def peak_megabytes() -> int:
    """Peak resident memory of this process, in MB. (getrusage's begins with the parent's.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def cpu() -> str:
    """Its name, and how many there are."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {found[1] if found else platform.machine()}"


def transform(patterns: list[str], output: Path) -> Examples:
    """The corpus as the real command prepares it."""
    subprocess.run(
        [sys.executable, "-m", "pipeline", "transform", "--output", str(output)]
        + ["--input", *patterns],
        check=True,
    )
    return baseline.examples(str(output))


def write_tokens(examples: Examples, path: Path) -> None:
    """The training split as text: a document a line, tokens separated by spaces."""
    import tensorflow as tf

    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    with path.open("w", encoding="utf-8") as file:
        for record in tf.data.TFRecordDataset(examples.records("train"), "GZIP"):
            example = tf.train.Example.FromString(record.numpy())
            ids = example.features.feature["ids"].int64_list.value
            file.write(" ".join(tokens[id_] for id_ in ids) + "\n")


def train_skipstream(examples: Examples, work: Path, settings: TrainerSettings) -> Result:
    """As the real command trains: TFRecords through tf.data included."""
    threads.limit(settings.threads)
    from components import trainer

    path = work / f"skipstream-{settings.seed}"
    path.mkdir()
    model = trainer.build(examples, settings=settings, out=Model(path, path.name))
    np.save(work / "vectors.npy", np.load(model.path / "vectors.npy"))
    return {
        "seconds": model.summary["training_seconds"],
        "held_out_loss": model.summary["held_out_loss"],
    }


def save_by_id(
    examples: Examples,
    work: Path,
    settings: TrainerSettings,
    known: Container[str],
    vector_of: Callable[[str], np.ndarray],
) -> None:
    """Write what another system learned as vectors.npy, by our ids; zeros for the unknown."""
    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    vectors = np.zeros((len(tokens), settings.dimensions), np.float32)
    for id_, token in enumerate(tokens):
        if token in known:
            vectors[id_] = vector_of(token)
    np.save(work / "vectors.npy", vectors)


def train_gensim(examples: Examples, work: Path, settings: TrainerSettings, alpha: float) -> Result:
    """gensim's Word2Vec."""
    from gensim.models import Word2Vec

    file = str(work / "tokens.txt")
    model = Word2Vec(
        vector_size=settings.dimensions,
        window=settings.window,
        negative=settings.negatives,
        ns_exponent=settings.noise_exponent,
        sample=settings.sample,
        seed=settings.seed,
        alpha=alpha,
        sg=1,
        min_count=1,
        workers=THREADS,
    )
    model.build_vocab(corpus_file=file)
    start = time.monotonic()
    model.train(
        corpus_file=file,
        total_examples=model.corpus_count,
        total_words=model.corpus_total_words,
        epochs=settings.epochs,
    )
    result = {"seconds": round(time.monotonic() - start, 1), "peak_mb": peak_megabytes()}
    save_by_id(examples, work, settings, model.wv, model.wv.get_vector)
    return result


def train_fasttext(examples: Examples, work: Path, settings: TrainerSettings) -> Result:
    """fastText's skip-gram, at its own default rate, which is ours, too; no seed."""
    import fasttext

    def train(epochs: int) -> tuple[Any, float]:
        start = time.monotonic()
        model = fasttext.train_unsupervised(
            str(work / "tokens.txt"),
            model="skipgram",
            lr=settings.learning_rate,
            dim=settings.dimensions,
            ws=settings.window,
            neg=settings.negatives,
            t=settings.sample,
            epoch=epochs,
            minCount=1,
            minn=0,
            maxn=0,
            thread=THREADS,
            verbose=0,
        )
        return model, time.monotonic() - start

    reading = train(0)[1]  # It reads the vocabulary in the same call.
    model, seconds = train(settings.epochs)
    result = {"seconds": round(seconds - reading, 1), "peak_mb": peak_megabytes()}
    save_by_id(examples, work, settings, set(model.words), model.get_word_vector)
    return result


def read_pairs(examples: Examples, settings: TrainerSettings) -> Result:
    """One epoch of the input pipeline, with nobody who trains."""
    threads.limit(settings.threads)
    import tensorflow as tf

    from components.trainer import SkipGrams

    tf.config.experimental.enable_op_determinism()
    data = SkipGrams(examples, settings)
    start = time.monotonic()
    data.spans(0).reduce(tf.constant(0, tf.int64), lambda rounds, _: rounds + 1)
    return {"seconds": round(time.monotonic() - start, 2)}


def _in_process(connection: Any, train: Any, arguments: tuple[Any, ...]) -> None:
    result = train(*arguments)
    connection.send({"peak_mb": peak_megabytes()} | result)


def alone(train: Any, *arguments: Any) -> Result:
    """Run `train` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_process, args=(theirs, train, arguments))
    process.start()
    theirs.close()
    result: Result = ours.recv()
    process.join()
    return result


def is_analogies(file: Path) -> bool:
    """Whether a file is in the format of questions-words.txt, else it is one of word pairs."""
    return file.read_text(encoding="utf-8").lstrip().startswith(":")


def score(examples: Examples, vectors: np.ndarray, files: list[Path]) -> Result:
    """Spearman or accuracy by file, and the share of its pairs or questions that is covered."""
    from components.evaluator import scores
    from components.evaluator.evaluator import find_ids

    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    unit = scores.unit_rows(vectors)

    def find(words: list[str]) -> np.ndarray:
        return find_ids(words, vocabulary, TransformSettings())

    found: Result = {}
    for file in files:
        if is_analogies(file):
            result = scores.analogy_accuracy(unit, find, file)[0]
        else:
            result = scores.word_similarity(unit, find, file)
        found[file.stem] = result.value
        found[f"{file.stem} covered"] = result.covered / result.total
    return found


def main() -> None:
    """Parse, train, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-training"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sample", type=float, default=1e-4)
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.025, 0.05])
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["skipstream", "gensim", "fasttext"],
        choices=["skipstream", "gensim", "fasttext"],
    )
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()

    examples = transform(flags.input, flags.output)
    work = Path(tempfile.mkdtemp(dir=flags.output))
    alone(_tokens_of, examples, work)
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]

    settings = TrainerSettings(
        epochs=flags.epochs, sample=flags.sample, dimensions=flags.dimensions, threads=THREADS
    )
    about = {
        "settings": settings.model_dump(exclude={"seed"}),
        "tokens": tokens,
        "cpu": cpu(),
        "versions": {name: version(name) for name in ("skipstream", "tensorflow", *PEERS)},
    }
    print(json.dumps(about), flush=True)
    reading = alone(read_pairs, examples, settings)["seconds"]
    pairs_rate = round(tokens / reading)
    print(f"the input pipeline alone: {pairs_rate:,} words/s", flush=True)

    rows: list[Result] = []
    for seed in flags.seeds:
        settings = settings.model_copy(update={"seed": seed})
        trainings: dict[str, list[tuple[str, Any, tuple[Any, ...]]]] = {
            "skipstream": [("skipstream", train_skipstream, ())],
            "gensim": [(f"gensim alpha {a}", train_gensim, (a,)) for a in flags.alphas],
            "fasttext": [("fastText", train_fasttext, ())],
        }
        for name, train, more in (one for system in flags.systems for one in trainings[system]):
            result = alone(train, examples, work, settings, *more)
            vectors = np.load(work / "vectors.npy")
            rate = round(tokens * flags.epochs / result["seconds"])
            rows.append(
                {"system": name, "seed": seed, "words_per_second": rate}
                | result
                | score(examples, vectors, flags.eval)
            )
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    shutil.rmtree(work)
    content = about | {"pipeline_words_per_second": pairs_rate, "rows": rows}
    (flags.output / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")


def _tokens_of(examples: Examples, work: Path) -> Result:
    write_tokens(examples, work / "tokens.txt")
    return {}


def table(rows: list[Result]) -> str:
    """Means over the seeds, as a Markdown table."""
    systems = list(dict.fromkeys(row["system"] for row in rows))
    columns = [key for key in rows[0] if key not in ("system", "seed")]
    lines = [f"| | {systems[0]} is faster by | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")

    def mean(system: str, column: str) -> float | None:
        chosen = [row for row in rows if row["system"] == system]
        values = [row[column] for row in chosen if row.get(column) is not None]
        return float(np.mean(values)) if values else None

    for system in systems:
        numbers = {column: mean(system, column) for column in columns}
        ratio = (numbers["seconds"] or 0) / (mean(systems[0], "seconds") or 1)
        cells = [
            "" if value is None else f"{value:,.0f}" if value > 20 else f"{value:.3f}"
            for value in numbers.values()
        ]
        lines.append(f"| {system} | {ratio:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
