"""Trains skipstream and gensim on the same tokens and prints what both cost and reach.

    make benchmark-training CORPUS='corpus/*.gz' ARGS="--epochs 5 --seeds 1 2 3 --eval eval/*"

Fair by construction: gensim reads, through its own fastest path (`corpus_file`), the very token
ids that skipstream trains on, with the same dimensions, window, negatives, sample and epochs, and
is scored by the same code. Each training has a process of its own; seconds are of the training
alone, without start-up, reading the vocabulary or writing vectors.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts import Examples, Model
from components.evaluator import scores
from components.evaluator.evaluator import find_ids
from components.settings import TrainerSettings, TransformSettings
from components.vocabulary import Vocabulary

Result = dict[str, Any]


def peak_megabytes() -> int:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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
    from components import trainer

    path = work / f"skipstream-{settings.seed}"
    path.mkdir()
    model = trainer.build(examples, settings=settings, out=Model(path, path.name))
    np.save(work / "vectors.npy", np.load(model.path / "vectors.npy"))
    return {
        "seconds": model.summary["training_seconds"],
        "held_out_loss": model.summary["held_out_loss"],
    }


def train_gensim(examples: Examples, work: Path, settings: TrainerSettings, alpha: float) -> Result:
    """gensim's Word2Vec on two workers."""
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
        workers=2,
    )
    model.build_vocab(corpus_file=file)
    start = time.monotonic()
    model.train(
        corpus_file=file,
        total_examples=model.corpus_count,
        total_words=model.corpus_total_words,
        epochs=settings.epochs,
    )
    seconds = time.monotonic() - start
    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    vectors = np.zeros((len(tokens), settings.dimensions), np.float32)
    for id_, token in enumerate(tokens):
        if token in model.wv:
            vectors[id_] = model.wv[token]
    np.save(work / "vectors.npy", vectors)
    return {"seconds": round(seconds, 1)}


def _in_process(connection: Any, train: Any, arguments: tuple[Any, ...]) -> None:
    connection.send(train(*arguments) | {"peak_mb": peak_megabytes()})


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


def score(examples: Examples, vectors: np.ndarray, files: list[Path]) -> Result:
    """Spearman or accuracy, by file."""
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    unit = scores.unit_rows(vectors)

    def find(words: list[str]) -> np.ndarray:
        return find_ids(words, vocabulary, TransformSettings())

    found: Result = {}
    for file in files:
        if file.read_text(encoding="utf-8").lstrip().startswith(":"):
            found[file.stem] = scores.analogy_accuracy(unit, find, file)[0].value
        else:
            found[file.stem] = scores.word_similarity(unit, find, file).value
    return found


def main() -> None:
    """Parse, train, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-training"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.025, 0.05])
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()

    subprocess.run(
        [sys.executable, "-m", "pipeline", "transform", "--output", str(flags.output)]
        + ["--input", *flags.input],
        check=True,
    )
    report = json.loads((flags.output / "run.json").read_text())
    examples = Examples(Path(report["stages"]["transform"]["artifact"]), "benchmark")
    work = flags.output / f"{time.time_ns()}"
    work.mkdir()
    alone(_tokens_of, examples, work)
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]

    rows: list[Result] = []
    for seed in flags.seeds:
        settings = TrainerSettings(epochs=flags.epochs, dimensions=flags.dimensions, seed=seed)
        systems = [("skipstream", train_skipstream, ())]
        systems += [(f"gensim alpha {alpha}", train_gensim, (alpha,)) for alpha in flags.alphas]
        for name, train, more in systems:
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
    content = {"settings": settings.model_dump(), "tokens": tokens, "rows": rows}
    (flags.output / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")


def _tokens_of(examples: Examples, work: Path) -> Result:
    write_tokens(examples, work / "tokens.txt")
    return {}


def table(rows: list[Result]) -> str:
    """Means over the seeds, as a Markdown table."""
    systems = list(dict.fromkeys(row["system"] for row in rows))
    columns = [key for key in rows[0] if key not in ("system", "seed")]
    lines = ["| system | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for system in systems:
        chosen = [row for row in rows if row["system"] == system]
        cells = []
        for column in columns:
            values = [row[column] for row in chosen if row.get(column) is not None]
            mean = float(np.mean(values)) if values else None
            cells.append("" if mean is None else f"{mean:,.0f}" if mean > 20 else f"{mean:.3f}")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
