"""What lies in the work directory of a training.

    training.json            settings and sizes; written last of all that hands start from
    vocabulary.tsv           of the examples
    tokens/N                 TOKEN_BLOCKS blocks of int32 token ids each, the last one of a document
                             as ~id
    tables/STATE/NAME-PART   float32 rows of a table: a snapshot
    rounds/ROUND/shard-N     what a shard found, cut as the merge is
    rounds/ROUND/NAME-PART   the rows of a part that the round moved, and where they went to; what
                             the round's words share with their n-grams, each process adds itself
    rounds/ROUND/claim-FILE  who says to be making that file; only to spare the others the work
    records/ROUND            loss, pairs and steps
    stop                     all is done, or nothing more is wanted

Round N leads from state N of the tables to state N + 1; rounds are counted through all epochs.
Numbers are little-endian.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.trainer.dataset import SkipGrams
from components.trainer.merge import Delta
from components.trainer.rounds import BLOCK, Round
from components.trainer.shard import Found
from components.trainer.tables import Table
from components.trainer.training import Training

TRAINING = "training.json"
STOP = "stop"
TOKEN_BLOCKS = 2**22 // BLOCK  # 16 MiB, at 4 bytes a token.
_TABLE_BYTES = 2**24  # Of a part of a snapshot.
_LEAST_ROUNDS = 8  # Between two snapshots.


def token_file(number: int) -> str:
    """The name of a file of tokens."""
    return f"tokens/{number:06d}"


def place_of(block: int, tokens: int) -> tuple[str, int, int]:
    """Where a block of the corpus lies: a file, its first byte there, and its size in bytes.

    >>> block = TOKEN_BLOCKS + 1
    >>> place_of(block, tokens=block * BLOCK + 10) == ("tokens/000001", 4 * BLOCK, 40)
    True
    """
    size = min(BLOCK, tokens - block * BLOCK)
    return token_file(block // TOKEN_BLOCKS), 4 * BLOCK * (block % TOKEN_BLOCKS), 4 * size


def state_directory(state: int) -> str:
    """Where a snapshot of the tables lies."""
    return f"tables/{state:06d}"


def round_directory(round_: int) -> str:
    """Where the files of a round lie."""
    return f"rounds/{round_:06d}"


def record_file(round_: int) -> str:
    """What is said of a round that is done."""
    return f"records/{round_:06d}"


def shard_file(shard: int) -> str:
    """In the directory of a round, what a shard found."""
    return f"shard-{shard:04d}"


@dataclass(frozen=True)
class Schedule:
    """All rounds of a training, and the states of the tables between them.

    Attributes:
        rounds: Each with its epoch.
        ends: The state at the end of each epoch.
        every: Rounds from a snapshot to the next one.
    """

    rounds: Sequence[tuple[int, Round]]
    ends: Sequence[int]
    every: int

    @classmethod
    def of(cls, data: SkipGrams, training: Training) -> "Schedule":
        """A function of settings and corpus, as the rounds are."""
        plans = [data.plan(epoch) for epoch in range(training.settings.epochs)]
        rounds = [(epoch, one) for epoch, plan in enumerate(plans) for one in plan]
        moved = training.settings.shards * training.named
        # Who begins anew reads about as much of moved rows as of tables.
        every = max(_LEAST_ROUNDS, 2 * data.types // max(1, moved))
        return cls(rounds, np.cumsum([len(plan) for plan in plans]).tolist(), every)

    def is_kept(self, state: int) -> bool:
        """Whether there is a snapshot of a state: of some, and where an epoch ends."""
        return state % self.every == 0 or state in self.ends


class Part(NamedTuple):
    """Of a snapshot.

    Attributes:
        name: Of its file.
        table: See `Training.state`.
        rows: Which.
    """

    name: str
    table: str
    rows: slice


def snapshot_of(tables: Mapping[str, Table]) -> list[Part]:
    """What a snapshot of the tables consists of."""
    sizes = {name: table.types for name, table in tables.items()}
    return snapshot_parts(sizes, next(iter(tables.values())).dimensions)


def snapshot_parts(sizes: Mapping[str, int], dimensions: int) -> list[Part]:
    """The same, of tables with so many rows.

    >>> [part.name for part in snapshot_parts({"vectors": 50_000}, dimensions=100)]
    ['vectors-0000', 'vectors-0001']
    """
    rows = max(1, _TABLE_BYTES // (4 * dimensions))
    return [
        Part(f"{name}-{start // rows:04d}", name, slice(start, min(start + rows, size)))
        for name, size in sizes.items()
        for start in range(0, size, rows)
    ]


def merged_parts(training: Training) -> list[tuple[str, int, int]]:
    """What a round is merged in: the file, the table, and the part of that.

    In the order in which the parts of a shard's file follow each other.
    """
    return [
        (f"{name}-{part:04d}", table, part)
        for table, name in enumerate(("vectors", "contexts"))
        for part in range(training.parts(table))
    ]


class Head(NamedTuple):
    """What the file of a shard begins with.

    Attributes:
        loss, pairs, steps: See `Found`.
        starts: int64 [parts + 1] how many rows lie before each part.
    """

    loss: float
    pairs: float
    steps: int
    starts: npt.NDArray[np.int64]


def head_bytes(parts: int) -> int:
    """How long it is."""
    return 8 * (3 + parts)


def packed(found: Found, training: Training) -> bytes:
    """The file of a shard: a `Head`, and behind it the ids, paths and rows of each part."""
    deltas = [
        training.part_of(found.deltas[table], table, part)
        for _, table, part in merged_parts(training)
    ]
    sums = np.array([found.loss, found.pairs], "<f8")
    counts = np.array([found.steps, *(len(delta.ids) for delta in deltas)], "<i8")
    return b"".join([sums.tobytes(), counts.tobytes(), *map(packed_delta, deltas)])


def packed_delta(delta: Delta) -> bytes:
    """A part of what a shard found, or the file of a merged part."""
    # Paths before rows: all that is short comes first.
    floats = (array.astype("<f4").tobytes() for array in (delta.paths, delta.rows))
    return b"".join([delta.ids.astype("<i4").tobytes(), *floats])


def read_head(content: bytes) -> Head:
    """Take a head apart."""
    loss, pairs = np.frombuffer(content, "<f8", 2).tolist()
    steps, *counts = np.frombuffer(content, "<i8", offset=16).tolist()
    return Head(loss, pairs, steps, np.cumsum([0, *counts]))


def range_of(head: Head, index: int, dimensions: int) -> tuple[int, int]:
    """Where a part lies in the file of a shard: its first byte, and its size in bytes."""
    before, behind = head.starts[index : index + 2].tolist()
    row = 4 * (2 + dimensions)
    return head_bytes(len(head.starts) - 1) + before * row, (behind - before) * row


def read_delta(content: bytes, dimensions: int) -> Delta:
    """What `packed_delta` made."""
    count = len(content) // (4 * (2 + dimensions))
    ids = np.frombuffer(content, "<i4", count)
    paths = np.frombuffer(content, "<f4", count, 4 * count)
    rows = np.frombuffer(content, "<f4", offset=8 * count).reshape(count, dimensions)
    return Delta(ids, rows, paths)
