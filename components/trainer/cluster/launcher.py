"""What the process does that asked for a training on a cluster."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import keras

from components import errors
from components.artifacts import VOCABULARY, Examples
from components.errors import SkipstreamError
from components.places.place import Place, each, open_place
from components.settings import Chosen
from components.trainer.callbacks import Progress
from components.trainer.cluster import work
from components.trainer.cluster.hand import PATIENCE
from components.trainer.cluster.job import Job
from components.trainer.cluster.station import load
from components.trainer.dataset import SkipGrams
from components.trainer.model import SkipGram

T = TypeVar("T")

_PAUSES = 0.05, 1.0  # Seconds between two looks, as in `hand`.
_UPLOADS = 4  # Files of tokens, at a time: 64 MiB of memory.
_GRACE = 60.0  # Seconds for the hands to see that they are not wanted any more.

_logger = logging.getLogger(__name__)


class Cluster:
    """A training that a Beam job does."""

    def __init__(
        self,
        address: str,
        flags: Sequence[str],
        model: SkipGram,
        train: SkipGrams,
        settings: Chosen,
        patience: float = PATIENCE,
    ) -> None:
        """Nothing runs yet.

        Args:
            address: The work directory.
            flags: Of Beam.
            model: Receives the tables of each epoch.
            train: What is trained on.
            settings: Of the algorithm.
            patience: See `hand.work_at`.

        Raises:
            SettingsError: Beam refuses its options.
        """
        self._job = Job(flags, address)
        self._place = open_place(address, "transform.work_directory")
        self._model, self._train, self._settings = model, train, settings
        self._patience = patience
        self._schedule = work.Schedule.of(train, model.training)
        self._read: dict[int, Any] = {}
        self._before = 0  # Rounds that were done when the job was started last.
        self._error: BaseException | None = None
        self._waits = threading.Thread()

    @contextmanager
    def running(self, examples: Examples, progress: Progress) -> Iterator[None]:
        """Run the job while the block lasts; it ends when the training does, or is stopped.

        Args:
            examples: What is trained on.
            progress: Where the model's tables are.
        """
        self._prepare(examples, self._state(progress))
        self._start()
        try:
            yield
        except BaseException:
            self._place.write(work.STOP, b"")
            self._waits.join(_GRACE)
            self._job.cancel()
            raise
        self._place.write(work.STOP, b"")
        self._waits.join()

    def fit_epoch(
        self,
        progress: Progress,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, list[float]]:
        """Follow what is left of an epoch; the model has its tables then.

        Args:
            progress: Which epoch.
            callbacks: Hear of rounds and of the end.

        Returns:
            As the history of `fit`: loss and val_loss.
        """
        model, epoch = self._model, progress.epoch
        state, end = self._state(progress), self._schedule.ends[epoch]
        model.reset_metrics()
        for callback in (progress, *callbacks):
            callback.on_epoch_begin(epoch)
        logs = {"loss": float(model.pair_loss.result())}
        self._catch_up()
        for round_ in range(state, end):
            record = self._await(partial(self._record, round_))
            model.finish_round(*self._schedule.rounds[round_], record)
            logs["loss"] = float(model.pair_loss.result())
            for callback in callbacks:
                callback.on_train_batch_end(round_, logs)
        self._await(lambda: self._is_whole(end))
        load(self._place, end, model.tables)
        model.training.restored()
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)
        return {name: [value] for name, value in logs.items()}

    def clean_up(self) -> None:
        """Remove the work directory."""
        remove(self._place)

    def _state(self, progress: Progress) -> int:
        return int(([0, *self._schedule.ends])[progress.epoch]) + progress.round

    def _prepare(self, examples: Examples, state: int) -> None:
        """Write what the hands start from, unless it is there."""
        place = self._place
        if (content := place.read(work.TRAINING)) and json.loads(content)["first"] <= state:
            place.remove(work.STOP)
            return
        remove(place)
        self._train.unpack()
        packed, one_at_a_time = enumerate(self._train.packed(work.TOKEN_BLOCKS)), threading.Lock()

        def upload(_: str) -> None:
            with one_at_a_time:
                number, content = next(packed)
            place.write(work.token_file(number), content)

        files = -(-self._train.blocks // work.TOKEN_BLOCKS)
        each(upload, [work.token_file(number) for number in range(files)], _UPLOADS)
        tables = self._model.tables
        parts = {part.name: part for part in work.snapshot_of(tables)}

        def write(name: str) -> None:
            part = parts[name]
            content = tables[part.table].rows[part.rows].astype("<f4").tobytes()
            place.write(f"{work.state_directory(state)}/{name}", content)

        each(write, list(parts))
        place.write(VOCABULARY, (examples / VOCABULARY).read_bytes())
        split = examples.statistics["splits"]["train"]
        sizes = {name: split[name] for name in ("documents", "kept_tokens")}
        facts = {
            "settings": self._settings.model_dump(mode="json"),
            "statistics": {"splits": {"train": sizes}},
            "first": state,
        }
        place.write(work.TRAINING, json.dumps(facts).encode())

    def _start(self) -> None:
        """Run the job, and wait for its end in another thread."""
        self._before = len(self._records())
        self._error = None
        wait = self._job.start(self._settings.shards, self._patience)

        def work() -> None:
            try:
                wait()
            except BaseException as error:
                self._error = error

        self._waits = threading.Thread(target=work, daemon=True)
        self._waits.start()

    def _await(self, look: Callable[[], T | None]) -> T:
        """What `look` finds, once that is something.

        A job that fails is started again, as long as it comes further each time.

        Raises:
            SkipstreamError: The job has ended without.
        """
        pause = _PAUSES[0]
        while True:
            ended = not self._waits.is_alive()
            if found := look():
                return found
            if ended and self._error and len(self._records()) > self._before:
                text = " ".join(str(self._mistake() or self._error).split())[:200]
                _logger.warning("the Beam job of the training starts again: %s", text)
                self._start()
            elif ended:
                raise self._mistake() or self._error or self._unfinished()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _unfinished(self) -> SkipstreamError:
        """Of a job that has ended without a failure."""
        if self._records():
            return SkipstreamError(
                "the Beam job must end after the training, and has ended before it, as one that "
                "is cancelled or drained: run the same command again, which goes on from there"
            )
        return SkipstreamError(
            f"workers and launcher must see the same files, and {self._place.address} holds "
            "nothing of the workers': set transform.work_directory to a place that both see"
        )

    def _mistake(self) -> SkipstreamError | None:
        """What of the job's failure the user can mend."""
        return errors.from_beam(self._error) if isinstance(self._error, Exception) else None

    def _record(self, round_: int) -> dict[str, float] | None:
        if round_ not in self._read and (content := self._place.read(work.record_file(round_))):
            self._read[round_] = json.loads(content)
        return self._read.get(round_)

    def _catch_up(self) -> None:
        """Read the records that are there, many at a time: later, they come one by one."""
        names = [name for name in self._records() if int(name) not in self._read]
        found = each(lambda name: self._place.read(f"records/{name}"), names)
        for name, content in zip(names, found, strict=True):
            if content:
                self._read[int(name)] = json.loads(content)

    def _records(self) -> list[str]:
        return [name for name in self._place.names("records") if name.isdecimal()]

    def _is_whole(self, state: int) -> bool:
        wanted = {part.name for part in work.snapshot_of(self._model.tables)}
        return wanted <= set(self._place.names(work.state_directory(state)))


def remove(place: Place) -> None:
    """Remove a work directory with all it holds."""
    for name in sorted(place.names(), key=lambda name: name != work.TRAINING):
        place.remove(name)
    if Path(place.address).is_dir():
        # A hand may be writing still; it ends as it sees that TRAINING is gone.
        shutil.rmtree(place.address, ignore_errors=True)
