"""What a training does where its settings leave open what depends on the text.

From 20 million tokens on: `sample` 1e-4 and 5 epochs, which word2vec.c and gensim were tuned to.
With these, a small text learns nothing: too few steps, and of few different words almost every
occurrence is left out. What is chosen below was measured on the first .1, .3, 1 and 2.5 million
tokens of English Wikipedia (`make benchmark-small`; see docs/training.md):

- `sample`: 2e-5 below two million tokens, 1e-4 above. Where that would leave less than a fifth of
  the tokens, as of text with few different words, the next value in `_SAMPLES` that does not.
- `epochs`: so many that training sees as many tokens as the text has, 6.5 x (1 million /
  tokens)^(1/4) times: 12 times of 100,000 tokens, 5 of 2.5 million. With more, the text is learned
  by heart, and scores fall.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.artifacts import VOCABULARY, Examples
from components.settings import Chosen, TrainerSettings
from components.vocabulary import Vocabulary

LARGE, SMALL = 20_000_000, 2_000_000  # Tokens.
# A text of 40,000 tokens of 71 words is learned well, with much to spare; one of 700 hardly.
ENOUGH_TOKENS = 20_000
_SAMPLES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 1.0)
_LEAST_LEFT = 0.2
_MOST_EPOCHS = 60
_WARM_SHARE = 0.4
_ROUND = 3_200_000  # Tokens of a round, at most.
_ROUNDS = 40  # Of a training, at least.
_SHARD = 100_000  # Tokens of a shard in a round, at least.
# n-grams move once a round, so with them rounds are shorter: at three epochs of 21 million tokens,
# rounds of 1.6 million reach SimLex-999 .285 and MEN .674, of .4 million .297 and .683. But each
# costs some time for each word of the vocabulary, so a round has so many tokens for each, too.
_NGRAM_ROUNDS, _TOKENS_A_TYPE = 120, 6


def chosen(settings: TrainerSettings, examples: Examples) -> Chosen:
    """`settings`, and what they leave open as it fits `examples`: see `for_text`."""
    if isinstance(settings, Chosen):
        return settings
    tokens = examples.statistics["splits"]["train"]["kept_tokens"]
    counts = Vocabulary.load_counts(examples / VOCABULARY)
    found = for_text(tokens, counts, settings.sample) | settings.model_dump(exclude_none=True)
    types = len(counts) if settings.max_ngram else 0
    how = cut(tokens, found["epochs"], settings.shards, settings.round_tokens, types)
    return Chosen.model_validate(found | how)


def for_text(
    tokens: int, counts: npt.NDArray[np.int64], sample: float | None = None
) -> dict[str, Any]:
    """`sample`, `epochs` and `warm_epochs` for a text.

    Args:
        tokens: That are trained on.
        counts: int64 [types] occurrences of each word.
        sample: What is set, which stays.

    >>> for_text(tokens=20_000_000, counts=np.full(50_000, 400))
    {'sample': 0.0001, 'epochs': 5, 'warm_epochs': 2}
    >>> for_text(tokens=40_000, counts=np.full(70, 571))
    {'sample': 0.0005, 'epochs': 60, 'warm_epochs': 24}
    """
    epochs = 5
    if sample is None:
        least = 2e-5 if tokens < SMALL else 1e-4
        few = [value for value in _SAMPLES if value > least and tokens < LARGE]
        sample = next((s for s in (least, *few) if share_left(counts, s) >= _LEAST_LEFT), least)
    if tokens < LARGE:
        passes = 6.5 * (1e6 / max(1, tokens)) ** 0.25
        epochs = min(_MOST_EPOCHS, round(passes / share_left(counts, sample)))
    return {"sample": sample, "epochs": epochs, "warm_epochs": round(_WARM_SHARE * epochs)}


def cut(
    tokens: int,
    epochs: int,
    shards: int | None = None,
    round_tokens: int | None = None,
    with_ngrams: int = 0,
) -> dict[str, int]:
    """`shards` and `round_tokens` for a training of so many tokens, so many times.

    Args:
        tokens: That are trained on.
        epochs: How often.
        shards: What is set, which stays.
        round_tokens: The same.
        with_ngrams: Words of the vocabulary if they have n-grams; 0: they have none.

    >>> cut(tokens=100_000, epochs=12)
    {'shards': 1, 'round_tokens': 100000}
    >>> cut(tokens=20_000_000, epochs=3)
    {'shards': 8, 'round_tokens': 187500}
    >>> cut(tokens=20_000_000, epochs=3, with_ngrams=80_000)
    {'shards': 4, 'round_tokens': 125000}
    """
    together = min(_ROUND, tokens * epochs // _ROUNDS)
    if with_ngrams:
        shorter = max(tokens * epochs // _NGRAM_ROUNDS, _TOKENS_A_TYPE * with_ngrams)
        together = min(together, shorter)
    if shards is None:
        shards = 1
        while 2 * shards * (round_tokens or _SHARD) <= together:
            shards *= 2
    return {"shards": shards, "round_tokens": round_tokens or max(_SHARD, together // shards)}


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


def share_left(counts: npt.NDArray[np.int64], sample: float) -> float:
    """The share of the tokens that subsampling is expected to leave."""
    return kept_tokens(counts, sample) / float(counts.sum())
