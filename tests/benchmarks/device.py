"""Trains on the CPU, on one GPU and on all of them; compares scores, losses and bits.

    make benchmark-device CORPUS='corpus/*.gz' ARGS='--eval eval/*'

Every training has a process of its own, in which CUDA_VISIBLE_DEVICES says what there is: no GPU,
one, or all. On the CPU it runs on 1, 2, 4, ... threads. Words a second are those of the last epoch,
so that what is compiled in the first one does not count. Vectors are compared with those of the
first row: by their bits, by the largest difference of a number, and by the least cosine of a row.
The CPU's bits must not depend on threads, nor a GPU's on how many there are; a GPU adds up in
another order than a CPU, so its bits are its own.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from report import Row, about, examples_of, markdown, parser_for, write
from scoring import score
from training import alone, train_skipstream

from components import threads
from components.artifacts import Examples
from components.settings import TrainerSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus() -> Row:
    """The names of the GPUs that TensorFlow can use here."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    return {"names": [detail.get("device_name", "a GPU") for detail in details]}


def train(examples: Examples, work: Path, settings: TrainerSettings) -> Row:
    """One training, on the devices that are visible."""
    result = train_skipstream(examples, work, settings)
    import json

    history = json.loads((work / f"skipstream-{settings.seed}" / "history.json").read_text())
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]
    speed = round(tokens / history[-1]["seconds"])
    bits = hashlib.sha256((work / "vectors.npy").read_bytes()).hexdigest()
    loss = history[-1]["loss"]
    return {"words_per_second": speed, "loss": loss, "sha256": bits[:16]} | result


@contextmanager
def visible(devices: str | None) -> Iterator[None]:
    """Processes that are started meanwhile see these GPUs; None: those that this one sees."""
    before = os.environ.get(VISIBLE)
    if devices is not None:
        os.environ[VISIBLE] = devices
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


def difference(vectors: np.ndarray, first: np.ndarray) -> Row:
    """How far two tables are from each other."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(first, axis=1)
    cosines = np.einsum("rd,rd->r", vectors, first) / np.maximum(lengths, 1e-30)
    return {
        "same bits": bool(np.array_equal(vectors, first)),
        "largest difference": float(np.abs(vectors - first).max()),
        "least cosine": float(cosines[lengths > 0].min()),
    }


def driver() -> str:
    """What the driver says that there is, in a word or two."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except FileNotFoundError:
        return "there is no nvidia-smi"
    return found.stdout.strip() or "nvidia-smi lists none"


def main() -> None:
    """Parse, train, compare, print, and write the JSON."""
    parser = parser_for(__doc__.splitlines()[0], "device")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--shards", type=int, help="of a round; unset: chosen from the corpus")
    parser.add_argument("--round-tokens", type=int, help="of a shard; unset: chosen likewise")
    found = [1 << power for power in range(threads.cpus().bit_length())]
    parser.add_argument("--threads", type=int, nargs="+", default=found)
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()
    examples = examples_of(flags)

    names = alone(gpus)["names"]
    print(f"GPUs that TensorFlow can use: {', '.join(names) or f'none ({driver()})'}", flush=True)
    chosen = {"shards": flags.shards, "round_tokens": flags.round_tokens}
    settings = TrainerSettings(
        epochs=flags.epochs, dimensions=flags.dimensions, sample=1e-4, **chosen
    )
    runs: list[tuple[str, str | None, int | None]] = []
    for count in flags.threads:
        runs.append((f"CPU, {count} thread{'s' * (count > 1)}", "-1", count))
    before = os.environ.get(VISIBLE)
    numbers = before.split(",") if before else list(map(str, range(len(names))))
    for number, name in zip(numbers, names, strict=False):
        runs.append((f"GPU {number}, {name}", number, None))
    if len(names) > 1:
        runs.append((f"all {len(names)} GPUs", None, None))

    rows: list[Row] = []
    first: Any = None
    for name, devices, count in runs:
        with tempfile.TemporaryDirectory(dir=flags.output) as work, visible(devices):
            here = settings.model_copy(update={"threads": count})
            row: Row = {"device": name} | alone(train, examples, Path(work), here)
            vectors = np.load(Path(work) / "vectors.npy")
        first = vectors if first is None else first
        row |= difference(vectors, first) | score(examples, vectors, flags.eval)
        rows.append(row)
        print(row, flush=True)
    print("", markdown(rows), sep="\n")
    if not names:
        print("\nNo GPU was found: what is above says nothing of one.")
    by_kind: dict[str, set[str]] = {}
    for row in rows:
        by_kind.setdefault("CPU" if row["device"].startswith("CPU") else "GPU", set()).add(
            row["sha256"]
        )
    for kind, bits in by_kind.items():
        print(f"{kind}: {'the same bits each time' if len(bits) == 1 else 'BITS DIFFER'}")
    content = about(examples, settings=settings.model_dump(), gpus=names, driver=driver())
    write(flags.output / "device.json", content | {"rows": rows})


if __name__ == "__main__":
    main()
