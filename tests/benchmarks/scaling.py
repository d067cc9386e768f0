"""Trains on made-up text of many sizes; prints time and memory against types and tokens.

    make benchmark-scaling ARGS="--types 2000000 --tokens 4000000 --dimensions 300"

Words follow Zipf's law. Each training has a process of its own, and two epochs, of which the second
is timed: the first one also builds the graph. The second holds the checks at an epoch's end, too,
which read both tables once.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from training import alone

from components import threads
from components.artifacts import Examples, Model, write_json
from components.settings import TrainerSettings, TransformSettings
from components.vocabulary import Vocabulary

DOCUMENT = 1000  # tokens
SHARD = 1_000_000


def write_examples(path: Path, types: int, tokens: int) -> dict[str, Any]:
    """An Examples artifact as the Transform stage would write it."""
    import tensorflow as tf

    draw = np.random.default_rng(0)
    share = 1 / np.arange(1, types + 1)
    share /= share.sum()
    cdf = np.cumsum(share)
    sizes = {"train": tokens, "eval": max(tokens // 100, DOCUMENT)}
    splits = {}
    for split, size in sizes.items():
        (path / split).mkdir(parents=True)
        files = {}
        for start in range(0, size, SHARD):
            file = path / split / f"{start // SHARD:06d}.tfrecord.gz"
            with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
                for _ in range(0, min(SHARD, size - start), DOCUMENT):
                    ids = np.searchsorted(cdf, draw.random(DOCUMENT)).clip(0, types - 1)
                    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=ids.tolist()))
                    features = tf.train.Features(feature={"ids": feature})
                    writer.write(tf.train.Example(features=features).SerializeToString())
            files[file.name] = file.stat().st_size
        count = -(-size // DOCUMENT)
        kept = count * DOCUMENT
        splits[split] = {"documents": count, "tokens": kept, "kept_tokens": kept, "files": files}
    counts = np.maximum(1, share * tokens).astype(np.int64)
    Vocabulary(tuple(f"w{id_}" for id_ in range(types)), counts).save(path / "vocabulary.tsv")
    write_json(path / "statistics.json", {"splits": splits})
    Examples(path, "scaling").finish(TransformSettings())
    return {}


def train(path: Path, out: Path, settings: TrainerSettings) -> dict[str, Any]:
    """Two epochs; what the second took."""
    threads.limit(None)
    from components import trainer
    from components.trainer import SkipGrams

    examples = Examples(path, "scaling")
    out.mkdir()
    model = trainer.build(examples, settings=settings, out=Model(out, "scaling"))
    second = model.summary["history"][1]["seconds"]
    steps = SkipGrams(examples, settings).steps
    return {
        "seconds": second,
        "ms_per_step": round(1000 * second / steps, 3),
        "held_out_loss": model.summary["held_out_loss"],
    }


def main() -> None:
    """Parse, train, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", type=int, nargs="+", default=[10_000, 100_000, 2_000_000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[2_000_000, 8_000_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[100])
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-scaling"))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for types in flags.types:
        for tokens in flags.tokens:
            with tempfile.TemporaryDirectory(dir=flags.output) as scratch:
                examples = Path(scratch) / "examples"
                alone(write_examples, examples, types, tokens)
                for dimensions in flags.dimensions:
                    settings = TrainerSettings(dimensions=dimensions, epochs=2, sample=1e-4)
                    out = Path(scratch) / f"model-{dimensions}"
                    row = {"types": types, "tokens": tokens, "dimensions": dimensions}
                    row |= alone(train, examples, out, settings)
                    row["tables_mb"] = 2 * types * dimensions * 4 // 2**20
                    row["rest_mb"] = row["peak_mb"] - row["tables_mb"]
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    print("| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|", sep="\n")
    for row in rows:
        print("| " + " | ".join(f"{value:,}" for value in row.values()) + " |")
    (flags.output / "scaling.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
