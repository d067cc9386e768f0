"""The stage: token ids -> vectors."""

import math
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components import word2vec_files
from components.artifacts import VOCABULARY, Examples, Model
from components.defaults import chosen, share_left
from components.errors import SkipstreamError
from components.settings import Chosen, TrainerSettings
from components.trainer import warm_start
from components.trainer.callbacks import Curves, DivergenceGuard, Progress, ProgressBar
from components.trainer.dataset import BRANCHES, GROUP, TARGETS, SkipGrams
from components.trainer.losses import held_out_rows, of_pairs, reading
from components.trainer.model import SkipGram, make_model, models_freed
from components.trainer.optimizer import RowSGD
from components.vocabulary import Vocabulary

# Between two looks of Keras at the world, each of which costs about a millisecond.
STEPS_PER_CALL = 64
LONGEST_MOVE = 1.6  # Of a row in a step, in lengths of its partners: see RowSGD.
LOSS_EVERY = 16  # Training steps; every one where an epoch has few.


@models_freed()
def build(
    examples: Examples,
    *,
    settings: TrainerSettings,
    out: Model,
    start: Model | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Model:
    """Train, or go on where an interrupted run stopped.

    Args:
        examples: Token ids and vocabulary.
        settings: All of the algorithm's.
        out: Receives vectors.npy, contexts.npy, vocabulary.tsv, history.json, and logs/ for
            TensorBoard.
        start: What the words that it knows go on from. None: all start from `start_vectors`, or
            from small random vectors.
        strategy: Where; none: on several GPUs where there are.

    Raises:
        NotBlessedError: The training diverged.
        SkipstreamError: There is nothing to train on, or `start` is of no use.
    """
    settings = chosen(settings, examples)
    if start:
        warm_start.check(start, settings.dimensions)
    # Else several threads add up repeated rows in the order in which they arrive. What it would do
    # to a GPU has not been tried: there the last bits may differ.
    if not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
    train = SkipGrams(examples, settings)
    if not train.documents:
        raise SkipstreamError(
            "training needs at least one document with a known token, got none: all are held "
            "out; lower example_gen.eval_share or give more text"
        )
    held_out = held_out_rows(examples, settings)
    if settings.patience and held_out is None:
        raise _nothing_held_out(settings)
    strategy = strategy or _strategy(train.length)
    with strategy.scope():
        model = make_model(train.types, settings)
        compile_for(model, train, settings)
    progress = Progress(out, model, settings.checkpoint_minutes)
    history = progress.restore()
    untouched = not history and not progress.step
    if untouched:
        for path in settings.start_vectors:
            _start_from(Path(path), model, examples)
    carried_over = _carry_over(start, model, examples, untouched) if start else {}
    while progress.epoch < settings.epochs:
        if _epochs_without_gain(history) >= (settings.patience or math.inf):
            break
        with reading(examples):
            loss, held_out_loss = _fit_epoch(
                model, train, held_out, progress, settings, strategy, out.path / "logs"
            )
        history.append(
            {
                "epoch": progress.epoch + 1,
                "loss": loss,
                "held_out_loss": held_out_loss,
                "learning_rate": float(model.optimizer.learning_rate),
                "seconds": round(progress.epoch_seconds(), 3),
            }
        )
        if settings.patience and held_out_loss is None:
            raise _nothing_held_out(settings)
        if settings.patience and not _epochs_without_gain(history):
            progress.keep_best()
        progress.finish_epoch(history)
    worse = _epochs_without_gain(history) if settings.patience else 0
    best = history[-1 - worse]
    seconds = progress.seconds()
    progress.write_tables(best=worse > 0)
    shutil.copyfile(examples / VOCABULARY, out.path / VOCABULARY)
    trained = out.finish(
        settings,
        **carried_over,
        sample=settings.sample,
        epochs=len(history),
        training_seconds=round(seconds, 3),
        words_per_second=round(train.tokens * len(history) / seconds),
        loss=best["loss"],
        held_out_loss=best["held_out_loss"],
        history=history,
    )
    progress.clean_up()  # Not before: a run killed in between goes on from here.
    return trained


def _fit_epoch(
    model: SkipGram,
    train: SkipGrams,
    held_out: tf.data.Dataset | None,
    progress: Progress,
    settings: Chosen,
    strategy: tf.distribute.Strategy,
    logs: Path,
) -> tuple[float, float | None]:
    """What is left of the epoch that `progress` has come to; its losses in nats a pair."""
    bar = ProgressBar(train, model, settings.epochs, progress.epoch, progress.step)
    with bar, Curves(logs, model) as curves:
        losses = model.fit(
            _in_calls(train.rows(progress.epoch).skip(progress.step), strategy),
            initial_epoch=progress.epoch,
            epochs=progress.epoch + 1,
            validation_data=held_out,
            shuffle=False,
            verbose=0,
            callbacks=[DivergenceGuard(settings, model), progress, bar, curves],
        ).history
    # Keras gives none where the checkpoint was made at the very last step of the epoch.
    loss = losses.get("loss", [progress.restored_loss])[0]
    if not loss:
        raise _no_pairs(train)
    return loss, of_pairs(losses.get("val_loss", [0.0])[0])


def _in_calls(steps: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    """Steps as `SkipGram.train_step` takes them. Several devices do not meet within a loop."""
    several = steps.batch(STEPS_PER_CALL) if strategy.num_replicas_in_sync == 1 else steps
    return several.prefetch(2)


def _strategy(row_length: int) -> tf.distribute.Strategy:
    gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
    # Each replica has whole rows and groups of every part of a step to itself.
    shares = TARGETS // (max(GROUP, row_length) * BRANCHES)
    replicas = max((n for n in range(1, len(gpus) + 1) if shares % n == 0), default=0)
    if replicas > 1:
        return tf.distribute.MirroredStrategy(gpus[:replicas])
    return tf.distribute.get_strategy()


def _start_from(path: Path, model: SkipGram, examples: Examples) -> None:
    """Give the words that `path` knows its vectors."""
    vocabulary = Vocabulary.load(examples / VOCABULARY)
    wanted = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    known = 0
    for ids, start in word2vec_files.read(path, wanted, model.vectors.dimensions):
        model.vectors.assign_rows(ids, start)
        known += len(ids)
    if not known:
        raise SkipstreamError(
            f"trainer.start_vectors must know a word of the vocabulary, got {path} with none: "
            "its words must be as the tokeniser writes them"
        )


def _carry_over(
    start: Model, model: SkipGram, examples: Examples, untouched: bool
) -> dict[str, str | int]:
    """Let the words that `start` knows go on from there, and say how many do."""
    ids = warm_start.ids_in(start, examples / VOCABULARY)
    known = int(np.count_nonzero(ids >= 0))
    if not known:
        raise SkipstreamError(
            f"trainer.warm_start must know a word of the vocabulary, got {start.address} with "
            "none: name another model, or leave it out"
        )
    if untouched:
        warm_start.carry_over(start, ids, model.tables)
    return {
        "warm_start": start.fingerprint,
        "words_carried_over": known,
        "new_words": len(ids) - known,
    }


def _no_pairs(train: SkipGrams) -> SkipstreamError:
    """What leaves no two words of a document: first of all, how little text there is."""
    left = train.tokens * share_left(train.counts, train.settings.sample)
    return SkipstreamError(
        f"training needs pairs of words, got none: transform.min_count leaves {train.tokens:,} "
        f"tokens in {train.documents:,} documents, and trainer.sample = "
        f"{train.settings.sample:g} about {left:,.0f} of them; give more or longer documents, "
        "lower transform.min_count, or keep all with --set trainer.sample=0"
    )


def _nothing_held_out(settings: TrainerSettings) -> SkipstreamError:
    return SkipstreamError(
        f"trainer.patience = {settings.patience} needs held-out pairs of words, got none: raise "
        "example_gen.eval_share, or leave it out"
    )


def _epochs_without_gain(history: list[dict[str, Any]]) -> int:
    """Epochs since the one with the least held-out loss.

    >>> _epochs_without_gain([{"held_out_loss": 2.5}, {"held_out_loss": 2.4}])
    0
    >>> _epochs_without_gain([{"held_out_loss": 2.4}, {"held_out_loss": 2.4}])
    1
    >>> _epochs_without_gain([])
    0
    """
    losses = [epoch["held_out_loss"] or math.inf for epoch in history]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def compile_for(model: SkipGram, train: SkipGrams, settings: Chosen) -> None:
    """Give the model its optimizer: a rate that falls in a straight line over all epochs."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        settings.learning_rate, train.steps * settings.epochs, settings.learning_rate * 1e-4
    )
    model.loss_every = max(1, min(LOSS_EVERY, train.steps // STEPS_PER_CALL))
    # XLA compiles the parts of a step: as a whole it would not spread over CPUs.
    model.compile(
        optimizer=RowSGD(rate, most_load=LONGEST_MOVE / settings.learning_rate), jit_compile=False
    )
