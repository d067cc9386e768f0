"""Trains with one choice of the trainer undone at a time; prints what each is worth.

make benchmark-ablation CORPUS='corpus/*.gz' ARGS="--epochs 1 --seeds 1 2 --eval eval/*"

The held-out losses of "pairs across rows lost" and "whole windows" are those of other pairs.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scoring import Result, score, table
from training import alone, transform

from components import threads
from components.artifacts import Examples, Model
from components.settings import TrainerSettings

# Names in modules of components.trainer, or settings; "edges" drops pairs that leave their row.
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "16 noise words a group": {"noise_words": lambda _: 16},
    "64 noise words a group": {"noise_words": lambda _: 64},
    "groups of 32 targets": {"GROUP": 32},
    "groups of 128 targets": {"GROUP": 128},
    "steps of 1,024 targets": {"TARGETS": 1024},
    "steps of 4,096 targets": {"TARGETS": 4096},
    "rows not bounded": {"LONGEST_MOVE": 1e9},
    "one shard": {"shards": 1},
    "16 shards": {"shards": 16},
    "pairs across rows lost": {"edges": True},
    "rate .025": {"learning_rate": 0.025},
    "rate .075": {"learning_rate": 0.075},
    "whole windows": {"shrink_windows": False},
}


def within_rows(to_rows: Callable[..., Any]) -> Callable[..., Any]:
    """`to_rows`, but windows end at the edges of their row."""
    import tensorflow as tf

    def shortened(*args: Any, length: int, **kwargs: Any) -> Any:
        tokens, left, right = to_rows(*args, length=length, **kwargs)
        place = tf.range(length)
        return tokens, tf.minimum(left, place), tf.minimum(right, length - 1 - place)

    return shortened


def train(examples: Examples, out: Path, settings: TrainerSettings, variant: str) -> Result:
    """One training in this process, which it changes for good."""
    threads.limit(settings.threads)
    from components.trainer import dataset, shard, skipgrams, trainer, training

    for name, value in VARIANTS[variant].items():
        holders = [module for module in (dataset, shard, training) if hasattr(module, name)]
        for module in holders:  # Each has a name of its own for what it imports.
            setattr(module, name, value)
        if name == "edges":
            skipgrams.to_rows = within_rows(skipgrams.to_rows)
        elif not holders:
            settings = settings.model_copy(update={name: value})
    out.mkdir()
    trained = trainer.build(examples, settings=settings, out=Model(out, "ablation"))
    seconds, loss = trained.summary["training_seconds"], trained.summary["held_out_loss"]
    return {"seconds": seconds, "held_out_loss": loss}


def main() -> None:
    """Parse, train, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-ablation"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()
    examples = transform(flags.input, flags.output)
    rows: list[Result] = []
    for variant in flags.variants:
        for seed in flags.seeds:
            settings = TrainerSettings(epochs=flags.epochs, sample=1e-4, seed=seed)
            out = flags.output / f"model-{len(rows)}"
            result = alone(train, examples, out, settings, variant)
            vectors = np.load(out / "vectors.npy")
            norm = float(np.linalg.norm(vectors, axis=1).max())
            result |= score(examples, vectors, flags.eval) | {"largest norm": norm}
            rows.append({"system": variant, "seed": seed} | result)
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    (flags.output / "ablation.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
