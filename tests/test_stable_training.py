"""Training is stable: what moves a row far moves it no further than is good."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_dataset import random_documents, write_examples
from trainings import SETTINGS, train, vectors

from components.trainer.optimizer import RowGradients, Table, joined, moved


def row_gradients(ids: list[int], values: list[list[float]], load: float = 0) -> RowGradients:
    loads = tf.constant([load] * len(ids), tf.float32)
    return RowGradients(tf.constant(ids), tf.constant(values, tf.float32), loads)


def test_repeated_rows_add_up_and_others_stay() -> None:
    table = Table(tf.ones([4, 2]), tf.constant([1.0, 2.0, 3.0, 4.0]))
    parts = [row_gradients([2, 0], [[1, 2], [3, 4]], 8), row_gradients([2], [[5, 6]])]
    rows, paths = moved(table, joined(parts), tf.constant(0.5), tf.constant(100.0))
    assert rows.numpy().tolist() == [[-0.5, -1], [1, 1], [-2, -3], [1, 1]]
    assert paths.numpy().tolist() == [5, 2, 7, 4]


def test_occurrences_in_several_axes_are_joined_in_their_order() -> None:
    draw = np.random.default_rng(0)
    ids, loads = draw.integers(0, 9, 12).astype(np.int32), draw.random(12, np.float32)
    values = draw.random((12, 5), np.float32)
    folded = RowGradients(ids.reshape(2, 6), values.reshape(2, 6, 5), loads.reshape(2, 6))
    last = RowGradients(ids[:3], values[:3], loads[:3])
    for whole, part in zip(joined([folded, last]), (ids, values, loads), strict=True):
        assert whole.numpy().tolist() == [*part.tolist(), *part[:3].tolist()]


@pytest.mark.parametrize("seed", range(5))
def test_a_row_with_a_great_load_moves_as_if_by_the_most(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 12, 300)
    loads = (draw.random(300) * 3).astype(np.float32)
    gradients = RowGradients(tf.constant(ids, tf.int32), tf.ones([300, 1]), tf.constant(loads))
    table = Table(tf.zeros([13, 1]), tf.zeros([13]))
    rows, paths = moved(table, gradients, tf.constant(0.1), tf.constant(35.0))
    counts = np.bincount(ids, minlength=13)
    sums = np.bincount(ids, loads, minlength=13)
    naive = 0.1 * np.minimum(1, 35 / np.maximum(sums, 1e-9))
    np.testing.assert_allclose(-rows.numpy()[:, 0], naive * counts, rtol=1e-5)
    np.testing.assert_allclose(paths, 0.1 * np.minimum(sums, 35), rtol=1e-5)
    assert (sums > 35).any() and (sums[:12] < 35).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"types": 3},
        {"burst": 5_000, "learning_rate": 1.0},
        {"burst": 10_000, "shards": 4},
        {"learning_rate": 1.0, "shards": 4},
        {"types": 1000, "dimensions": 300, "window": 20},
    ],
    ids=str,
)
def test_training_is_stable(changes: dict[str, float], tmp_path: Path) -> None:
    changes = {"types": 50, "burst": 0, "shards": 1} | changes
    types, burst = int(changes.pop("types")), int(changes.pop("burst"))
    documents = random_documents(1, 1001, types) + [[types - 1] * burst]
    examples = write_examples(tmp_path / "examples", documents, types=types)
    model = train(examples, tmp_path / "model", SETTINGS.model_copy(update=changes))
    assert model.summary["held_out_loss"] < 4.1  # Untrained: 4.16.
    assert np.linalg.norm(vectors(model), axis=1).max() < 50
