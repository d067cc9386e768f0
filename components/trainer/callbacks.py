"""What happens around training steps: checkpoints, curves, the divergence guard, the bar."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from components.artifacts import write_json
from components.errors import SkipstreamError
from components.settings import TrainerSettings
from components.trainer.dataset import SkipGrams
from components.trainer.model import SkipGram

# The rows of a healthy table stay below a norm of about 20; at 100 every sigmoid is 0 or 1.
LARGEST_NORM = 100.0


class Progress(keras.callbacks.Callback):
    """Keeps what an interrupted run needs to go on with the very next step.

    Data and noise words are functions of (seed, epoch, step), so the position and the model's
    and optimizer's variables are the whole state.

    Attributes:
        restored_loss: Of the epoch under way when the checkpoint was made; None without one.
    """

    DIRECTORY = "checkpoints"

    def __init__(self, directory: Path, model: SkipGram, minutes: float) -> None:
        """Keep the state of `model` in `directory`.

        Args:
            directory: Receives history.json and checkpoints/.
            model: Built and compiled.
            minutes: Longest time between two checkpoints.
        """
        super().__init__()
        self._skip_gram = model
        self._seconds = 60 * minutes
        self._history = directory / "history.json"
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._step = tf.Variable(0, dtype=tf.int64)
        # tf.train.Checkpoint does not see into Keras's metrics.
        self._metric = [tf.Variable(0.0) for _ in model.pair_loss.variables]
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            epoch=self._epoch,
            step=self._step,
            metric=self._metric,
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory / self.DIRECTORY), max_to_keep=2
        )
        self.restored_loss: float | None = None
        self._best = directory / "best.npz"

    def restore(self) -> list[dict[str, Any]]:
        """Load the newest checkpoint, if there is one.

        Returns:
            One record for each epoch that it has behind it.
        """
        if self._manager.latest_checkpoint is None:
            return []
        status = self._checkpoint.restore(self._manager.latest_checkpoint)
        status.assert_existing_objects_matched()
        self._load_metric()
        self.restored_loss = float(self._skip_gram.pair_loss.result())
        epochs: list[dict[str, Any]] = []
        if self._history.exists():
            epochs = json.loads(self._history.read_text(encoding="utf-8"))
        return epochs[: self.epoch]

    def _load_metric(self) -> None:
        for variable, saved in zip(self._skip_gram.pair_loss.variables, self._metric, strict=True):
            variable.assign(saved)

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return int(self._epoch)

    @property
    def step(self) -> int:
        """Steps that are done of the epoch under way."""
        return int(self._step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on with the loss of a restored epoch, which Keras has just set back to zero."""
        self._saved = time.monotonic()
        self._first_step = self.step
        self._first_iteration = int(self._skip_gram.optimizer.iterations.numpy())
        if self._first_step:
            self._load_metric()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save when it is time."""
        if time.monotonic() - self._saved > self._seconds:
            # Not from `batch`, which counts a whole execution where the epoch ends within one.
            steps = int(self._skip_gram.optimizer.iterations.numpy()) - self._first_iteration
            self._step.assign(self._first_step + steps)
            for saved, variable in zip(
                self._metric, self._skip_gram.pair_loss.variables, strict=True
            ):
                saved.assign(variable.value)
            self._manager.save()
            self._saved = time.monotonic()

    def keep_best(self) -> None:
        """Keep the tables as they are now, in place of those kept before."""
        temporary = self._best.with_suffix(".new.npz")
        model = self._skip_gram
        np.savez(temporary, vectors=model.vectors.numpy(), contexts=model.contexts.numpy())
        temporary.replace(self._best)

    def go_back_to_best(self) -> None:
        """Give the model the tables that were kept."""
        with np.load(self._best) as best:
            self._skip_gram.vectors.assign(best["vectors"])
            self._skip_gram.contexts.assign(best["contexts"])

    def delete(self) -> None:
        """What only an unfinished training needs."""
        shutil.rmtree(self._history.parent / self.DIRECTORY)
        self._best.unlink(missing_ok=True)

    def finish_epoch(self, history: list[dict[str, Any]]) -> None:
        """Save after an epoch, with the records of all epochs so far."""
        write_json(self._history, history)
        self._epoch.assign(len(history))
        self._step.assign(0)
        self._manager.save()


class Curves(keras.callbacks.Callback):
    """Losses and rate for TensorBoard, by training step.

    The training loss of each point is that of the pairs since the last one; `fit` itself only
    tells the mean of the epoch so far.
    """

    def __init__(self, directory: Path, model: SkipGram) -> None:
        """Write to train/ and validation/ in `directory`."""
        super().__init__()
        self._skip_gram = model
        self._train = tf.summary.create_file_writer(str(directory / "train"))
        self._validation = tf.summary.create_file_writer(str(directory / "validation"))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start from the sums of a restored epoch."""
        self._loss, self._pairs = self._sums()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One point."""
        loss, pairs = self._sums()
        if pairs > self._pairs:
            with self._train.as_default(self._step()):
                tf.summary.scalar("loss", (loss - self._loss) / (pairs - self._pairs))
                tf.summary.scalar("learning_rate", self._skip_gram.optimizer.learning_rate)
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
        return int(self._skip_gram.optimizer.iterations.numpy())


class DivergenceGuard(keras.callbacks.Callback):
    """Stops a training that can no longer succeed.

    Raises:
        SkipstreamError: The loss is not a number, or above twice that of an untrained model; or
            at the end of an epoch, a row's norm is above LARGEST_NORM.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        """Watch a training with these settings."""
        super().__init__()
        self._settings = settings
        self._untrained = (1 + settings.negatives) * math.log(2)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss of the epoch so far."""
        loss = float((logs or {})["loss"])
        if not loss < 2 * self._untrained:
            self._stop(f"the loss is {loss:.3g} nats a pair, untrained {self._untrained:.3g}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the norms of all rows."""
        for name in ("vectors", "contexts"):
            table = getattr(self.model, name).value
            norm = float(tf.reduce_max(tf.reduce_sum(table * table, axis=1))) ** 0.5
            if not norm < LARGEST_NORM:
                self._stop(f"a row of the {name} has a norm of {norm:.3g}")

    def _stop(self, reason: str) -> None:
        raise SkipstreamError(
            f"training diverged: {reason}; lower trainer.learning_rate = "
            f"{self._settings.learning_rate}"
        )


class ProgressBar(keras.callbacks.Callback):
    """Corpus words done, words a second, time left and loss of one epoch.

    A context manager: the line on the screen ends with the block, however that ends.
    """

    def __init__(self, train: SkipGrams, epochs: int, epoch: int, step: int) -> None:
        """Show one epoch of a run.

        Args:
            train: Knows the size of an epoch.
            epochs: Of the whole run.
            epoch: Epochs that are done.
            step: Steps that are done of the epoch under way.
        """
        super().__init__()
        self._train, self._step = train, step
        self._words = self._words_at(step)
        self._bar = tqdm(
            total=train.tokens,
            initial=self._words,
            desc=f"epoch {epoch + 1}/{epochs}",
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
        words = self._words_at(self._step + batch + 1)
        self._bar.set_postfix(loss=f"{float((logs or {})['loss']):.3f}", refresh=False)
        self._bar.update(words - self._words)
        self._words = words

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the losses of the epoch."""
        losses = {"loss": "loss", "val_loss": "held_out_loss"}
        self._bar.set_postfix(
            {losses[k]: f"{v:.3f}" for k, v in (logs or {}).items() if k in losses}, refresh=False
        )
        self._bar.update(self._train.tokens - self._words)

    def _words_at(self, step: int) -> int:
        return int(min(self._train.tokens, self._train.tokens * step // self._train.steps))
