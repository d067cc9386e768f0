"""Trains skipstream, gensim and fastText on the same tokens; prints what they cost and reach.

    make benchmark-training CORPUS='corpus/*.gz' ARGS="--epochs 5 --seeds 1 2 3 --eval eval/*"
    make benchmark-training CORPUS='corpus/*.gz' ARGS="--subwords --unseen 2000 --eval eval/*"

Fair by construction: the others read the very tokens that skipstream trains on, on two threads and
through their own fastest paths (gensim: `corpus_file`; fastText: C++), with the same dimensions,
window, negatives, sample and epochs, and are scored by the same code. Each training has a process
of its own. Seconds are of the training alone, without start-up, reading the vocabulary or writing
vectors; building the graph, the held-out loss and checkpoints are part of ours. Peak memory is that
of the process when the training ends. One difference stays: fastText draws noise words by their
counts to the power .5, which is fixed in its source.

--subwords: skipstream and fastText train with the same n-grams, 3 to 6 characters long, in as many
buckets. fastText 0.10.4 starts a tenth of its words and buckets for each thread from random numbers
(`DenseMatrix::uniformThread` of its source cuts the table into 10, whatever the threads), the rest
from zeros. --peer-threads 2 10 trains it with 2 threads, and with 10, which fill the whole table.

--unseen: both train again, on the text without so many words, and scoring.py asks how near the
vectors that n-grams give those words are to what the same system learned from the whole text.
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
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from peers import THREADS, peak_megabytes, train_fasttext, train_gensim
from scoring import (
    Result,
    Vectors,
    choose,
    compare_trainings,
    score,
    score_left_out,
    table,
    unknown_words,
)

from components import threads
from components.artifacts import Examples, Model
from components.settings import TrainerSettings
from components.vocabulary import Vocabulary
from pipeline import baseline

Training = tuple[Callable[..., Result], tuple[Any, ...]]  # And its own arguments.

NGRAMS = 3, 6
PEERS = ("gensim", "fasttext-numpy2")


def cpu() -> str:
    """Its name, and how many there are."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {found[1] if found else platform.machine()}"


def transform(patterns: list[str], output: Path, settings: Sequence[str] = ()) -> Examples:
    """The corpus as the real command prepares it."""
    subprocess.run(
        [sys.executable, "-m", "pipeline", "transform", "--output", str(output)]
        + ["--input", *patterns, *(["--set", *settings] if settings else [])],
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


def write_without(words: set[str], path: Path, other: Path) -> Result:
    """The text at `path` without so many words, to `other`."""
    with path.open(encoding="utf-8") as file, other.open("w", encoding="utf-8") as filtered:
        for line in file:
            filtered.write(" ".join(word for word in line.split() if word not in words) + "\n")
    return {}


def train_skipstream(
    examples: Examples, work: Path, settings: TrainerSettings, unknown: Sequence[str] = ()
) -> Result:
    """As the real command trains: TFRecords through tf.data included.

    vectors.npy has the vectors of the vocabulary, then those of unknown words.
    """
    threads.limit(settings.threads)
    from components import trainer

    path = work / f"skipstream-{settings.seed}"
    path.mkdir()
    model = trainer.build(examples, settings=settings, out=Model(path, path.name))
    peak = peak_megabytes()
    vectors = np.load(model.path / "vectors.npy")
    if model.buckets:
        vectors = np.concatenate([vectors, model.buckets.compose(unknown)])
    np.save(work / "vectors.npy", vectors)
    return {
        "seconds": model.summary["training_seconds"],
        "peak_mb": peak,
        "held_out_loss": model.summary["held_out_loss"],
    }


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


def train_without(
    examples: Examples,
    work: Path,
    settings: TrainerSettings,
    trainings: dict[str, Training],
    trained: dict[str, Vectors],
    flags: argparse.Namespace,
) -> list[Result]:
    """A row for each system: trained without --unseen words, beside its training with them."""
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    left_out, stayed = choose(vocabulary.tokens, flags.unseen)
    words = [vocabulary.tokens[id_] for id_ in left_out]
    text, other = work / "without.txt", work / "without"
    write_without(set(words), work / "tokens.txt", text)
    as_they_are = ["transform.tokenizer=whitespace", "transform.min_count=1"]
    fewer = transform([str(text)], flags.output / "without", as_they_are)
    other.mkdir(exist_ok=True)
    alone(_tokens_of, fewer, other)
    tokens = (*Vocabulary.load(fewer.path / "vocabulary.tsv").tokens, *words)
    ids = np.array([vocabulary.index[token] for token in tokens])
    rows = []
    for name, (train, more) in trainings.items():
        result = alone(train, fewer, other, settings, *more, words)
        without = np.zeros_like(trained[name])
        without[ids] = np.load(other / "vectors.npy")
        arguments = trained[name], without, left_out
        rows.append(
            {"system": name, "seed": settings.seed}
            | {"training_seconds": result["seconds"]}
            | compare_trainings(*arguments, stayed)
            | score_left_out(examples, *arguments, flags.eval)
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-training"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sample", type=float, default=1e-4)
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.025, 0.05])
    parser.add_argument("--subwords", action="store_true", help="with n-grams; gensim is left out")
    parser.add_argument("--unseen", type=int, default=0, help="words to leave out, with --subwords")
    parser.add_argument(
        "--peer-threads", type=int, nargs="+", default=[THREADS], help="fastText, once for each"
    )
    systems = ["skipstream", "gensim", "fasttext"]
    parser.add_argument("--systems", nargs="+", choices=systems)
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()
    if flags.unseen and not flags.subwords:
        parser.error("--unseen needs --subwords: only n-grams give a word left out a vector")
    if flags.subwords and "gensim" in (flags.systems or ()):
        parser.error("--subwords must go with --systems skipstream and fasttext, got gensim")
    flags.systems = flags.systems or [s for s in systems if not (flags.subwords and s == "gensim")]
    return flags


def main() -> None:
    """Train, print, and write the JSON."""
    flags = parse()
    examples = transform(flags.input, flags.output)
    work = Path(tempfile.mkdtemp(dir=flags.output))
    alone(_tokens_of, examples, work)
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]

    shortest, longest = NGRAMS if flags.subwords else (0, 0)
    settings = TrainerSettings(
        epochs=flags.epochs,
        sample=flags.sample,
        dimensions=flags.dimensions,
        threads=THREADS,
        min_ngram=shortest,
        max_ngram=longest,
    )
    unknown = unknown_words(examples, flags.eval) if flags.subwords else []
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

    trainings: dict[str, Training] = {}
    if "skipstream" in flags.systems:
        trainings["skipstream"] = train_skipstream, ()
    if "gensim" in flags.systems:
        trainings |= {f"gensim alpha {alpha}": (train_gensim, (alpha,)) for alpha in flags.alphas}
    if "fasttext" in flags.systems:
        for peer in flags.peer_threads:
            name = "fastText" if peer == THREADS else f"fastText, {peer} threads"
            trainings[name] = train_fasttext, (peer,)

    rows: list[Result] = []
    compared: list[Result] = []
    for seed in flags.seeds:
        settings = settings.model_copy(update={"seed": seed})
        trained: dict[str, Vectors] = {}
        for name, (train, more) in trainings.items():
            asked = (unknown,) if flags.subwords else ()
            result = alone(train, examples, work, settings, *more, *asked)
            vectors = np.load(work / "vectors.npy")
            trained[name] = vectors[: len(vectors) - len(unknown)]
            rate = round(tokens * flags.epochs / result["seconds"])
            rows.append(
                {"system": name, "seed": seed, "words_per_second": rate}
                | result
                | score(examples, vectors, flags.eval, unknown)
            )
            print(json.dumps(rows[-1]), flush=True)
        if flags.unseen:
            compared += train_without(examples, work, settings, trainings, trained, flags)
    print(table(rows))
    if compared:
        print(f"\n{table(compared)}")
    shutil.rmtree(work)
    content = about | {"pipeline_words_per_second": pairs_rate, "rows": rows, "unseen": compared}
    (flags.output / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")


def _tokens_of(examples: Examples, work: Path) -> Result:
    write_tokens(examples, work / "tokens.txt")
    return {}


if __name__ == "__main__":
    main()
