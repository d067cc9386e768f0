"""What each part of a round costs, and how fast training is on more cores, predicted and measured.

    make benchmark-cores CORPUS='corpus/*.gz' ARGS='--shards 1 2 16 64 --repeats 3'

For each number of shards a process with one thread goes through whole rounds and takes the CPU
seconds of every part:

- input: `SkipGrams.span`, from blocks of tokens to rows with noise words;
- gather: what `Training.learn` does around its program: it numbers rows anew and copies them;
- steps: the program;
- directions: `Training.directions` of both tables;
- merge: the rest of `Training.merge`;
- rest: Keras, callbacks and what else `train_step` does, once a round.

What a program takes to compile, once a training, is no part of it. Of several repeats the least
counts, as other work on the machine only adds.

Speed on n cores is predicted as the time of all rounds of a later epoch, laid one after the other:

    rest + held + directions / min(n, 2) + input / n + (gather + steps) x longest(n)
        + merge x ceil(parts / n) / parts

held: for how long the threads that share the work hold the interpreter's lock. It is measured by
another thread that always wants it, and taken out of the parts. That is more than it can cost,
as one thread may hold the lock while others compute. longest(n): the share of a round's steps that
the busiest thread has, when each takes the next shard as soon as it is free. The serial share is
(rest + held + directions / 2) of all CPU seconds. Not in it: that cores get slower when all are
busy, or share caches and memory. For that, the memory's traffic is given beside the speed, computed
from shapes: at least what a round gathers, gives back and merges; at most, as if no cache held the
compact tables, all that its steps look up and move, too.

Where the cores are, rounds are run on 1, 2, 4, ... threads, each in a process of its own.
"""

import contextlib
import io
import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from report import Row, about, examples_of, markdown, parser_for, write
from training import alone

from components import threads
from components.artifacts import Examples, Model
from components.settings import TrainerSettings

PARTS = ("input", "gather", "steps", "directions", "merge", "rest")
CORES = (1, 2, 4, 8, 16, 32, 64)
PROBED = 8  # Shards of a round in which the lock is watched.


class Clock:
    """CPU seconds of this process, by part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs meanwhile is `name`'s."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - start

    def watch(self, training: Any) -> list[Any]:
        """Take the times of a `Training`; what its shards find is put into the list.

        A shard whose program had to be compiled is trained once more.
        """
        from components.trainer import shard

        found: list[Any] = []
        program, learn = shard._train, training.learn

        def run_program(*args: Any, **kwargs: Any) -> Any:
            with self.part("steps"):
                return [tensor.numpy() for tensor in program(*args, **kwargs)]

        def learn_timed(*args: Any) -> Any:
            compiled, before = program.experimental_get_tracing_count(), self.seconds.copy()
            with self.part("learn"):
                result = learn(*args)
            if program.experimental_get_tracing_count() > compiled:
                spent = self.seconds["learn"] - before["learn"]
                self.seconds = before + Counter({"compile": spent})
                return learn_timed(*args)
            found.append(result)
            return result

        def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                with self.part(name):
                    return function(*args)

            return run

        shard._train, training.learn = run_program, learn_timed
        training.directions = timed("directions", training.directions)
        training.merge = timed("merges", training.merge)
        return found


class Lock:
    """Watches the interpreter's lock from a thread that always wants it. A context manager.

    Attributes:
        held: Seconds in which others had it.
    """

    @classmethod
    def least(cls, action: Callable[[], Any], times: int = 3) -> float:
        """`held` while something is done, the least of some times: others' work only adds."""
        found = []
        for _ in range(times):
            with cls() as lock:
                action()
            found.append(lock.held)
        return min(found)

    def __enter__(self) -> "Lock":
        self._stop = False
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(5e-4)
        self._thread = threading.Thread(target=self._want, daemon=True)
        self._thread.start()
        time.sleep(0.01)
        self._before = self._times()
        return self

    def __exit__(self, *_: object) -> None:
        wall, running, waiting = np.subtract(self._times(), self._before)
        self.held = max(0.0, wall - running - waiting)
        self._stop = True
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _want(self) -> None:
        while not self._stop:
            pass

    def _times(self) -> tuple[float, ...]:
        """Seconds on the wall, and of the thread on a CPU and in the queue for one."""
        stat = Path(f"/proc/self/task/{self._thread.native_id}/schedstat").read_text()
        return time.perf_counter(), *(int(part) / 1e9 for part in stat.split()[:2])


def set_up(examples: Examples, scratch: Path, settings: TrainerSettings) -> Any:
    """A model that is not trained yet; its data is `model.training.data`."""
    threads.limit(settings.threads)
    import tensorflow as tf

    threads.make_devices()
    from components.trainer import SkipGrams
    from components.trainer.model import SkipGram

    if len(threads.devices("CPU")) != settings.threads:
        raise RuntimeError(
            f"TensorFlow has {threads.devices('CPU')} for {settings.threads} threads"
        )
    tf.config.experimental.enable_op_determinism()
    data = SkipGrams(examples, settings, directory=scratch)
    data.unpack()
    return SkipGram(data, data.settings)


def cost(examples: Examples, scratch: Path, settings: TrainerSettings, words: int) -> Row:
    """CPU seconds a round by part, on one thread, and what else a prediction needs."""
    model = set_up(examples, scratch, settings)
    from components.trainer import model as models
    from components.trainer.rounds import BLOCK, Round, blocks_in

    training, data = model.training, model.training.data
    shards = data.settings.shards
    blocks = min(blocks_in(data.settings.round_tokens), data.blocks // shards)
    if not blocks:
        return {"skipped": f"{shards} shards need {shards} blocks, got {data.blocks}"}
    together = shards * blocks
    rounds = max(1, min(round(words / (together * BLOCK)), data.blocks // together))
    whole_plan = data.plan
    learn, merge, clock = training.learn, training.merge, Clock()

    data.plan = lambda _: [Round(index * together, blocks) for index in range(rounds)]
    for spans in data.spans(1).take(1):
        model.train_step(spans)  # What is compiled, and what memory is taken, is not counted.
    dataset = data.spans(1)
    with clock.part("input"):
        rounds_of_spans = list(dataset)
    found = clock.watch(training)
    steps: list[list[int]] = []
    named, union = np.zeros(2), np.zeros(2)
    for spans in rounds_of_spans:
        found.clear()
        with clock.part("round"):
            model.train_step(spans)
        steps.append([one.steps for one in found])
        for table in range(2):
            ids = [one.deltas[table].ids for one in found]
            named[table] += np.mean(list(map(len, ids))) / rounds
            union[table] += len(np.unique(np.concatenate(ids))) / rounds
    second = clock.seconds.copy()  # What follows is no part of it.
    once = second["round"] - second["learn"] - second["merges"] - second["compile"]

    some = models._shards(spans)[:PROBED]
    round_ = Round(int(spans.first[0]), blocks)
    watched: list[tuple[str, Callable[[], Any], float]] = [
        ("input", lambda: list(data.spans(1)), 1 / rounds),
        ("learn", lambda: [learn(1, round_, one) for one in some], shards / len(some)),
        ("merge", lambda: merge(found, model._mergers), 1.0),
    ]
    held = {name: share * Lock.least(action) for name, action, share in watched}
    data.plan = whole_plan
    keras = _keras_seconds(examples, scratch, model, spans)

    parts = {
        "input": second["input"],
        "gather": second["learn"] - second["steps"],
        "steps": second["steps"],
        "directions": second["directions"],
        "merge": second["merges"] - second["directions"],
        "rest": max(0.0, once) + keras * rounds,
    }
    return {
        "shards": shards,
        "blocks": blocks,
        "rounds": rounds,
        "round_words": together * BLOCK,
        "seconds": {name: value / rounds for name, value in parts.items()},
        "held": held,
        "merge_parts": training.parts(0) + training.parts(1) if shards > 1 else 1,
        "steps": steps,
        "plan": [one.blocks for one in data.plan(1)],
        "corpus_blocks": data.blocks,
        "rows_named": named.round().tolist(),
        "rows_union": union.round().tolist(),
        "bytes": _bytes(named, settings, models._shards(spans), together * BLOCK),
    }


def _bytes(
    named: Any, settings: TrainerSettings, shards: Sequence[Any], words: int
) -> dict[str, float]:
    """Bytes that go to or come from memory, for each corpus word.

    Args:
        named: Rows of the vectors and of the contexts that a shard names, float [2].
        settings: With the length of a row.
        shards: Pairs of all shards of a round.
        words: Of that round.
    """
    row = 4 * settings.dimensions
    pairs = sum(part.nbytes for one in shards for part in one)
    # To gather a row it is read and written. The program writes it back. To merge it, that and the
    # table are read, and the table written. Pairs are written once and read once.
    few = 6 * row * float(named.sum()) * len(shards) + 2 * pairs
    # A step's look-ups: targets, tokens, noise words. Each has a gradient that is written and read,
    # and moves a row that is read and written.
    looked_up = sum(one.left.size + one.tokens.size + one.noise.size for one in shards)
    return {"least": few / words, "most": (few + 5 * row * looked_up) / words}


def _keras_seconds(examples: Examples, scratch: Path, model: Any, spans: Any) -> float:
    """CPU seconds a round of Keras and the callbacks, in an epoch that does nothing else."""
    import tensorflow as tf

    from components.trainer import SkipGrams, trainer
    from components.trainer.callbacks import Progress

    class Nothing(SkipGrams):
        def spans(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensors(spans).repeat(len(self.plan(epoch)))

    def do_nothing(_: Any) -> dict[str, Any]:
        model._count(1.0, 1.0)
        return {"loss": model.pair_loss.result()}

    for table in model.tables.values():
        table.rows[:] = 0  # What rounds outside of a training do to them is no concern of guards.
    nothing, least = Nothing(examples, model.training.settings), math.inf
    model.train_step = do_nothing
    for repeat in range(3):
        path = scratch / f"keras-{repeat}"
        path.mkdir()
        progress = Progress(Model(path, "cores"), model, 60.0)
        with contextlib.redirect_stderr(io.StringIO()):
            start = time.process_time()
            trainer._fit_epoch(
                model, nothing, None, progress, model.training.settings, path / "logs", None
            )
            least = min(least, time.process_time() - start)
    return least / len(nothing.plan(0))


def longest_share(steps: Sequence[int], cores: int) -> float:
    """The share of all steps that the busiest of so many threads has.

    >>> longest_share([2, 2, 2], cores=2)  # The first one takes the third.
    0.6666666666666666
    """
    busy = [0] * cores
    for count in steps:
        busy[busy.index(min(busy))] += count
    return max(busy) / max(1, sum(steps))


def held_seconds(row: Row) -> float:
    """For how long a round's shared work holds the lock."""
    return float(sum(row["held"].values()))


def predicted(row: Row, cores: int) -> float:
    """Words a second on so many cores: see above."""
    part, held = row["seconds"], held_seconds(row)
    shared = part["input"] + part["gather"] + part["steps"] + part["merge"]
    free = 1 - min(1.0, held / shared)  # Of the lock.
    merge = part["merge"] * math.ceil(row["merge_parts"] / cores) / row["merge_parts"]
    once = part["rest"] + part["directions"] / min(2, cores)
    mean = np.mean([longest_share(steps, cores) for steps in row["steps"]])
    learned = part["gather"] + part["steps"]
    total = 0.0
    for length, left in zip(row["plan"], _left(row), strict=True):
        # At the end of an epoch some shards have less, or nothing.
        blocks = min(length * row["shards"], left)
        parts = [max(0, min(length, blocks - n * length)) for n in range(row["shards"])]
        share = mean if blocks == length * row["shards"] else longest_share(parts, cores)
        size = blocks / (row["blocks"] * row["shards"])
        work = part["input"] / cores + learned * share + merge
        total += once + size * (held + free * work)
    words = row["corpus_blocks"] / (row["blocks"] * row["shards"]) * row["round_words"]
    return float(words / total)


def _left(row: Row) -> list[int]:
    """Blocks of the epoch that are left before each round."""
    done = np.cumsum([0, *row["plan"][:-1]]) * row["shards"]
    return list(row["corpus_blocks"] - done)


def least(rows: Sequence[Row]) -> Row:
    """One row of several that measured the same: of each part the least seconds."""
    first = dict(rows[0])
    for key in ("seconds", "held"):
        first[key] = {name: min(row[key][name] for row in rows) for name in first[key]}
    return first


def speed(examples: Examples, scratch: Path, settings: TrainerSettings, words: int) -> Row:
    """Words a second of `fit` on as many threads as the settings say, from the second round on."""
    model = set_up(examples, scratch, settings)
    import keras

    from components.trainer.rounds import BLOCK

    data = model.training.data
    plan = data.plan(1)
    size = plan[0].blocks * data.settings.shards * BLOCK
    rounds = min(len(plan), 1 + max(1, round(words / size)))
    marks: list[tuple[float, float]] = []

    class Mark(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            marks.append((time.perf_counter(), time.process_time()))

    spans = data.spans(1).take(rounds)
    model.fit(spans, shuffle=False, verbose=0, callbacks=[Mark()])
    if len(marks) < 2:
        return {"skipped": "an epoch has but one round: give more text, or shorter rounds"}
    ends = [*(one.first for one in plan), data.blocks]
    done = (ends[rounds] - ends[1]) * BLOCK
    wall, cpu = np.subtract(marks[-1], marks[0])
    return {
        "words_per_second": round(float(done / wall)),
        "cpu_seconds_per_million": round(float(1e6 * cpu / done), 3),
    }


def figures(row: Row) -> Row:
    """CPU seconds a million words by part, and the serial share."""
    scale = 1e6 / row["round_words"]
    parts = {name: scale * row["seconds"][name] for name in PARTS}
    total = sum(parts.values())
    serial = parts["rest"] + parts["directions"] / 2 + scale * held_seconds(row)
    return {
        "shards": row["shards"],
        "round tokens": row["round_words"] // row["shards"],
        **parts,
        "all": total,
        "lock held": scale * held_seconds(row),
        "serial share": serial / total,
    }


def speeds(row: Row, cores: Sequence[int]) -> list[Row]:
    """Predicted words a second, times one core, and memory traffic in GB a second."""
    one = predicted(row, 1)
    return [
        {
            "shards": row["shards"],
            "cores": n,
            "words/s": predicted(row, n),
            "times one": predicted(row, n) / one,
            "GB/s at least": predicted(row, n) * row["bytes"]["least"] / 1e9,
            "at most": predicted(row, n) * row["bytes"]["most"] / 1e9,
        }
        for n in cores
    ]


def main() -> None:
    """Parse, measure, predict, print, and write the JSON."""
    parser = parser_for(__doc__.splitlines()[0], "cores")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--round-tokens", type=int, default=100_000, help="of a shard in a round")
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--words", type=int, default=3_000_000, help="to measure with, each time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=list(CORES))
    found = [1 << power for power in range(threads.cpus().bit_length())]
    parser.add_argument("--threads", type=int, nargs="*", default=found, help="to be measured")
    flags = parser.parse_args()
    examples = examples_of(flags)

    def settings(shards: int, count: int) -> TrainerSettings:
        return TrainerSettings(
            dimensions=flags.dimensions,
            epochs=2,
            sample=1e-4,
            shards=shards,
            round_tokens=flags.round_tokens,
            threads=count,
        )

    def run(what: Any, chosen: TrainerSettings) -> Row:
        with tempfile.TemporaryDirectory(dir=flags.output) as scratch:
            return alone(what, examples, Path(scratch), chosen, flags.words)

    costs: dict[int, list[Row]] = {}
    for _ in range(flags.repeats):
        for shards in flags.shards:
            row = run(cost, settings(shards, 1))
            if "skipped" in row:
                print(f"left out: {row['skipped']}")
                continue
            costs.setdefault(shards, []).append(row)
            print({name: round(v, 3) for name, v in figures(row).items()}, flush=True)
    rows = [least(found) for found in costs.values()]
    measured = []
    for shards in costs:
        for count in flags.threads:
            if shards > 1 or count == 1:
                result = run(speed, settings(shards, count))
                measured.append({"shards": shards, "threads": count} | result)
                print(measured[-1], flush=True)

    predictions = [one for row in rows for one in speeds(row, flags.cores)]
    by_cores = {(row["shards"], row["threads"]): row.get("words_per_second") for row in measured}
    for row in predictions:
        row["measured"] = by_cores.get((row["shards"], row["cores"]))
    print("\nCPU seconds a million words\n", markdown(list(map(figures, rows))), sep="\n")
    print(f"\nSpeed; this machine has {threads.cpus()} CPUs\n", markdown(predictions), sep="\n")
    if measured:
        print("\nMeasured\n", markdown(measured), sep="\n")
    bars = _bars({row["shards"]: row for row in rows})
    print("", *(f"{name}: {text}" for name, text in bars.items()), sep="\n")
    content = about(examples, settings=settings(1, 1).model_dump(exclude={"shards"}))
    content |= {"costs": rows, "parts": list(map(figures, rows)), "speeds": predictions}
    write(flags.output / "cores.json", content | {"measured": measured, "bars": bars})


def _bars(rows: dict[int, Row]) -> dict[str, str]:
    """What is asked of 16 shards."""
    if not {2, 16} <= set(rows):
        return {}
    few, many = figures(rows[2]), figures(rows[16])
    times = predicted(rows[16], 16) / predicted(rows[16], 1)
    return {
        "CPU seconds a word, 16 shards to 2": f"{many['all'] / few['all']:.3f} (at most 1.1)",
        "serial share at 16 shards": f"{100 * many['serial share']:.1f} % (at most 5)",
        "16 cores, times one": f"{times:.1f} (at least 9)",
    }


if __name__ == "__main__":
    main()
