"""The stage: token ids -> vectors."""

import hashlib
import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from components import starvation, threads
from components.artifacts import VOCABULARY, Examples, Model
from components.defaults import chosen, share_left
from components.errors import SkipstreamError
from components.settings import Chosen, TrainerSettings
from components.trainer import begin, losses, warm_start
from components.trainer.callbacks import Curves, DivergenceGuard, HeldOut, Progress, ProgressBar
from components.trainer.dataset import SkipGrams
from components.trainer.kinds import write_buckets
from components.trainer.losses import reading
from components.trainer.model import SkipGram, models_freed
from components.trainer.sharing import Sharing

if TYPE_CHECKING:
    from components.trainer.cluster.launcher import Cluster

WORK = "work"  # Where a cluster's workers write if they see the model's directory.


@models_freed()
def build(
    examples: Examples,
    *,
    settings: TrainerSettings,
    out: Model,
    start: Model | None = None,
    beam_options: Sequence[str] = (),
    shared: str | None = None,
) -> Model:
    """Train, or go on where an interrupted run stopped.

    Args:
        examples: Token ids and vocabulary.
        settings: All of the algorithm's.
        out: Receives vectors.npy, contexts.npy, vocabulary.tsv, history.json, logs/ for
            TensorBoard, and with n-grams buckets.npy and bucket_ids.npy.
        start: What the words that it knows go on from. None: all start from `start_vectors`, or
            from small random vectors.
        beam_options: With `settings.distributed`, where and how the Beam job runs.
        shared: Then, a directory for workers elsewhere; none: they see `out.path`.

    Raises:
        NotBlessedError: The training diverged.
        SettingsError: Beam refuses its options.
        SkipstreamError: There is nothing to train on, or `start` is of no use.
    """
    settings = chosen(settings, examples)
    if start:
        warm_start.check(start, settings.dimensions)
    threads.make_devices()
    tf.config.experimental.enable_op_determinism()
    train = SkipGrams(examples, settings, directory=out.path)
    if not train.documents:
        raise SkipstreamError(
            "training needs at least one document with a known token, got none: all are held "
            "out; lower example_gen.eval_share or give more text"
        )
    pairs = losses.held_out(examples, settings)
    if settings.patience and pairs is None:
        raise _nothing_held_out(settings)
    with reading(examples):
        if not settings.distributed:
            train.unpack()
        if pairs:
            pairs.unpack()
    model = SkipGram(train, settings, Sharing.of(examples / VOCABULARY, settings))
    progress = Progress(out, model, settings.checkpoint_minutes)
    history = progress.restore()
    given = None
    if not history and not progress.round:
        given = begin.from_files(settings.start_vectors, model, examples, out.path)
    carried_over = begin.carry_over(start, model, examples, given) if start else {}
    buckets = begin.buckets(start, settings, out.path)
    if given is not None and buckets is None:
        model.settle(given)
    cluster = _cluster(model, train, settings, out, beam_options, shared)
    with ExitStack() as stack:
        if cluster and not _is_over(history, settings):
            stack.enter_context(starvation.fails())  # Such a job would fail again.
            with reading(examples):
                stack.enter_context(cluster.running(examples, progress))
        epochs = iter(()) if cluster else train.epochs(progress.epoch, progress.round)
        while not _is_over(history, settings):
            with reading(examples):
                spans = next(epochs, None)
                loss, held_out_loss = _fit_epoch(
                    model, train, spans, pairs, progress, settings, out.path / "logs", cluster
                )
            history.append(
                {
                    "epoch": progress.epoch + 1,
                    "loss": loss,
                    "held_out_loss": held_out_loss,
                    "learning_rate": model.training.rate(progress.epoch + 1, 0),
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
    if worse:
        progress.restore_best()
    for name, table in model.whole().items():
        table.save(out.path / f"{name}.npy")
    if sharing := model.training.sharing:
        moved = sharing.own.rows, sharing.shared.rows
        write_buckets(out.path, sharing.kinds, *moved, buckets)
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
    begin.clean_up(out.path)
    progress.clean_up()  # Not before: a run killed in between goes on from here.
    if cluster:
        cluster.clean_up()
    shutil.rmtree(out.path / WORK, ignore_errors=True)  # Of a try on a cluster.
    return trained


def _cluster(
    model: SkipGram,
    train: SkipGrams,
    settings: Chosen,
    out: Model,
    beam_options: Sequence[str],
    shared: str | None,
) -> "Cluster | None":
    """What trains in place of this process, if the settings say so."""
    if not settings.distributed:
        return None
    from components.trainer.cluster.launcher import Cluster  # With Beam, which takes a second.

    work = str(out.path / WORK)
    if shared:  # Another output's training of the same may be under way there.
        owner = hashlib.sha256(out.address.encode()).hexdigest()[:12]
        work = f"{shared.rstrip('/')}/{out.fingerprint}-{owner}"
    return Cluster(work, beam_options, model, train, settings)


def _is_over(history: list[dict[str, Any]], settings: Chosen) -> bool:
    """Whether all epochs are done, or enough that gained nothing."""
    without_gain = _epochs_without_gain(history)
    return len(history) >= settings.epochs or without_gain >= (settings.patience or math.inf)


def _fit_epoch(
    model: SkipGram,
    train: SkipGrams,
    spans: tf.data.Dataset | None,
    held_out: SkipGrams | None,
    progress: Progress,
    settings: Chosen,
    logs: Path,
    cluster: "Cluster | None",
) -> tuple[float, float | None]:
    """What is left of the epoch that `progress` has come to; its losses in nats a pair."""
    bar = ProgressBar(train, settings.epochs, progress.epoch, progress.round)
    with bar, Curves(logs, model) as curves:
        measured, guard = HeldOut(held_out, model), DivergenceGuard(settings, model)
        if cluster:
            curve = cluster.fit_epoch(progress, [measured, guard, bar, curves])
        else:
            curve = model.fit(
                spans,
                initial_epoch=progress.epoch,
                epochs=progress.epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[measured, guard, progress, bar, curves],
            ).history
    # Keras gives none where the checkpoint was made at the very last step of the epoch.
    loss = curve.get("loss", [progress.restored_loss])[0]
    if not loss:
        raise _no_pairs(train)
    return loss, curve.get("val_loss", [None])[0]


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
