"""What a training sends on a cluster, how long it takes and what it costs, by arithmetic.

    make benchmark-cluster CORPUS='corpus/*.gz' ARGS='--price 0.07'

docs/scaling.md states the formulas. Rows that shards name are counted in the corpus, and computed
for it and for made-up vocabularies by Zipf's law: what a shard of n tokens names is a row of
expected count x with the probability 1 - exp(-x). What a core trains, what a link carries and what
an hour costs are flags; with the report of benchmark-cores, one machine's hours are told, too.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from report import Row, about, examples_of, markdown, parser_for, write
from training import alone

from components import threads
from components.artifacts import Examples
from components.defaults import keep_probability
from components.settings import TrainerSettings

Floats = npt.NDArray[np.float64]

SHARDS = 16  # Whose union is counted.
MERGED_ROWS = 4096  # Rows of a shard in a part of the merge: components.trainer.training.
AT_A_TIME = 16  # Requests of a hand: components.places.
SNAPSHOT_ROUNDS = 8  # From one to the next, at least: components.trainer.cluster.


class Named(NamedTuple):
    """Rows of the vectors and of the contexts."""

    vectors: float
    contexts: float


def expected(shares: Floats, settings: TrainerSettings, noise: float, tokens: float) -> Named:
    """The rows that so many corpus tokens name.

    Args:
        shares: Of each word among the tokens, float64 [types].
        settings: What is kept, and what noise words follow.
        noise: Noise words for each target.
        tokens: How many.
    """
    assert settings.sample
    left = tokens * shares * keep_probability((shares * 1e12).astype(np.int64), settings.sample)
    weights = shares**settings.noise_exponent
    drawn = left.sum() * noise * weights / weights.sum()
    return Named(-np.expm1(-left).sum(), -np.expm1(-left - drawn).sum())


def zipf(types: int) -> Floats:
    """Shares by the law of Zipf."""
    shares = 1 / np.arange(1, types + 1)
    return np.asarray(shares / shares.sum())


def count(
    examples: Examples, scratch: Path, settings: TrainerSettings, tokens: Sequence[int]
) -> Row:
    """The rows that shards of the corpus name: measured, and expected."""
    threads.limit(None)
    from components.trainer import SkipGrams
    from components.trainer.dataset import GROUP, noise_words
    from components.trainer.rounds import BLOCK, Round

    data = SkipGrams(examples, settings, directory=scratch)
    noise = noise_words(settings) / GROUP
    rows: list[Row] = []
    for number in tokens:
        blocks = round(number / BLOCK)
        if blocks * SHARDS > data.blocks:
            continue
        data.plan = lambda _, blocks=blocks: [Round(0, blocks)]
        (spans,) = data.spans(1)
        window = settings.window
        found: list[list[Any]] = [[], []]
        for shard, length in enumerate(spans.count.numpy()):
            words = spans.rows.tokens[shard, :length].numpy()
            drawn = spans.rows.noise[shard, :length].numpy()
            found[0].append(np.unique(words[:, window:-window]))
            found[1].append(np.union1d(words, drawn))
        one = Named(*(float(np.mean([len(ids) for ids in part])) for part in found))
        union = Named(*(float(len(np.unique(np.concatenate(part)))) for part in found))
        shares = data.counts / data.counts.sum()
        kinds = {
            "the corpus, counted": (one, union),
            "the corpus, expected": _both(shares, settings, noise, blocks * BLOCK),
            "Zipf, as many types": _both(zipf(data.types), settings, noise, blocks * BLOCK),
        }
        for name, (single, joint) in kinds.items():
            rows.append(_line(name, data.types, blocks * BLOCK, single, joint, settings))
    return {"rows": rows, "noise": noise}


def _both(shares: Floats, settings: TrainerSettings, noise: float, tokens: int) -> tuple[Any, Any]:
    return (
        expected(shares, settings, noise, tokens),
        expected(shares, settings, noise, SHARDS * tokens),
    )


def _line(
    name: str, types: int, tokens: int, one: Named, union: Named, settings: TrainerSettings
) -> Row:
    return {
        "text": name,
        "types": types,
        "tokens a shard": tokens,
        "vectors": round(one.vectors),
        "contexts": round(one.contexts),
        "MB up": up_bytes(one, settings.dimensions) / 1e6,
        f"vectors of {SHARDS} shards": round(union.vectors),
        f"contexts of {SHARDS}": round(union.contexts),
        "MB moved": moved_bytes(union, settings.dimensions) / 1e6,
    }


def up_bytes(named: Named, dimensions: int) -> float:
    """What a shard found: of each row an id, a path and the numbers."""
    return 4 * (dimensions + 2) * sum(named)


def moved_bytes(named: Named, dimensions: int) -> float:
    """What a round moved: of each row an id and the numbers."""
    return 4 * (dimensions + 1) * sum(named)


class Machine(NamedTuple):
    """A worker: a process with a copy of the tables, and a hand for each core.

    Attributes:
        cores: How many.
        words: That each trains in a second.
        link: Bytes a second that it sends or receives.
        wait: Seconds of a request.
        look: Seconds until it sees that others are done.
        merge: CPU seconds for each row and shard that is merged.
        price: Of a core's hour.
    """

    cores: int
    words: float
    link: float
    wait: float
    look: float
    merge: float
    price: float


def cluster(
    corpus: int,
    shares: Floats,
    workers: int,
    together: int,
    machine: Machine,
    settings: TrainerSettings,
    noise: float,
) -> Row:
    """One epoch on so many workers.

    Args:
        corpus: Tokens.
        shares: Of each word.
        workers: How many.
        together: Tokens of a round.
        machine: Each worker.
        settings: Of the training.
        noise: Noise words for each target.
    """
    hands = workers * machine.cores
    shards = max(32, hands)
    tokens = together // shards
    one = expected(shares, settings, noise, tokens)
    up = up_bytes(one, settings.dimensions)
    moved = moved_bytes(expected(shares, settings, noise, together), settings.dimensions)
    turns = math.ceil(shards / hands)
    parts = sum(max(1, round(rows / MERGED_ROWS)) for rows in one)
    merges = math.ceil(parts / hands)
    merging = min(workers, parts)  # Workers.
    tables = 2 * 4 * settings.dimensions * len(shares)
    every = max(SNAPSHOT_ROUNDS, 2 * len(shares) // round(shards * sum(one)))
    # A hand lists, claims, reads and writes; of the shards it reads heads and slices.
    batches = math.ceil(shards / AT_A_TIME)
    requests = 4 * turns + (3 + 2 * batches) * merges + 1 + math.ceil(parts / AT_A_TIME)
    seconds = {
        "train": turns * tokens / machine.words,
        "up": math.ceil(shards / workers) * up / machine.link,
        "merge": shards * up / merging / machine.link
        + shards * machine.merge * sum(one) * merges / parts,
        "down": (moved / merging + moved) / machine.link,
        "snapshot": tables / every / workers / machine.link,
        "waits": requests * machine.wait + 2 * machine.look,
    }
    rounds = corpus / together
    whole = sum(seconds.values())
    hours = rounds * whole / 3600
    alone_hours = corpus / machine.words / 3600
    return {
        "tokens": f"{corpus / 1e9:g} B",
        "types": len(shares),
        "workers": workers,
        "shards x tokens": f"{shards} x {tokens:,}",
        "rounds": math.ceil(rounds),
        "MB up a shard": up / 1e6,
        "MB to a worker": (shards * up / merging + moved) / 1e6,
        **{f"{name} s": value for name, value in seconds.items()},
        "round s": whole,
        "hours an epoch": hours,
        "times one core": alone_hours / hours,
        "cost": hours * hands * machine.price,
    }


def one_machine(report: Path, corpora: Sequence[int]) -> list[Row]:
    """Hours of an epoch by cores, from what benchmark-cores predicts."""
    best: dict[int, Row] = {}
    for row in json.loads(report.read_text())["speeds"]:
        if row["words/s"] > best.get(row["cores"], {"words/s": 0})["words/s"]:
            best[row["cores"]] = row
    return [
        {"cores": cores, "shards": row["shards"], "words/s": row["words/s"]}
        | {f"hours, {size / 1e9:g} B": size / row["words/s"] / 3600 for size in corpora}
        | {"GB/s at least": row["GB/s at least"], "at most": row["at most"]}
        for cores, row in best.items()
    ]


def main() -> None:
    """Parse, count, compute, print, and write the JSON."""
    parser = parser_for(__doc__.splitlines()[0], "cluster")
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--shard-tokens", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[10**9, 10**11])
    parser.add_argument("--types", type=int, nargs="+", default=[100_000, 2_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument(
        "--together", type=int, nargs="+", default=[3_200_000, 32_000_000], help="tokens of a round"
    )
    parser.add_argument("--cores", type=int, default=1, help="of a worker")
    parser.add_argument("--words", type=float, default=900_000, help="a core trains in a second")
    parser.add_argument("--link", type=float, default=100e6, help="bytes a second of a worker")
    parser.add_argument("--wait", type=float, default=0.05, help="seconds of a request")
    parser.add_argument("--look", type=float, default=0.3, help="seconds until others are seen")
    parser.add_argument("--merge", type=float, default=2.5e-7, help="CPU seconds a row and shard")
    parser.add_argument("--price", type=float, default=0.07, help="of a core's hour")
    parser.add_argument("--machine", type=Path, help="the report of benchmark-cores")
    flags = parser.parse_args()
    examples = examples_of(flags)
    settings = TrainerSettings(dimensions=flags.dimensions, sample=1e-4, epochs=2, shards=SHARDS)
    machine = Machine(*(getattr(flags, name) for name in Machine._fields))

    with tempfile.TemporaryDirectory(dir=flags.output) as scratch:
        counted = alone(count, examples, Path(scratch), settings, flags.shard_tokens)
    rows, noise = counted["rows"], counted["noise"]
    for types in flags.types:
        for tokens in flags.shard_tokens:
            both = _both(zipf(types), settings, noise, tokens)
            rows.append(_line("Zipf", types, tokens, *both, settings))
    print("\nRows that are named, and what they weigh\n", markdown(rows), sep="\n")
    clusters = [
        cluster(tokens, zipf(types), workers, together, machine, settings, noise)
        for together in flags.together
        for tokens in flags.tokens
        for types in flags.types
        for workers in flags.workers
    ]
    print(f"\nOn a cluster: {machine}\n", markdown(clusters), sep="\n")
    machines = one_machine(flags.machine, flags.tokens) if flags.machine else []
    if machines:
        print("\nOn one machine, predicted\n", markdown(machines), sep="\n")
    content = about(examples, settings=settings.model_dump(), machine=machine._asdict())
    content |= {"named": rows, "clusters": clusters, "machines": machines}
    write(flags.output / "cluster.json", content)


if __name__ == "__main__":
    main()
