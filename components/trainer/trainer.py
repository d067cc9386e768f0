"""The stage: token ids -> vectors."""

import gc
import math
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import word2vec_files
from components.artifacts import VOCABULARY, Examples, Model
from components.errors import SkipstreamError
from components.settings import TrainerSettings
from components.trainer import warm_start
from components.trainer.callbacks import Curves, DivergenceGuard, Progress, ProgressBar
from components.trainer.dataset import BRANCHES, GROUP, HELD_OUT_SEED, TARGETS, SkipGrams
from components.trainer.model import SkipGram
from components.trainer.optimizer import RowSGD
from components.vocabulary import Vocabulary

# Between two looks of Keras at the world, each of which costs about a millisecond.
STEPS_PER_CALL = 64
LONGEST_MOVE = 1.6  # Of a row in a step, in lengths of its partners: see RowSGD.
LOSS_EVERY = 16  # Training steps; every one where an epoch has few.


@contextmanager
def _models_freed() -> Iterator[None]:
    """When a function so decorated returns, free the tables of its models: they can be gigabytes.

    Keras lets a model refer to itself, so they would wait for Python's garbage collector.
    """
    try:
        yield
    finally:
        gc.collect()


@_models_freed()
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
    progress = Progress(out.path, model, settings.checkpoint_minutes)
    history = progress.restore()
    untouched = not history and not progress.step
    if untouched:
        for path in settings.start_vectors:
            _start_from(Path(path), model, examples)
    carried_over = _carry_over(start, model, examples, untouched) if start else {}
    while progress.epoch < settings.epochs:
        if _epochs_without_gain(history) >= (settings.patience or math.inf):
            break
        with _reading(examples):
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
    shutil.copyfile(examples.path / VOCABULARY, out.path / VOCABULARY)
    trained = out.finish(
        **carried_over,
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
    settings: TrainerSettings,
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
        raise SkipstreamError(
            f"training needs pairs of words, got none: {train.tokens} tokens in "
            f"{train.documents} documents are too few after subsampling; raise trainer.sample "
            f"= {settings.sample:g} (0 keeps all) or give more or longer documents"
        )
    return loss, _of_pairs(losses.get("val_loss", [0.0])[0])


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
    vocabulary = Vocabulary.load(examples.path / VOCABULARY)
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
    ids = warm_start.ids_in(start, examples.path / VOCABULARY)
    known = int(np.count_nonzero(ids >= 0))
    if not known:
        raise SkipstreamError(
            f"trainer.warm_start must know a word of the vocabulary, got {start.path} with none: "
            "name another model, or leave it out"
        )
    if untouched:
        warm_start.carry_over(start, ids, model.tables)
    return {
        "warm_start": start.fingerprint,
        "words_carried_over": known,
        "new_words": len(ids) - known,
    }


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


def make_model(types: int, settings: TrainerSettings) -> SkipGram:
    """The model, with tables of the vocabulary's size, `types`."""
    return SkipGram(
        types=types,
        dimensions=settings.dimensions,
        window=settings.window,
        negatives=settings.negatives,
        seed=settings.seed,
    )


def compile_for(model: SkipGram, train: SkipGrams, settings: TrainerSettings) -> None:
    """Give the model its optimizer: a rate that falls in a straight line over all epochs."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        settings.learning_rate, train.steps * settings.epochs, settings.learning_rate * 1e-4
    )
    model.loss_every = max(1, min(LOSS_EVERY, train.steps // STEPS_PER_CALL))
    # XLA compiles the parts of a step: as a whole it would not spread over CPUs.
    model.compile(
        optimizer=RowSGD(rate, most_load=LONGEST_MOVE / settings.learning_rate), jit_compile=False
    )


def held_out_rows(examples: Examples, settings: TrainerSettings) -> tf.data.Dataset | None:
    """Pairs and noise words of the eval split, the same in every epoch and for every seed.

    Returns:
        Elements are `Rows`; None where no document is held out.
    """
    held_out = SkipGrams(examples, settings, split="eval", seed=HELD_OUT_SEED)
    return held_out.rows(0).prefetch(8) if held_out.documents else None


@_models_freed()
def held_out_loss(model: Model, examples: Examples, settings: TrainerSettings) -> float | None:
    """Loss per held-out pair of a trained model, in nats; None without a held-out pair."""
    rows = held_out_rows(examples, settings)
    if rows is None:
        return None
    types = len(Vocabulary.load_counts(examples.path / VOCABULARY))
    skip_gram = make_model(types, settings)
    for name, table in skip_gram.tables.items():
        table.load(model.path / f"{name}.npy")
    return _measure(skip_gram, rows, examples)


def comparable_losses(
    models: Sequence[Model], examples: Examples, settings: TrainerSettings
) -> list[float | None]:
    """Losses of models with vocabularies of their own on the same held-out pairs, in nats a pair.

    Pairs and noise words are those of `examples`. A word that one of the models does not know has
    vectors of zeros in all of them: a pair with it, or a noise word, costs each model the ln 2 of
    not knowing. So losses differ only by what the models make of the words that all of them know;
    which words a model knows is for another measure to tell.

    Args:
        models: What their examples' vocabularies were lies beside them.
        examples: Whose held-out documents are read.
        settings: What is a pair. `dimensions` are the models' own.

    Returns:
        One for each model; None without a held-out pair.
    """
    rows = held_out_rows(examples, settings)
    if rows is None:
        return [None for _ in models]
    ids = [warm_start.ids_in(model, examples.path / VOCABULARY) for model in models]
    known = np.all([found >= 0 for found in ids], axis=0)
    return [
        _comparable_loss(model, np.where(known, found, -1), rows, examples, settings)
        for model, found in zip(models, ids, strict=True)
    ]


@_models_freed()
def _comparable_loss(
    model: Model,
    ids: npt.NDArray[np.int64],
    rows: tf.data.Dataset,
    examples: Examples,
    settings: TrainerSettings,
) -> float | None:
    """The loss of a model whose rows `ids` are those of the words of `examples`; -1: zeros."""
    as_model = settings.model_copy(update={"dimensions": model.dimensions})
    skip_gram = make_model(len(ids), as_model)
    skip_gram.vectors.fill_uniform(0.0, seed=0)  # Zeros, as the contexts.
    warm_start.carry_over(model, ids, skip_gram.tables)
    return _measure(skip_gram, rows, examples)


def _measure(skip_gram: SkipGram, rows: tf.data.Dataset, examples: Examples) -> float | None:
    skip_gram.compile(jit_compile=False)
    with _reading(examples):
        return _of_pairs(float(skip_gram.evaluate(rows, verbose=0)))


def _of_pairs(loss: float) -> float | None:
    """The mean over pairs; None for the 0 that Keras makes of no pairs: no pair costs nothing."""
    return loss or None


@contextmanager
def _reading(examples: Examples) -> Iterator[None]:
    """What Keras and TensorFlow say while they read TFRecords, in our words."""
    with warnings.catch_warnings():
        # Keras warns at the end of every dataset whose length it cannot know beforehand.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        try:
            yield
        except tf.errors.DataLossError as error:
            # Keras puts a stack in front, TensorFlow the names of nodes behind.
            reason = re.sub(r"\s*\[\[.*", "", error.message, flags=re.DOTALL).splitlines()[-1]
            raise SkipstreamError(
                f"a TFRecord in {examples.path} is damaged ({reason}): "
                "delete that directory and run transform again"
            ) from error
