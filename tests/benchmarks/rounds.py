"""Trains with shards x tokens of a round, and with other merges; prints losses and scores.

    make benchmark-rounds CORPUS='corpus/*.gz' ARGS='--epochs 1 3 --seeds 1 2 --eval eval/*'

The merges beside ours (`components.trainer.merge`):

- mean: of the shards that trained a row, as Spark's Word2Vec;
- sum: of their moves;
- adasum: by row, in a tree over the shards in their order (Maleki et al., "Scaling Distributed
  Training with Adaptive Summation", 2020): a (1 - a.b / 2 a.a) + b (1 - a.b / 2 b.b).

A training that diverges is a result, and is told as one. Rows that are in the report already are
not trained again: the same command goes on behind them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from report import Row, about, examples_of, markdown, parser_for, write
from scoring import score
from training import alone, train_skipstream

from components import threads
from components.artifacts import Examples
from components.defaults import chosen
from components.errors import NotBlessedError
from components.settings import TrainerSettings

Floats = npt.NDArray[np.float32]
# The moves of the shards that trained them, float32 [shards, rows, dimensions], zero where one did
# not, and how many did, float32 [rows, 1] -> the moves of the rows.
Rule = Callable[[Floats, Floats], Floats]


def mean(moves: Floats, shards: Floats) -> Floats:
    """Of those that trained a row.

    >>> mean(np.array([[[2, 0]], [[4, 2]], [[0, 0]]], np.float32), np.array([[2]])).tolist()
    [[3.0, 1.0]]
    """
    return np.asarray(moves.sum(0) / np.maximum(shards, 1))


def total(moves: Floats, _: Floats) -> Floats:
    """The sum."""
    return np.asarray(moves.sum(0))


def adasum(moves: Floats, _: Floats) -> Floats:
    """Pairwise, in a tree: orthogonal moves add up, equal ones count once.

    >>> adasum(np.array([[[1, 0]], [[0, 1]]], np.float32), np.ones(1)).tolist()
    [[1.0, 1.0]]
    >>> adasum(np.array([[[1, 2]], [[1, 2]]], np.float32), np.ones(1)).tolist()
    [[1.0, 2.0]]
    """
    left = list(moves)
    while len(left) > 1:
        pairs = [left[index : index + 2] for index in range(0, len(left), 2)]
        left = [_adasum(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return left[0]


def _adasum(one: Floats, other: Floats) -> Floats:
    dot = np.einsum("rd,rd->r", one, other)
    weights = (
        1 - dot / np.maximum(2 * np.einsum("rd,rd->r", move, move), 1e-20) for move in (one, other)
    )
    first, second = (weight[:, np.newaxis] for weight in weights)
    return np.asarray(one * first + other * second, np.float32)


MERGES: dict[str, Rule | None] = {"ours": None, "mean": mean, "sum": total, "adasum": adasum}


def merge_by(rule: Rule) -> Callable[..., None]:
    """What takes the place of `components.trainer.merge.merge`."""

    def merge(table: Floats, deltas: Sequence[Any], _: Any) -> None:
        ids = np.unique(np.concatenate([delta.ids for delta in deltas]))
        before = table[ids]
        moves = np.zeros((len(deltas), *before.shape), np.float32)
        shards = np.zeros((len(ids), 1), np.float32)
        for move, delta in zip(moves, deltas, strict=True):
            places = np.searchsorted(ids, delta.ids)
            move[places] = delta.rows - before[places]
            shards[places] += 1
        with np.errstate(all="ignore"):  # It may diverge.
            table[ids] = before + rule(moves, shards)

    return merge


def train(examples: Examples, work: Path, settings: TrainerSettings, name: str) -> Row:
    """One training in this process, which it changes for good."""
    threads.limit(settings.threads)
    from components.trainer import merge

    rule = MERGES[name]
    if rule:
        merge.merge = merge_by(rule)
    try:
        return train_skipstream(examples, work, settings)
    except NotBlessedError as error:
        return {"diverged": str(error).split(";")[0].removeprefix("training diverged: ")}


def means(rows: Sequence[Row]) -> list[Row]:
    """A row for each setting: of numbers the mean over its seeds."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(json.dumps(row["setting"]), []).append(row)
    found = []
    for same in kinds.values():
        line = dict(same[0]["setting"]) | {"seeds": len(same)}
        for name in dict.fromkeys(name for row in same for name in row):
            values = [row[name] for row in same if row.get(name) is not None]
            if name not in ("setting", "seed", "diverged") and values:
                line[name] = float(np.mean(values))
        if reasons := [row["diverged"] for row in same if "diverged" in row]:
            line["diverged"] = f"{len(reasons)} of {len(same)}: {reasons[0]}"
        found.append(line)
    return found


def main() -> None:
    """Parse, train, print, and write the JSON."""
    parser = parser_for(__doc__.splitlines()[0], "rounds")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--round-tokens", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--merges", nargs="+", default=list(MERGES), choices=list(MERGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--sample", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, help="unset: one for each CPU")
    parser.add_argument("--eval", type=Path, nargs="*", default=[], help="pairs, analogies")
    flags = parser.parse_args()
    examples = examples_of(flags)
    base = TrainerSettings(dimensions=flags.dimensions, sample=flags.sample, threads=flags.threads)
    what: Row = {
        "fingerprint": examples.fingerprint,
        "settings": base.model_dump(exclude={"threads"}),
    }

    kinds: list[Row] = []
    for epochs in flags.epochs:
        for shards in flags.shards:
            for tokens in flags.round_tokens:
                for name in flags.merges:
                    kind = {"epochs": epochs, "shards": shards, "round tokens": tokens}
                    # One shard has nothing to merge, and its rounds nothing to lose.
                    if shards == 1:
                        kind["round tokens"], name = max(flags.round_tokens), "none"
                    kind["merge"] = name
                    if kind not in kinds:
                        kinds.append(kind)

    report = flags.output / "rounds.json"
    rows: list[Row] = []
    if report.exists():
        before = json.loads(report.read_text())
        rows = before["rows"] if all(before.get(key) == what[key] for key in what) else []
    for seed in flags.seeds:
        for kind in kinds:
            if any(row["setting"] == kind and row["seed"] == seed for row in rows):
                continue
            settings = base.model_copy(
                update={
                    "epochs": kind["epochs"],
                    "shards": kind["shards"],
                    "round_tokens": kind["round tokens"],
                    "seed": seed,
                }
            )
            work = Path(tempfile.mkdtemp(dir=flags.output))
            name = kind["merge"] if kind["shards"] > 1 else "ours"
            row = {"setting": kind, "seed": seed} | alone(train, examples, work, settings, name)
            if "diverged" not in row:
                row |= score(examples, np.load(work / "vectors.npy"), flags.eval)
            shutil.rmtree(work)
            rows.append(row)
            print(json.dumps(row), flush=True)
            report.write_text(json.dumps(about(examples, **what) | {"rows": rows}, indent=2) + "\n")

    wanted = [row for row in rows if row["setting"] in kinds]
    default = chosen(base.model_copy(update={"epochs": flags.epochs[0]}), examples)
    print(
        f"\nUnset, {flags.epochs[0]} epochs of this corpus are cut into {default.shards} shards of "
        f"{default.round_tokens:,} tokens\n",
        markdown(means(wanted)),
        sep="\n",
    )
    write(report, about(examples, **what) | {"rows": rows, "means": means(wanted)})


if __name__ == "__main__":
    main()
