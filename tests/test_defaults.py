"""What a training does where its settings leave it open."""

from pathlib import Path

import numpy as np
import pytest
from test_dataset import random_documents, write_examples

from components.defaults import LARGE, chosen, for_text, kept_tokens
from components.settings import TrainerSettings

FEW_WORDS = np.full(70, 600)
ENGLISH = (1e6 / np.arange(1, 50_000)).astype(np.int64)


@pytest.mark.parametrize("counts", [FEW_WORDS, ENGLISH])
@pytest.mark.parametrize("tokens", [LARGE, 10**12])
def test_large_texts_are_trained_as_word2vec_does(tokens: int, counts: np.ndarray) -> None:
    assert for_text(tokens, counts) == {"sample": 1e-4, "epochs": 5, "warm_epochs": 2}


def test_the_smaller_a_text_the_more_epochs() -> None:
    epochs = [for_text(10**n, ENGLISH)["epochs"] for n in range(3, 9)]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (60, 5)


@pytest.mark.parametrize("types", [3, 20, 70, 500, 50_000])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_subsampling_leaves_a_fifth_of_a_small_text(types: int, power: float) -> None:
    counts = (1e6 / np.arange(1, types + 1) ** power).astype(np.int64) + 5
    sample = for_text(1_000_000, counts)["sample"]
    assert kept_tokens(counts, sample) >= counts.sum() / 5
    assert sample == 2e-5 or kept_tokens(counts, sample / 2.5) < counts.sum() / 5


def test_the_less_is_left_the_more_epochs() -> None:
    epochs = [for_text(10**6, ENGLISH, sample)["epochs"] for sample in (1e-5, 1e-4, 1e-3, 0)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] == 6  # 6.5, all tokens


def test_what_is_set_stays_and_what_is_chosen_is_as_if_it_were_set(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0), types=50)
    found = chosen(TrainerSettings(sample=0, seed=7), examples)
    assert (found.sample, found.epochs, found.warm_epochs, found.seed) == (0, 29, 12, 7)
    assert chosen(found, examples) is found
    assert (found.shards, found.round_tokens) == (1, 100_000)
    changes = {"sample": 0, "epochs": 29, "warm_epochs": 12, "shards": 1, "round_tokens": 100_000}
    spelled_out = chosen(TrainerSettings(seed=7, **changes), examples)
    assert spelled_out == found
    assert (found.warm().epochs, found.warm().learning_rate) == (12, 0.025)
    cut = chosen(TrainerSettings(shards=5, round_tokens=77), examples)
    assert (cut.shards, cut.round_tokens) == (5, 77)
