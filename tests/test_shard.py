"""What a shard finds, against a loop over steps and pairs."""

from typing import Any

import numpy as np
import pytest

from components.trainer import shard
from components.trainer.dataset import GROUP
from components.trainer.shard import Found, Size
from components.trainer.skipgrams import Rows

TARGETS, TYPES, DIMENSIONS, NOISE = 128, 40, 6, 16
SMALLEST = Size(1, 1, 1)
UNBOUNDED = 1e9
RATES = 0.01, 0.002


@pytest.fixture(autouse=True)
def few_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that a loop has soon gone through."""
    monkeypatch.setattr(shard, "TARGETS", TARGETS)


def random_rows(seed: int, window: int, length: int, groups: int) -> Rows:
    """Groups of targets with their tokens and noise words; the frequent words are the first."""
    draw = np.random.default_rng(seed)
    count = groups * GROUP // length
    left, right = draw.integers(0, window + 1, [2, count, length]).astype(np.int32)
    if seed % 2:
        left[-1], right[-1] = 0, 0

    def words(*shape: int) -> np.ndarray:
        return (TYPES * draw.random(shape) ** 3).astype(np.int32)

    return Rows(
        words(count, length + 2 * window), left, right, words(groups, NOISE).reshape(count, -1)
    )


def random_tables(seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(TYPES, DIMENSIONS)).astype(np.float32) for _ in "vc"]


def train(
    rows: Rows,
    tables: list[np.ndarray],
    rates: tuple[float, float] | None = RATES,
    smallest: Size = SMALLEST,
    **changes: Any,
) -> Found:
    options: dict[str, Any] = {"window": 2, "negatives": 5, "most_load": UNBOUNDED}
    return shard.train(rows, tables, rates, smallest=smallest, **options | changes)


def steps_of(rows: Rows) -> list[Rows]:
    """The rows of each step."""
    per_step = TARGETS // rows.left.shape[1]
    starts = range(0, len(rows.tokens), per_step)
    return [Rows(*(part[start : start + per_step] for part in rows)) for start in starts]


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores))


def naive_step(
    rows: Rows, vectors: np.ndarray, contexts: np.ndarray, window: int, negatives: int
) -> tuple[list[np.ndarray], list[np.ndarray], float, int]:
    """Of one step: gradients and loads of both tables, the loss, and how many pairs there are."""
    gradients = [np.zeros_like(vectors), np.zeros_like(contexts)]
    loads = [np.zeros(len(vectors)), np.zeros(len(contexts))]
    loss, pairs, length = 0.0, 0, rows.left.shape[1]
    noise = rows.noise.reshape(-1, NOISE)

    def pair(target: int, others: np.ndarray, label: int, weight: float) -> float:
        scores = contexts[others] @ vectors[target]
        errors = weight * (sigmoid(scores) - label)
        gradients[0][target] += errors @ contexts[others]
        np.add.at(gradients[1], others, errors[:, np.newaxis] * vectors[target])
        loads[0][target] += np.abs(errors).sum()
        np.add.at(loads[1], others, np.abs(errors))
        return float(weight * np.log1p(np.exp(scores if label == 0 else -scores)).sum())

    for row, (tokens, left, right) in enumerate(
        zip(rows.tokens, rows.left, rows.right, strict=True)
    ):
        for place, (before, after) in enumerate(zip(left, right, strict=True)):
            here = place + window
            others = np.delete(tokens[here - before : here + after + 1], before)
            group = (row * length + place) // GROUP
            loss += pair(tokens[here], others, 1, 1.0)
            loss += pair(tokens[here], noise[group], 0, len(others) * negatives / NOISE)
            pairs += len(others)
    return gradients, loads, loss, pairs


def naive(
    rows: Rows,
    tables: list[np.ndarray],
    rates: tuple[float, float],
    window: int,
    negatives: int,
    most_load: float,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Tables and paths after all steps, in float64."""
    now = [table.astype(np.float64) for table in tables]
    paths = [np.zeros(len(table)) for table in tables]
    steps = steps_of(rows)
    for index, step in enumerate(steps):
        rate = rates[0] + (rates[1] - rates[0]) * index / len(steps)
        gradients, loads, _, _ = naive_step(step, *now, window, negatives)
        for table, path, gradient, load in zip(now, paths, gradients, loads, strict=True):
            bounded = rate * np.minimum(1, most_load / np.maximum(load, 1e-9))
            table -= bounded[:, np.newaxis] * gradient
            path += rate * np.minimum(load, most_load)
    return now, paths


@pytest.mark.parametrize(
    ("seed", "window", "length", "negatives", "most_load"),
    [
        (0, 2, 32, 5, UNBOUNDED),
        (1, 2, 32, 5, 20.0),
        (2, 2, 32, 5, 3.0),
        (3, 60, 128, 1, 40.0),
    ],
)
def test_a_shard_finds_what_a_loop_over_its_pairs_does(
    seed: int, window: int, length: int, negatives: int, most_load: float
) -> None:
    # Five groups are two steps and a half.
    rows, tables = (
        random_rows(seed, window, length, groups=6 if length > 64 else 5),
        random_tables(seed),
    )
    before = [table.copy() for table in tables]
    options: dict[str, Any] = {"window": window, "negatives": negatives, "most_load": most_load}
    found = train(rows, tables, **options)
    expected, paths = naive(rows, tables, RATES, **options)
    middle = rows.tokens[:, window : window + length]
    for which, named in enumerate([[middle], [rows.tokens, rows.noise]]):
        delta = found.deltas[which]
        assert delta.ids.tolist() == sorted({int(id_) for part in named for id_ in part.ravel()})
        np.testing.assert_allclose(delta.rows, expected[which][delta.ids], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(delta.paths, paths[which][delta.ids], rtol=1e-4, atol=1e-7)
        others = np.setdiff1d(np.arange(TYPES), delta.ids)
        assert (expected[which][others] == before[which][others]).all()
    assert found.steps == 3
    assert all((table == same).all() for table, same in zip(tables, before, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_all_pairs_are_measured_and_nothing_is_learned(seed: int) -> None:
    rows, tables = random_rows(seed, 2, 32, groups=5), random_tables(seed)
    found = train(rows, tables, None)
    steps = [naive_step(step, *tables, 2, 5) for step in steps_of(rows)]
    assert found.loss == pytest.approx(sum(step[2] for step in steps), rel=1e-5)
    assert found.pairs == sum(step[3] for step in steps)
    for delta, table in zip(found.deltas, tables, strict=True):
        assert (delta.rows == table[delta.ids]).all()
        assert not delta.paths.any()


def test_in_training_one_step_stands_for_all() -> None:
    rows, tables = random_rows(0, 2, 32, groups=5), random_tables(0)
    found = train(rows, tables)
    steps = [naive_step(step, *tables, 2, 5) for step in steps_of(rows)]
    means = [loss / pairs for _, _, loss, pairs in steps]
    assert any(found.loss / found.pairs == pytest.approx(mean, rel=1e-5) for mean in means)
    assert found.pairs in [3 * step[3] for step in steps]


def bits(found: Found) -> list[bytes]:
    arrays = [part for delta in found.deltas for part in delta]
    return [part.tobytes() for part in [*arrays, np.array([found.loss, found.pairs, found.steps])]]


# Three steps and all rows have little room to spare, and much.
SMALL, LARGE = SMALLEST.fit(Size(3, TYPES, TYPES)), Size(9, 301, 57)


def test_room_that_is_not_needed_changes_no_bit() -> None:
    rows, tables = random_rows(1, 2, 32, groups=5), random_tables(1)
    expected = bits(train(rows, tables, smallest=SMALL, most_load=20.0))
    assert bits(train(rows, tables, smallest=LARGE, most_load=20.0)) == expected


def test_what_stands_in_room_that_is_not_needed_does_no_harm() -> None:
    rows, tables = random_rows(1, 2, 32, groups=5), random_tables(1)
    few = rows._replace(tokens=rows.tokens // 2, noise=rows.noise // 2)
    expected = bits(train(few, tables, smallest=SMALL))
    nowhere = [np.full_like(table, np.nan) for table in tables]
    found = train(rows, nowhere, smallest=LARGE)  # Leaves what it likes.
    assert np.isnan(found.deltas[0].rows).all()
    assert bits(train(few, tables, smallest=LARGE)) == expected


@pytest.mark.parametrize("rates", [RATES, None])
def test_a_shard_without_rows_finds_nothing(rates: tuple[float, float] | None) -> None:
    rows = Rows(*(part[:0] for part in random_rows(0, 2, 32, groups=2)))
    found = train(rows, random_tables(0), rates)
    assert [len(delta.ids) for delta in found.deltas] == [0, 0]
    assert [delta.rows.shape for delta in found.deltas] == [(0, DIMENSIONS)] * 2
    assert (found.loss, found.pairs, found.steps) == (0, 0, 0)


def test_few_sizes_have_room_for_all() -> None:
    smallest = Size(10, 100, 1000)
    sizes = {smallest.fit(Size(steps, 10 * steps, 90 * steps)) for steps in range(1, 100)}
    assert len(sizes) < 30
    for steps in range(1, 100):
        needed = Size(steps, 10 * steps, 90 * steps)
        assert all(a >= b for a, b in zip(smallest.fit(needed), needed, strict=True))
    assert smallest.fit(Size(1, 100, 1000)) == smallest
