"""What happens around training steps: checkpoints, curves, the divergence guard, the bar."""

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf
from tqdm import tqdm

from components.artifacts import CHECKPOINTS, STATE, Model, link, write_json
from components.errors import NotBlessedError
from components.places.place import digest_of
from components.sealed import seal, unseal
from components.settings import TrainerSettings
from components.trainer.dataset import SkipGrams
from components.trainer.model import SkipGram
from components.trainer.rounds import BLOCK

# The rows of a healthy table stay below a norm of about 20; at 100 every sigmoid is 0 or 1.
LARGEST_NORM = 100.0
_SAID_SECONDS = 0.5  # Between two records of progress, where they are asked for.

_logger = logging.getLogger(__name__)


class Progress(keras.callbacks.Callback):
    """Keeps what an interrupted run needs to go on with the very next round.

    Data and noise words are functions of (seed, epoch, place), so the position, the tables and the
    sums of the loss are the whole state. A checkpoint is a directory; its state.json, written
    last, says that it is whole.

    Attributes:
        epoch: Epochs that are done.
        round: Rounds that are done of the epoch under way.
        restored_loss: Of the epoch under way when the checkpoint was made; None without one.
    """

    def __init__(self, out: Model, model: SkipGram, minutes: float) -> None:
        """Keep the state of `model` in `out`.

        Args:
            out: Receives history.json and checkpoints.
            model: Built and compiled.
            minutes: Longest time between two checkpoints.
        """
        super().__init__()
        self._skip_gram = model
        self._seconds = 60 * minutes
        self._out = out
        self._directory = out.path
        self._epochs: list[dict[str, Any]] = []
        self._checkpoints = out.path / CHECKPOINTS
        self._sums = [0.0 for _ in model.pair_loss.variables]
        self.epoch = self.round = 0
        self.restored_loss: float | None = None
        self._began = self._epoch_began = self._kept = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the training began, those between two processes aside."""
        return time.monotonic() - self._began

    def epoch_seconds(self) -> float:
        """The same, since the epoch under way began."""
        return time.monotonic() - self._epoch_began

    def restore(self) -> list[dict[str, Any]]:
        """Load the newest checkpoint, if there is one; one that is damaged is thrown away.

        Returns:
            One record for each epoch that it has behind it.
        """
        whole = sorted(self._checkpoints.glob(f"*/{STATE}"), key=_number)
        state = _state(whole[-1]) if whole else None
        if state is None:
            self.clean_up()
            return []
        for name, table in self._skip_gram.tables.items():
            table.load(whole[-1].parent / f"{name}.npy")
        self._skip_gram.training.restored()
        self._skip_gram.steps = state["steps"]
        self.epoch, self.round, self._sums = state["epoch"], state["round"], state["sums"]
        self._began -= state["seconds"]
        self._epoch_began -= state["epoch_seconds"]
        self._load_sums()
        self.restored_loss = float(self._skip_gram.pair_loss.result())
        for kept in whole[-1].parent.glob("best-*.npy"):
            link(kept, self._directory / kept.name)
        self._epochs = state["epochs"]
        if self._epochs:
            write_json(self._directory / "history.json", self._epochs)
        return list(self._epochs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on with the loss of a restored epoch, which Keras has just set back to zero."""
        self._saved = time.monotonic()
        if self.round:
            self._load_sums()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save when it is time."""
        self.round += 1
        if time.monotonic() - self._saved > self._seconds:
            self._sums = [float(sum_.numpy()) for sum_ in self._skip_gram.pair_loss.variables]
            self._save()
            self._saved = time.monotonic()

    def finish_epoch(self, history: list[dict[str, Any]]) -> None:
        """Save after an epoch, with the records of all epochs so far."""
        write_json(self._directory / "history.json", history)
        self._epochs = list(history)
        self.epoch, self.round = len(history), 0
        self._save()
        self._epoch_began = time.monotonic()

    def keep_best(self) -> None:
        """Keep the tables as they are now, in place of those kept before."""
        for name, table in self._skip_gram.tables.items():
            # A checkpoint may have a link to the one before.
            path = self._directory / f"best-{name}.npy"
            path.unlink(missing_ok=True)
            table.save(path)

    def restore_best(self) -> None:
        """Load what `keep_best` kept last."""
        for name, table in self._skip_gram.tables.items():
            table.load(self._directory / f"best-{name}.npy")
        self._skip_gram.training.restored()

    def clean_up(self) -> None:
        """Delete what only an unfinished run needs."""
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        for kept in self._directory.glob("best-*.npy"):
            kept.unlink()

    def _save(self) -> None:
        before = sorted(self._checkpoints.glob("*"), key=_number)
        whole = [path for path in before if (path / STATE).exists()]
        new = self._checkpoints / str(_number(before[-1]) + 1 if before else 1)
        new.mkdir(parents=True)
        for name, table in self._skip_gram.tables.items():
            if whole and table is self._skip_gram.training.fixed:
                link(whole[-1] / f"{name}.npy", new / f"{name}.npy")
            else:
                table.save(new / f"{name}.npy")
        for kept in self._directory.glob("best-*.npy"):
            link(kept, new / kept.name)
        state = {
            "epochs": self._epochs,
            "epoch": self.epoch,
            "round": self.round,
            "steps": self._skip_gram.steps,
            "sums": self._sums,
            "seconds": self.seconds(),
            "epoch_seconds": self.epoch_seconds() if self.round else 0.0,
            "files": {path.name: digest_of(path) for path in new.iterdir()},
        }
        write_json(new / STATE, seal(state))
        # Half the time: an epoch that ends just before it would else leave twice as much to repeat.
        if time.monotonic() - self._kept >= self._seconds / 2:
            self._kept = time.monotonic()
            self._out.keep(f"{CHECKPOINTS}/{new.name}")
        for old in before:
            (old / STATE).unlink(missing_ok=True)  # First: what has one is whole.
            shutil.rmtree(old)

    def _load_sums(self) -> None:
        for variable, saved in zip(self._skip_gram.pair_loss.variables, self._sums, strict=True):
            variable.assign(saved)


def _state(path: Path) -> dict[str, Any] | None:
    """What a checkpoint's file says; None: something of the checkpoint is damaged, and lost."""
    try:
        state: dict[str, Any] = unseal(json.loads(path.read_text(encoding="utf-8")))
        files = state.get("files", {}).items()
        whole = all(digest_of(path.with_name(name)) == digest for name, digest in files)
    except (OSError, ValueError, AttributeError):
        whole = False
    if not whole:
        _logger.warning("%s is damaged: the training begins anew", path.parent)
        return None
    return state


def _number(path: Path) -> int:
    """The number of a checkpoint, or of that which a file lies in."""
    return int(path.parent.name if path.name == STATE else path.name)


class Curves(keras.callbacks.Callback):
    """Losses and rate for TensorBoard, by training step. A context manager.

    The training loss of each point is that of the pairs since the last one; `fit` itself only
    tells the mean of the epoch so far.
    """

    def __init__(self, directory: Path, model: SkipGram) -> None:
        """Write to train/ and validation/ in `directory`."""
        super().__init__()
        self._skip_gram = model
        self._train = tf.summary.create_file_writer(str(directory / "train"))
        self._validation = tf.summary.create_file_writer(str(directory / "validation"))

    def __enter__(self) -> Self:
        """The files are open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them: what is left to the interpreter's end may crash it."""
        self._train.close()
        self._validation.close()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start from the sums of a restored epoch."""
        self._loss, self._pairs = self._sums()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One point."""
        loss, pairs = self._sums()
        if pairs > self._pairs:
            with self._train.as_default(self._step()):
                tf.summary.scalar("loss", (loss - self._loss) / (pairs - self._pairs))
                tf.summary.scalar("learning_rate", self._skip_gram.rate)
            self._loss, self._pairs = loss, pairs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The held-out loss."""
        if loss := (logs or {}).get("val_loss"):
            with self._validation.as_default(self._step()):
                tf.summary.scalar("loss", loss)
        self._train.flush()
        self._validation.flush()

    def _sums(self) -> tuple[float, float]:
        total, count = self._skip_gram.pair_loss.variables
        return float(total.numpy()), float(count.numpy())

    def _step(self) -> int:
        return self._skip_gram.steps


class HeldOut(keras.callbacks.Callback):
    """Measures held-out pairs at the end of each epoch, for the callbacks behind it."""

    def __init__(self, pairs: SkipGrams | None, model: SkipGram) -> None:
        """Measure the model by some pairs; none: not at all."""
        super().__init__()
        self._pairs, self._skip_gram = pairs, model

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add Keras's name of that loss to what callbacks and history are told."""
        loss = self._skip_gram.measure(self._pairs) if self._pairs is not None else None
        if logs is not None and loss is not None:
            logs["val_loss"] = loss


class DivergenceGuard(keras.callbacks.Callback):
    """Stops a training that can no longer succeed.

    Raises:
        NotBlessedError: The loss is not a number, or above twice that of an untrained model; or
            at the end of an epoch, a row's norm is above LARGEST_NORM.
    """

    def __init__(self, settings: TrainerSettings, model: SkipGram) -> None:
        """Watch the training of `model` with these settings."""
        super().__init__()
        self._skip_gram = model
        self._settings = settings
        self._untrained = (1 + settings.negatives) * math.log(2)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss of the epoch so far."""
        loss = float((logs or {})["loss"])
        if not loss < 2 * self._untrained:
            self._stop(f"the loss is {loss:.3g} nats a pair, untrained {self._untrained:.3g}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the norms of all rows."""
        for name, table in self._skip_gram.whole().items():
            norm = table.largest_norm()
            if not norm < LARGEST_NORM:
                self._stop(f"a row of the {name} has a norm of {norm:.3g}")

    def _stop(self, reason: str) -> None:
        raise NotBlessedError(  # From the same text it would diverge again.
            f"training diverged: {reason}; lower trainer.learning_rate (after a warm start, "
            f"warm_learning_rate) = {self._settings.learning_rate}"
        )


class ProgressBar(keras.callbacks.Callback):
    """Corpus words done, words a second, time left and loss of one epoch.

    A context manager: the line on the screen ends with the block, however that ends.
    """

    def __init__(self, train: SkipGrams, epochs: int, epoch: int, rounds: int) -> None:
        """Show one epoch of a run.

        Args:
            train: Knows the size of an epoch.
            epochs: Of the whole run.
            epoch: Epochs that are done.
            rounds: That are done of the epoch under way.
        """
        super().__init__()
        ends = [one.first for one in train.plan(epoch)] + [train.blocks]
        self._ends = [min(train.tokens, end * BLOCK) for end in ends]
        self._round, self._words = rounds, self._ends[rounds]
        self._epoch, self._epochs = epoch, epochs
        self._said = 0.0
        self._title = f"epoch {epoch + 1}/{epochs}"
        self._bar = tqdm(
            total=train.tokens,
            initial=self._words,
            desc=self._title,
            unit=" words",
            unit_scale=True,
            mininterval=1,
        )

    def __enter__(self) -> Self:
        """The bar is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._bar.close()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        self._round += 1
        words = self._ends[self._round]
        self._bar.set_postfix(loss=f"{float((logs or {})['loss']):.3f}", refresh=False)
        self._bar.update(words - self._words)
        self._words = words
        now = time.monotonic()
        if _logger.isEnabledFor(logging.DEBUG) and now - self._said >= _SAID_SECONDS:
            self._said = now
            _logger.debug(
                self._title,
                extra={
                    "event": "epoch_progress",
                    "share": (self._epoch + words / self._ends[-1]) / self._epochs,
                    "loss": float((logs or {})["loss"]),
                },
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the losses of the epoch."""
        names = {"loss": "loss", "val_loss": "held_out_loss"}
        losses = {names[k]: float(v) for k, v in (logs or {}).items() if k in names}
        self._bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
        _logger.info(self._title, extra={"event": "epoch_finished", **losses})
        self._bar.update(self._ends[-1] - self._words)
