"""What models cost on pairs that they were not trained on, and what knowing nothing costs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.artifacts import VOCABULARY, Examples, Model
from components.errors import SkipstreamError, from_tensorflow
from components.settings import TrainerSettings
from components.trainer import skipgrams, warm_start
from components.trainer.dataset import HELD_OUT_SEED, SkipGrams, Split
from components.trainer.model import SkipGram, models_freed

ENOUGH = 4_000_000  # Tokens of the training: they say as much as all of them.


def held_out(examples: Examples, settings: TrainerSettings) -> SkipGrams | None:
    """The eval split, whose pairs and noise words are the same in every epoch and for every seed.

    Returns:
        None where no document is held out.
    """
    found = SkipGrams(examples, settings, split="eval", seed=HELD_OUT_SEED)
    return found if found.documents else None


@models_freed()
def held_out_loss(model: Model, examples: Examples, settings: TrainerSettings) -> float | None:
    """Loss per held-out pair of a trained model, in nats; None without a held-out pair."""
    pairs = held_out(examples, settings)
    if pairs is None:
        return None
    skip_gram = SkipGram(pairs, pairs.settings, sized_by=_trained_on(examples, settings))
    for name, table in skip_gram.tables.items():
        table.load(model / f"{name}.npy")
    return _measure(skip_gram, pairs, examples)


@models_freed()
def frequency_loss(examples: Examples, settings: TrainerSettings, split: Split) -> float | None:
    """What a model costs that knows how frequent words are and nothing else, in nats a pair.

    Its score of a context c is log(P(c) / (negatives Q(c))), whatever the target: P is the share of
    c among the words that subsampling leaves, Q among the noise words. Of all scores that do not
    look at the target none costs less (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix
    Factorization", 2014). So a model that does not stay below it has learned nothing of which words
    go together. It is measured on the very pairs and noise words of `held_out_loss`.

    Args:
        examples: The documents, and the counts of words.
        settings: What is a pair.
        split: Whose pairs: "eval", or "train" where no document is held out.

    Returns:
        None without a pair.
    """
    most = ENOUGH if split == "train" else None
    pairs = SkipGrams(examples, settings, split=split, seed=HELD_OUT_SEED, most=most)
    if not pairs.documents:
        return None
    scores = skipgrams.frequency_scores(
        pairs.counts, pairs.settings.sample, settings.noise_exponent, settings.negatives
    )
    # One dimension would do, but the program for all of them is compiled already.
    one = SkipGram(pairs, pairs.settings, sized_by=_trained_on(examples, settings))
    one.vectors.rows[:] = 0  # As the contexts.
    one.vectors.rows[:, 0] = 1
    one.contexts.rows[:, 0] = scores
    return _measure(one, pairs, examples)


def _trained_on(examples: Examples, settings: TrainerSettings) -> SkipGrams:
    """What the training's program was made for: to compile another one takes two seconds."""
    return SkipGrams(examples, settings)


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
    pairs = held_out(examples, settings)
    if pairs is None:
        return [None for _ in models]
    ids = [warm_start.ids_in(model, examples / VOCABULARY) for model in models]
    known = np.all([found >= 0 for found in ids], axis=0)
    return [
        _comparable_loss(model, np.where(known, found, -1), pairs, examples)
        for model, found in zip(models, ids, strict=True)
    ]


@models_freed()
def _comparable_loss(
    model: Model,
    ids: npt.NDArray[np.int64],
    pairs: SkipGrams,
    examples: Examples,
) -> float | None:
    """The loss of a model whose rows `ids` are those of the words of `examples`; -1: zeros."""
    settings = pairs.settings.model_copy(update={"dimensions": model.dimensions})
    skip_gram = SkipGram(pairs, settings)
    skip_gram.vectors.rows[:] = 0  # As the contexts.
    warm_start.carry_over(model, ids, skip_gram.tables)
    return _measure(skip_gram, pairs, examples)


def _measure(skip_gram: SkipGram, pairs: SkipGrams, examples: Examples) -> float | None:
    with reading(examples):
        pairs.unpack()
        return skip_gram.measure(pairs)


@contextmanager
def reading(examples: Examples) -> Iterator[None]:
    """What Keras and TensorFlow say while they read TFRecords, in our words."""
    with warnings.catch_warnings():
        # Keras warns at the end of every dataset whose length it cannot know beforehand.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        try:
            yield
        except tf.errors.DataLossError as error:
            raise SkipstreamError(
                f"a TFRecord in {examples.address} is damaged ({from_tensorflow(error)}): "
                "delete that directory and run transform again"
            ) from error
