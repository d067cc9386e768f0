"""The tf.data pipeline: two views of the same pairs, and nothing random but by (seed, epoch)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.artifacts import Examples, write_json
from components.errors import SkipstreamError
from components.settings import TrainerSettings, TransformSettings
from components.trainer import tokens
from components.trainer.dataset import GROUP, TARGETS, SkipGrams, noise_words
from components.trainer.rounds import BLOCK
from components.trainer.skipgrams import Rows
from components.trainer.workers import Workers
from components.vocabulary import Vocabulary


def write_examples(
    path: Path,
    documents: list[list[int]],
    types: int,
    files: int = 3,
    held_out: bool = True,
) -> Examples:
    """An Examples artifact of these documents, as the Transform stage would write it."""
    splits = {"train": documents, "eval": documents[::10] if held_out else []}
    for split, chosen in splits.items():
        (path / split).mkdir(parents=True)
        for shard in range(files):
            name = str(path / split / f"{shard:06d}.tfrecord.gz")
            with tf.io.TFRecordWriter(name, "GZIP") as writer:
                for document in chosen[shard::files]:
                    ids = tf.train.Feature(int64_list=tf.train.Int64List(value=document))
                    features = tf.train.Features(feature={"ids": ids})
                    writer.write(tf.train.Example(features=features).SerializeToString())
    counts = Counter(id_ for document in documents for id_ in document)
    Vocabulary(
        tuple(f"w{id_}" for id_ in range(types)),
        np.array([max(1, counts[id_]) for id_ in range(types)]),
    ).save(path / "vocabulary.tsv")
    sizes = {
        split: {
            "documents": len(chosen),
            "tokens": sum(map(len, chosen)),
            "kept_tokens": sum(map(len, chosen)),
            "files": {file.name: file.stat().st_size for file in sorted((path / split).iterdir())},
        }
        for split, chosen in splits.items()
    }
    tokens = sum(counts.values())
    statistics = {"tokens": tokens, "kept_tokens": tokens, "splits": sizes}
    write_json(path / "statistics.json", statistics)
    return Examples(path, "fingerprint").finish(TransformSettings())


def random_documents(seed: int, count: int = 120, types: int = 50) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [
        (types * draw.random(draw.integers(1, 40)) ** 2).astype(int).tolist() for _ in range(count)
    ]


Pairs = Counter[tuple[int, int]]


def trained_pairs(data: SkipGrams, epoch: int, window: int) -> Pairs:
    """The pairs in the layout that the trainer consumes, read off in plain Python."""
    return sum((pairs_of(step, window) for step in data.rows(epoch)), Counter())


def pairs_of(rows: Rows, window: int) -> Pairs:
    pairs: Pairs = Counter()
    tokens, left, right, _ = map(np.asarray, rows)
    length = left.shape[1]
    targets = tokens[:, window : window + length]
    for reach in range(1, window + 1):
        for there, start in (left >= reach, window - reach), (right >= reach, window + reach):
            contexts = tokens[:, start : start + length]
            pairs.update(zip(targets[there].tolist(), contexts[there].tolist(), strict=True))
    return pairs


def in_blocks(documents: list[list[int]], files: int) -> Iterator[list[int]]:
    """The documents as they lie in the files, those that reach over a block's end cut there."""
    place = 0
    for document in (document for file in range(files) for document in documents[file::files]):
        while document:
            room = BLOCK - place % BLOCK
            yield document[:room]
            place += len(document[:room])
            document = document[room:]


def whole_windows(documents: Iterable[list[int]], window: int) -> Pairs:
    """The pairs of all tokens that are no further from each other than `window`."""
    return Counter(
        (document[place], document[other])
        for document in documents
        for place in range(len(document))
        for other in range(max(0, place - window), min(len(document), place + window + 1))
        if other != place
    )


def test_both_views_hold_the_same_pairs(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, random_documents(3), types=50)
    data = SkipGrams(examples, TrainerSettings(seed=3, window=7, sample=0.01))
    explicit = Counter(
        pair
        for batch in data.pairs(epoch=3, batch_size=100)
        for pair in zip(batch.target.numpy().tolist(), batch.context.numpy().tolist(), strict=True)
    )
    assert explicit == trained_pairs(data, epoch=3, window=7)
    assert explicit.total() > 500


def test_without_subsampling_every_close_pair_is_seen(tmp_path: Path) -> None:
    documents = random_documents(1, 80)  # Within one block, where nothing is cut.
    settings = TrainerSettings(sample=0, window=1)
    data = SkipGrams(write_examples(tmp_path, documents, types=50), settings)
    naive = Counter(
        pair
        for document in documents
        for a, b in zip(document, document[1:], strict=False)
        for pair in [(a, b), (b, a)]
    )
    assert trained_pairs(data, 0, 1) == naive


def bits(data: SkipGrams, epoch: int) -> list[bytes]:
    return [part.tobytes() for part in data.span(epoch, 0, data.blocks)]


def test_an_epoch_is_a_function_of_seed_and_epoch(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, random_documents(2), types=50)
    data = SkipGrams(examples, TrainerSettings(seed=7))
    again = SkipGrams(examples, TrainerSettings(seed=7))
    other = SkipGrams(examples, TrainerSettings(seed=8))
    first = bits(data, 0)
    tf.random.set_seed(99)  # What else runs in the process has no part in it.
    assert bits(again, 0) == first
    assert bits(data, 1) != first
    assert bits(data, 0) == first
    assert bits(other, 0) != first


# A document longer than any block, and behind it blocks that end within short ones.
LONG = [place % 50 for place in range(3 * BLOCK + 77)]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, Pairs]:
    """A corpus of some blocks, and its pairs in whole windows of two."""
    documents = [LONG, *random_documents(3, count=400)]
    examples = write_examples(tmp_path_factory.mktemp("cut"), documents, types=50)
    return examples, whole_windows(in_blocks(documents, files=3), window=2)


def whole_windows_of_two(**changes: int) -> TrainerSettings:
    return TrainerSettings(window=2, sample=0, shrink_windows=False, **changes)


@pytest.mark.parametrize("together", [1, 2, 16])
def test_rows_and_what_is_measured_have_each_pair_once(
    cut: tuple[Examples, Pairs], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, expected = cut
    data = SkipGrams(examples, whole_windows_of_two())
    assert trained_pairs(data, 0, 2) == expected
    monkeypatch.setattr("components.trainer.dataset._MEASURED", together)
    one, several = Workers(["CPU:0"]), Workers(["CPU:0"] * 3)
    shards, again = (
        [rows for shards in data.measured(workers) for rows in shards] for workers in (one, several)
    )
    assert sum((pairs_of(rows, 2) for rows in shards), Counter()) == expected
    assert len(shards) == -(-data.blocks // together)
    assert [[*map(bytes, rows)] for rows in again] == [[*map(bytes, rows)] for rows in shards]


@pytest.mark.parametrize(("shards", "round_tokens"), [(1, BLOCK), (3, 10**9), (16, 1)])
def test_the_shards_of_all_rounds_have_each_pair_once(
    cut: tuple[Examples, Pairs], shards: int, round_tokens: int
) -> None:
    examples, expected = cut
    data = SkipGrams(examples, whole_windows_of_two(shards=shards, round_tokens=round_tokens))
    for epoch in (0, 20):  # When little and when much is learned.
        plan, found = data.plan(epoch), Counter[tuple[int, int]]()
        for round_, spans in zip(plan, data.spans(epoch), strict=True):
            assert spans.count.shape == [shards]
            where = np.stack([spans.epoch, spans.first, spans.blocks], 1)
            assert (where == [epoch, *round_]).all()
            for shard in range(shards):
                rows = Rows(*(part[shard][: spans.count[shard]] for part in spans.rows))
                found += pairs_of(rows, window=2)
                first = round_.first + shard * round_.blocks
                alone = data.span(epoch, first, round_.blocks)  # As a worker elsewhere has it.
                for part, same in zip(rows, alone, strict=True):
                    assert (part.numpy() == same).all()
        assert found == expected


def spans_bits(dataset: tf.data.Dataset) -> list[bytes]:
    return [b"".join(part.numpy().tobytes() for part in tf.nest.flatten(one)) for one in dataset]


def test_rounds_that_are_done_leave_the_rest_as_it_was(cut: tuple[Examples, Pairs]) -> None:
    data = SkipGrams(cut[0], TrainerSettings(shards=2, round_tokens=1))
    whole = spans_bits(data.spans(0))
    assert len(whole) == len(data.plan(0)) > 2
    assert spans_bits(data.spans(0, skip=2)) == whole[2:]
    assert spans_bits(data.spans(0, skip=len(whole))) == []
    assert spans_bits(data.spans(1)) != whole


def test_what_is_measured_does_not_depend_on_the_cut(cut: tuple[Examples, Pairs]) -> None:
    one, other = (
        SkipGrams(cut[0], TrainerSettings(shards=shards, round_tokens=tokens))
        for shards, tokens in [(1, 10**6), (8, 1)]
    )
    workers = Workers(["CPU:0"])
    bits = [[bytes(part) for part in rows] for (rows,) in one.measured(workers)]
    assert bits == [[bytes(part) for part in rows] for (rows,) in other.measured(workers)]


@pytest.mark.parametrize("files", [1, 11])
def test_tokens_lie_one_behind_the_other_with_the_last_ones_marked(
    tmp_path: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_DOCUMENTS", 7)
    documents = [[], *random_documents(7), [], [0], [3]]
    examples = write_examples(tmp_path, documents, types=50, files=files)
    expected = [
        ~id_ if place == len(document) - 1 else id_
        for file in range(files)
        for document in documents[file::files]
        for place, id_ in enumerate(document)
    ]
    found = tokens.unpacked(examples.records("train"), len(expected), tmp_path)
    assert found.tolist() == expected
    assert len(tokens.unpacked(examples.records("train"), 1, tmp_path)) <= len(expected)
    assert found.dtype == np.int32
    assert not list(tmp_path.glob("tmp*"))


def test_records_that_lack_tokens_are_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, random_documents(0), types=50)
    data = SkipGrams(examples, TrainerSettings())
    data.tokens += 1
    with pytest.raises(SkipstreamError, match=r"must hold .* tokens to train, got .*: delete that"):
        data.unpack()


def test_expected_steps_are_the_real_ones_or_nearly(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, random_documents(4, count=3000), types=50)
    data = SkipGrams(examples, TrainerSettings(sample=0.01))
    steps = sum(1 for _ in data.rows(0))
    assert steps == pytest.approx(data.steps, rel=0.1)


@pytest.mark.parametrize(("window", "length"), [(3, 32), (20, 64), (60, 128)])
def test_rows_have_the_declared_shapes(tmp_path: Path, window: int, length: int) -> None:
    settings = TrainerSettings(window=window)
    data = SkipGrams(write_examples(tmp_path, random_documents(5), 50), settings)
    shapes = {"tokens": length + 2 * window, "left": length, "right": length}
    shapes["noise"] = noise_words(settings) * length // GROUP
    for name, part in data.rows(0).element_spec._asdict().items():
        assert part == tf.TensorSpec([TARGETS // length, shapes[name]], tf.int32)


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [({}, 32), ({"window": 10}, 64), ({"negatives": 20}, 128), ({"shrink_windows": False}, 64)],
)
def test_a_group_has_the_noise_words_of_one_target(changes: dict[str, Any], drawn: int) -> None:
    settings = TrainerSettings(**changes)
    pairs = settings.window + 1 if settings.shrink_windows else 2 * settings.window
    assert 0 <= drawn - settings.negatives * pairs < 16
    assert noise_words(settings) == drawn


def test_windows_that_do_not_shrink_reach_as_far_as_the_document(tmp_path: Path) -> None:
    documents = [[1] * 9, [2] * 2, [3] * 9]
    settings = TrainerSettings(window=4, sample=0, shrink_windows=False)
    examples = write_examples(tmp_path, documents * 60, types=50)
    pairs = sum(
        int(tf.size(batch.target))
        for batch in SkipGrams(examples, settings).pairs(epoch=0, batch_size=100)
    )
    # In each direction, nine tokens have 8 + 7 + 6 + 5 pairs, and two have 1.
    assert pairs == 60 * 2 * (26 + 26 + 1)


def test_a_plain_keras_model_learns_from_the_explicit_pairs(tmp_path: Path) -> None:
    # Documents are about even or about odd words only, so a context tells its target's parity.
    draw = np.random.default_rng(0)
    documents = [(2 * draw.integers(0, 10, 20) + parity).tolist() for parity in [0, 1] * 60]
    data = SkipGrams(write_examples(tmp_path, documents, types=20), TrainerSettings(sample=0))
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Embedding(20, 8), keras.layers.Dense(20, activation="softmax")]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    pairs = data.pairs(epoch=0, batch_size=64).cache().repeat()
    losses = model.fit(pairs, epochs=2, steps_per_epoch=150, shuffle=False, verbose=0).history[
        "loss"
    ]
    assert losses[-1] < np.log(20) - 0.5  # Knowing the parity is worth log 2 = 0.69.


def test_noise_words_follow_the_noise_distribution(tmp_path: Path) -> None:
    examples = write_examples(tmp_path, random_documents(6, count=1000), types=50)
    data = SkipGrams(examples, TrainerSettings(sample=0, noise_exponent=0.5))
    # Behind the last rows of all are some without a pair, and without noise words.
    steps = [Rows(*(part.numpy() for part in step)) for step in data.rows(0)]
    drawn = np.concatenate([step.noise[step.left.any(1)].ravel() for step in steps])
    counts = Vocabulary.load(examples.path / "vocabulary.tsv").counts
    expected = counts**0.5 / (counts**0.5).sum()
    observed = np.bincount(drawn, minlength=50) / len(drawn)
    np.testing.assert_allclose(observed, expected, atol=4 * np.sqrt(0.25 / len(drawn)))


def test_counts_are_read_without_the_words(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.tsv"
    path.write_bytes(b'the\t12\n"\x85\xc3\xa9\t3\nx\t3\n')
    assert Vocabulary.load_counts(path).tolist() == [12, 3, 3]
    path.write_bytes(b"the\t12\nnothing\n")
    with pytest.raises(SkipstreamError, match="must hold UTF-8 lines of token<TAB>count"):
        Vocabulary.load_counts(path)
    path.write_bytes(b"the\t12\na\t1")
    with pytest.raises(SkipstreamError, match="ends within a line"):
        Vocabulary.load_counts(path)
    with pytest.raises(SkipstreamError, match="cannot be read"):
        Vocabulary.load_counts(tmp_path / "nowhere")
