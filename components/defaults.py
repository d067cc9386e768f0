"""What a training does where its settings leave open what depends on the text.

PLACEHOLDER
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from components.artifacts import VOCABULARY, Examples
from components.settings import TrainerSettings
from components.vocabulary import Vocabulary

LARGE = 20_000_000
SAMPLE, EPOCHS, WARM_SHARE = 1e-4, 5, 0.4
MOST_EPOCHS = 20
SAMPLES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
LEAST_KEPT = 1 / 3


class Chosen(TrainerSettings):
    """Settings that leave nothing open."""

    sample: float
    epochs: int
    warm_epochs: int

    def warm(self) -> Self:
        """The settings of a training that goes on from another model."""
        changes = {"epochs": self.warm_epochs, "learning_rate": self.warm_learning_rate}
        return self.model_copy(update=changes)


def chosen(settings: TrainerSettings, examples: Examples) -> Chosen:
    """`settings`, and what they leave open as it fits `examples`: see `for_text`."""
    if isinstance(settings, Chosen):
        return settings
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]
    counts = Vocabulary.load_counts(examples.path / VOCABULARY)
    given = settings.model_dump(exclude_none=True)
    return Chosen.model_validate(for_text(tokens, counts) | given)


def for_text(tokens: int, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """`sample`, `epochs` and `warm_epochs` for a text.

    Args:
        tokens: That are trained on.
        counts: int64 [types] occurrences of each word.

    >>> for_text(tokens=2_500_000, counts=np.full(50_000, 50))
    {'sample': 0.0001, 'epochs': 10, 'warm_epochs': 4}
    >>> for_text(tokens=45_000, counts=np.full(70, 643))
    {'sample': 0.001, 'epochs': 20, 'warm_epochs': 8}
    """
    epochs, sample = EPOCHS, SAMPLE
    if tokens < LARGE:
        epochs = min(round(EPOCHS * (LARGE / max(1, tokens)) ** (1 / 3)), MOST_EPOCHS)
        least = LEAST_KEPT * counts.sum()
        sample = next((s for s in SAMPLES if kept_tokens(counts, s) >= least), 0.0)
    return {"sample": sample, "epochs": epochs, "warm_epochs": round(WARM_SHARE * epochs)}


def keep_probability(counts: npt.NDArray[np.int64], sample: float) -> npt.NDArray[np.float32]:
    """Probability that an occurrence of a word survives subsampling (word2vec.c's formula).

    Args:
        counts: int64 [types] occurrences in the corpus.
        sample: Share of the kept tokens above which a word is thinned out; 0: all are kept.

    Returns:
        float32 [types]: sqrt(sample / share) + sample / share, at most 1.

    >>> keep_probability(np.array([9900, 99, 1]), sample=1e-3).astype(float).round(3).tolist()
    [0.033, 0.419, 1.0]
    """
    if sample == 0:
        return np.ones(len(counts), np.float32)
    ratio = sample * counts.sum() / np.maximum(counts, 1)
    return np.asarray(np.minimum(1.0, np.sqrt(ratio) + ratio), np.float32)


def kept_tokens(counts: npt.NDArray[np.int64], sample: float) -> float:
    """How many tokens subsampling is expected to leave."""
    return float((counts * keep_probability(counts, sample).astype(np.float64)).sum())
