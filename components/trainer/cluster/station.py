"""What the hands of one process share: one copy of the tables, and what they are trained on."""

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import threads
from components.artifacts import VOCABULARY, Examples, write_json
from components.errors import SkipstreamError
from components.places.place import Place, each, open_place
from components.settings import Chosen
from components.trainer import merge
from components.trainer.cluster import work
from components.trainer.dataset import SkipGrams
from components.trainer.merge import Delta, Directions, Floats
from components.trainer.shard import SUMS
from components.trainer.sharing import Sharing
from components.trainer.tables import Table
from components.trainer.training import Training
from components.trainer.workers import Workers

_stations: WeakValueDictionary[str, "Station"] = WeakValueDictionary()
_one_at_a_time = threading.Lock()


class GoneError(Exception):
    """A file is not there any more: the others are further on, and it is not needed."""


class OverError(Exception):
    """The training is over: its work directory is gone, and nothing may be written there."""


class _Packed(SkipGrams):
    """The training documents, out of the work directory."""

    def __init__(self, place: Place, examples: Examples, settings: Chosen) -> None:
        super().__init__(examples, settings)
        self._place = place

    def _blocks(self, blocks: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
        def read(block: str) -> npt.NDArray[np.int32]:
            place = work.place_of(int(block), self.tokens)
            return np.frombuffer(_there(self._place.read_range(*place)), "<i4")

        return each(read, [str(block) for block in blocks])


class Station:
    """A process's part in a training.

    Attributes:
        place: The work directory.
        data, training, schedule: What is done.
        snapshot: The parts of one.
        merged: See `work.merged_parts`.
        state: Of the tables; -1: they are to be loaded.
        devices: That no hand has.
    """

    def __init__(self, place: Place, content: bytes) -> None:
        """Load the newest state.

        Args:
            place: The work directory.
            content: Of its TRAINING.
        """
        facts = json.loads(content)
        settings = Chosen.model_validate(facts["settings"])
        with tempfile.TemporaryDirectory() as directory:
            examples = Examples(Path(directory), "")
            write_json(examples.path / "statistics.json", facts["statistics"])
            (examples.path / VOCABULARY).write_bytes(_there(place.read(VOCABULARY)))
            self.data = _Packed(place, examples, settings)
            sharing = Sharing.of(examples / VOCABULARY, settings)
        self.place, self.settings = place, settings
        vectors, contexts = (Table(self.data.types, settings.dimensions) for _ in "ab")
        if sharing:
            vectors = sharing.start
        self.training = Training(self.data, settings, vectors, contexts, sharing)
        self.schedule = work.Schedule.of(self.data, self.training)
        self.snapshot = work.snapshot_of(self.training.state)
        self.merged = work.merged_parts(self.training)
        self._workers = Workers(threads.devices("CPU"))
        self.devices: SimpleQueue[str] = SimpleQueue()
        for device in threads.devices("GPU") or threads.devices("CPU"):
            self.devices.put(device)
        self.state = -1
        self._users = 0
        self._changed = threading.Condition()
        # Of the round that leads on from the state.
        self._heads: list[work.Head] | None = None
        self._along: dict[int, Directions] = {}
        with self._changed:
            self._load()

    @classmethod
    def at(cls, address: str) -> "Station | None":
        """That of this process for a work directory; None: there is nothing to do any more."""
        with _one_at_a_time:
            if found := _stations.get(address):
                return found
            place = open_place(address)
            content = place.read(work.TRAINING)
            if content is None or place.has(work.STOP):
                return None
            threads.limit(json.loads(content)["settings"]["threads"])
            threads.make_devices()
            tf.config.experimental.enable_op_determinism()
            try:
                _stations[address] = made = cls(place, content)
            except (GoneError, OverError):
                if place.has(work.TRAINING):
                    raise
                return None
            return made

    def check(self) -> None:
        """To be called before anything is written.

        Raises:
            OverError: See there.
        """
        if not self.place.has(work.TRAINING):
            raise OverError

    @contextmanager
    def using(self, state: int) -> Iterator[None]:
        """Keep the tables in a state.

        Raises:
            GoneError: They are in another one.
        """
        with self._changed:
            if self.state != state:
                raise GoneError
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def advance(self, state: int) -> None:
        """Take over what the round moved, all of which is there; once, whoever calls."""
        with self._changed:
            if not self._free(state):
                return
            directory = work.round_directory(state)
            names = [f"{directory}/{name}" for name, _, _ in self.merged]
            try:
                moved = each(lambda name: _there(self.place.read(name)), names)
            except GoneError:
                self._load()
                return
            deltas = [work.read_delta(content, self.settings.dimensions) for content in moved]
            self._set(-1)  # A failure in the midst of it leaves tables of two states.
            with self.training.shared(self._of_table(0, deltas), self._workers):
                for table, rows in enumerate(self.training.tables):
                    for delta in self._of_table(table, deltas):
                        rows.rows[delta.ids] = delta.rows
            self._set(state + 1)

    def _of_table(self, table: int, deltas: Sequence[Delta]) -> list[Delta]:
        """Of merged parts those of a table."""
        return [delta for (_, of, _), delta in zip(self.merged, deltas, strict=True) if of == table]

    def catch_up(self, state: int) -> bool:
        """Load a newer state, where the others have come so far. Whether there was one."""
        newest = self._newest()
        with self._changed:
            if newest <= state or not self._free(state):
                return self.state != state
            self._load()
            return True

    def learn(self, state: int, shard: int, device: str) -> bytes:
        """What a shard finds in the round from `state`: the content of its file.

        Args:
            state: Of the tables.
            shard: Of the round.
            device: Which is in scope.
        """
        epoch, round_ = self.schedule.rounds[state]
        with self.using(state):
            # Text is cut on CPUs.
            with tf.device(device if "CPU" in device else "CPU:0"):
                rows = self.data.span(epoch, round_.first + shard * round_.blocks, round_.blocks)
            self.training.prepare([rows], self._workers)
            found = self.training.learn(epoch, round_, rows)
        return work.packed(found, self.training)

    def merge(self, state: int, index: int) -> bytes:
        """What a part of a table is after the round from `state`: the content of its file.

        The first part's comes with the record of the round.
        """
        _, table, _ = self.merged[index]
        dimensions = self.settings.dimensions
        directory = work.round_directory(state)
        shards = range(self.settings.shards)
        with self.using(state):
            heads = self._read_heads(state)

            def read(shard: str) -> Delta:
                start, size = work.range_of(heads[int(shard)], index, dimensions)
                name = f"{directory}/{work.shard_file(int(shard))}"
                content = _there(self.place.read_range(name, start, size)) if size else b""
                return work.read_delta(content, dimensions)

            deltas = each(read, [str(shard) for shard in shards])
            if len(deltas) == 1:
                moved = deltas[0]
            else:
                rows = self.training.tables[table].rows
                ids = [delta.ids for delta in deltas] if table == 0 else [self.training.probes]
                self.training.compose(ids, self._workers)
                moved = merged(rows, deltas, self._directions(state, table))
        if index == 0:
            record = {name: sum(getattr(head, name) for head in heads) for name in SUMS}
            self.check()
            self.place.write(work.record_file(state), json.dumps(record).encode())
        return work.packed_delta(moved)

    def rows(self, state: int, part: work.Part) -> bytes:
        """A part of the snapshot of a state."""
        with self.using(state):
            return self.training.state[part.table].rows[part.rows].astype("<f4").tobytes()

    def clean(self, state: int) -> None:
        """Remove what nobody needs who is in a state, whose snapshot is whole or not there."""
        if state and not self.schedule.is_kept(state - 1):
            return
        for kind in ("rounds", "tables"):
            for name in self.place.names(kind):
                # What an epoch ended with is for the launcher.
                stays = kind == "tables" and int(name) in self.schedule.ends
                if int(name) < state - 1 and not stays:
                    self.place.remove(f"{kind}/{name}")

    def _read_heads(self, state: int) -> list[work.Head]:
        with self._changed:
            if self._heads is None:
                size = work.head_bytes(len(self.merged))
                directory = work.round_directory(state)

                def read(name: str) -> work.Head:
                    content = self.place.read_range(f"{directory}/{name}", 0, size)
                    return work.read_head(_there(content))

                names = [work.shard_file(shard) for shard in range(self.settings.shards)]
                self._heads = each(read, names)
            return self._heads

    def _directions(self, state: int, table: int) -> Directions:
        with self._changed:
            if table not in self._along:
                self._along[table] = self.training.directions(table)
            return self._along[table]

    def _free(self, state: int) -> bool:
        """Wait until no hand uses the tables. False: then they are in another state."""
        self._changed.wait_for(lambda: not self._users or self.state != state)
        return self.state == state

    def _newest(self) -> int:
        """The newest state that there is a whole snapshot of."""
        wanted = {part.name for part in self.snapshot}
        for name in reversed(self.place.names("tables")):
            if name.isdecimal() and wanted <= set(self.place.names(f"tables/{name}")):
                return int(name)
        return -1

    def _load(self) -> None:
        """Load the newest snapshot.

        Raises:
            OverError: The training is over.
            SkipstreamError: There is none.
        """
        while True:
            state = self._newest()
            if state < 0:
                self.check()
                raise SkipstreamError(
                    "the work directory of a training must hold its tables, got "
                    f"{self.place.address} without: run again"
                )
            self._set(-1)  # Until all is loaded: a failure leaves tables of two states.
            try:
                load(self.place, state, self.training.state)
                self.training.restored()
            except GoneError:  # There is a newer one.
                continue
            self._set(state)
            return

    def _set(self, state: int) -> None:
        self.state, self._heads = state, None
        self._along.clear()
        self._changed.notify_all()


def load(place: Place, state: int, tables: Mapping[str, Table]) -> None:
    """Fill tables with a snapshot.

    Raises:
        GoneError: It is not there.
    """
    parts = {part.name: part for part in work.snapshot_of(tables)}

    def read(name: str) -> None:
        part = parts[name]
        rows = tables[part.table].rows[part.rows]
        content = _there(place.read(f"{work.state_directory(state)}/{name}"))
        rows[:] = np.frombuffer(content, "<f4").reshape(rows.shape)

    each(read, list(parts))


def merged(table: Floats, deltas: Sequence[Delta], along: Directions) -> Delta:
    """The rows that the shards named, and where they are moved to; the table stays as it is.

    The bits are those of `components.trainer.merge.merge`.

    Args:
        table: float32 [types, dimensions], from which the shards started.
        deltas: Of the shards, in their order.
        along: The directions of this table.
    """
    ids = np.unique(np.concatenate([delta.ids for delta in deltas]))
    rows = table[ids]
    numbered = [
        delta._replace(ids=np.searchsorted(ids, delta.ids).astype(np.int32)) for delta in deltas
    ]
    merge.merge(rows, numbered, along)
    return Delta(ids, rows, merge.paths(ids, deltas))


def _there(content: bytes | None) -> bytes:
    """The content of a file.

    Raises:
        GoneError: There is none.
    """
    if content is None:
        raise GoneError
    return content
