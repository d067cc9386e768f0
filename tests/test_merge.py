"""The merge of what shards found, row by row against its formula, and what it must do."""

import numpy as np
import pytest

from components.trainer.merge import Delta, Directions, apart, directions, merge

K = 4.0


def random_directions(draw: np.random.Generator, dimensions: int, count: int) -> Directions:
    basis = np.linalg.qr(draw.normal(size=(dimensions, count)))[0]
    bends = 10.0 ** draw.uniform(-4, 1, count)
    rest = np.float32(0.0 if count == dimensions else 10.0 ** draw.uniform(-6, -1))
    return Directions(basis.astype(np.float32), bends.astype(np.float32), rest)


def random_deltas(
    draw: np.random.Generator, table: np.ndarray, shards: int, *, untrained: float = 0.0
) -> list[Delta]:
    deltas = []
    for _ in range(shards):
        ids = np.flatnonzero(draw.random(len(table)) < draw.uniform(0, 1)).astype(np.int32)
        paths = (10.0 ** draw.uniform(-4, 3, len(ids))).astype(np.float32)
        moves = draw.normal(size=(len(ids), table.shape[1]))
        still = draw.random(len(ids)) < untrained
        paths[still], moves[still] = 0, 0
        deltas.append(Delta(ids, (table[ids] + moves).astype(np.float32), paths))
    return deltas


def random_table(draw: np.random.Generator, dimensions: int, types: int = 60) -> np.ndarray:
    return draw.normal(size=(types, dimensions)).astype(np.float32)


def naive(table: np.ndarray, deltas: list[Delta], along: Directions) -> np.ndarray:
    """A row at a time, a direction at a time, in float64."""
    result = table.astype(np.float64)
    basis, bends = along.basis.astype(np.float64), along.bends.astype(np.float64)
    for row in range(len(table)):
        moves, paths = [], []
        for delta in deltas:
            for id_, there, path in zip(*delta, strict=True):
                if id_ == row and path > 0:
                    moves.append(there.astype(np.float64) - table[row])
                    paths.append(float(path))
        if not moves:
            continue
        count, whole, total = len(moves), sum(paths), np.sum(moves, 0)

        def scale(bend: float, count: int = count, whole: float = whole) -> float:
            if bend == 0:
                return 1.0
            way = whole * bend
            return float(np.expm1(-way) / (count * np.expm1(-way / count)))

        left = total.copy()
        for direction, bend in zip(basis.T, bends, strict=True):
            inside = (total @ direction) * direction
            left -= inside
            result[row] += scale(bend) * inside
        result[row] += scale(float(along.rest)) * left
    return result


@pytest.mark.parametrize("seed", range(24))
def test_rows_move_as_the_formula_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    dimensions = int(draw.integers(1, 40))
    table = random_table(draw, dimensions)
    along = random_directions(draw, dimensions, min(dimensions, int(draw.integers(1, 9))))
    deltas = random_deltas(draw, table, int(draw.integers(2, 9)), untrained=0.2 * (seed % 2))
    expected = naive(table, deltas, along)
    merge(table, deltas, along)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("others", [0, 3])
def test_one_shard_is_taken_as_it_is(others: int) -> None:
    draw = np.random.default_rng(0)
    table = random_table(draw, 16)
    (delta,) = random_deltas(draw, table, 1)
    empty = Delta(np.zeros(0, np.int32), table[:0], np.zeros(0, np.float32))
    expected = table.copy()
    expected[delta.ids] = delta.rows
    merge(table, [*[empty] * others, delta], random_directions(draw, 16, 8))
    assert (table == expected).all()


def test_shards_that_find_nothing_leave_all_as_it_is() -> None:
    table = random_table(np.random.default_rng(0), 16)
    empty = Delta(np.zeros(0, np.int32), table[:0], np.zeros(0, np.float32))
    before = table.copy()
    merge(table, [empty, empty], random_directions(np.random.default_rng(0), 16, 8))
    assert (table == before).all()


def equal_deltas(table: np.ndarray, move: np.ndarray, path: float, shards: int) -> list[Delta]:
    ids = np.arange(len(table), dtype=np.int32)
    paths = np.full(len(table), path, np.float32)
    return [Delta(ids, table + move, paths) for _ in range(shards)]


def test_shards_that_went_the_whole_way_to_one_place_count_once() -> None:
    draw = np.random.default_rng(1)
    table, move = random_table(draw, 16), random_table(draw, 16)
    along = directions(draw.normal(size=(500, 16)).astype(np.float32))
    expected = table + move
    merge(table, equal_deltas(table, move, path=1000, shards=8), along)
    np.testing.assert_allclose(table, expected, atol=1e-4)


def test_short_ways_add_up() -> None:
    draw = np.random.default_rng(2)
    table = random_table(draw, 16)
    moves = 0.1 * np.eye(16, dtype=np.float32)[:4, np.newaxis]  # Each shard in its own direction.
    ids, paths = np.arange(60, dtype=np.int32), np.full(60, 1e-5, np.float32)
    expected = table + moves.sum(0)
    along = directions(draw.normal(size=(500, 16)).astype(np.float32))
    merge(table, [Delta(ids, table + move, paths) for move in moves], along)
    np.testing.assert_allclose(table, expected, atol=1e-5)


def test_a_row_that_one_shard_trained_goes_where_it_went() -> None:
    # Others name it, as a token that is in no pair: they have no part in it.
    draw = np.random.default_rng(3)
    table = random_table(draw, 16)
    ids = np.arange(60, dtype=np.int32)
    trained = Delta(ids, table + 1, np.full(60, 100, np.float32))
    named = Delta(ids, table.copy(), np.zeros(60, np.float32))
    expected = trained.rows.copy()
    merge(table, [named, trained, named], random_directions(draw, 16, 8))
    assert (table == expected).all()


def test_what_is_not_a_number_does_not_get_lost() -> None:
    table = random_table(np.random.default_rng(4), 16)
    good, bad = equal_deltas(table, np.ones_like(table), path=1, shards=2)
    bad.paths[7], bad.rows[7] = np.nan, np.nan
    merge(table, [good, bad], random_directions(np.random.default_rng(4), 16, 8))
    assert np.flatnonzero(np.isnan(table).any(1)).tolist() == [7]


@pytest.mark.parametrize("dimensions", [1, 7, 16, 100, 300])
@pytest.mark.parametrize("parts", [2, 9, 60])
def test_parts_of_any_cut_give_the_bits_of_the_whole(dimensions: int, parts: int) -> None:
    draw = np.random.default_rng(dimensions)
    table = random_table(draw, dimensions)
    along = random_directions(draw, dimensions, min(dimensions, 4))
    deltas = random_deltas(draw, table, 5)
    in_parts = table.copy()
    merge(table, deltas, along)
    cuts = np.sort(draw.choice(np.arange(1, 60), parts - 1, replace=False))
    for low, high in zip([0, *cuts], [*cuts, 60], strict=True):
        mine = []
        for ids, rows, paths in deltas:
            inside = slice(*np.searchsorted(ids, [low, high]))
            mine.append(Delta(ids[inside], rows[inside], paths[inside]))
        merge(in_parts, mine, along)
    assert (in_parts == table).all()


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 8, 9, 50])
def test_directions_are_those_of_the_partners(dimensions: int) -> None:
    draw = np.random.default_rng(dimensions)
    # The second moment's eigenvalues fall by half, in axes of no importance.
    turn = np.linalg.qr(draw.normal(size=(dimensions, dimensions)))[0]
    partners = draw.normal(size=(3000, dimensions)) * 0.5 ** np.arange(dimensions) @ turn
    found = directions(partners.astype(np.float32))
    count = apart(dimensions)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(count), atol=1e-5)
    moment = partners.T @ partners / len(partners)
    values = np.linalg.eigvalsh(moment)[::-1]
    np.testing.assert_allclose(np.sort(found.bends)[::-1], K * values[:count], 0.02, atol=1e-6)
    rest = K * values[count:].mean() if count < dimensions else 0
    assert found.rest == pytest.approx(rest, rel=0.02, abs=1e-7)


def test_partners_of_zeros_have_directions_that_damp_nothing() -> None:
    draw = np.random.default_rng(5)
    table, move = random_table(draw, 16), random_table(draw, 16)
    along = directions(np.zeros((500, 16), np.float32))
    assert np.isfinite(along.basis).all()
    expected = table + 4 * move
    merge(table, equal_deltas(table, move, path=10, shards=4), along)
    np.testing.assert_allclose(table, expected, atol=1e-4)
