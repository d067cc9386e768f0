"""A model with n-grams answers for every word: its signatures, alignment, checks and commands."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commands import Command
from test_exporter import Signatures
from test_infra_validator import Run, tokens, vectors

from components.artifacts import ExportedModel, VersionBefore
from components.errors import NotBlessedError, SkipstreamError
from components.exporter import alignment, exporter
from components.exporter.embeddings import Embeddings
from components.exporter.storage import store
from components.settings import ExporterSettings, Storage, TrainerSettings
from components.subwords import Buckets, Subwords
from pipeline import config

TYPES, DIMENSIONS = 40, 8
TOKENS = tokens(TYPES)
SUBWORDS = Subwords(3, 6, 500)


def buckets(seed: int = 0) -> Buckets:
    """Half of all, so that hardly a word has none."""
    draw = np.random.default_rng(seed)
    ids = np.flatnonzero(draw.random(SUBWORDS.buckets) < 0.5).astype(np.int32)
    rows = draw.normal(size=(len(ids), DIMENSIONS)).astype(np.float32)
    rows[0] = 0
    return Buckets(SUBWORDS, ids, rows)


def train(root: Path, table: np.ndarray, trained: Buckets) -> Run:
    """A model of TOKENS."""
    run = Run(root).train(TOKENS, table)
    np.save(run.model.path / "buckets.npy", trained.rows)
    np.save(run.model.path / "bucket_ids.npy", trained.ids)
    shortest, longest, number = trained.subwords
    run.model.finish(TrainerSettings(min_ngram=shortest, max_ngram=longest, buckets=number))
    return run


def export(
    run: Run, before: ExportedModel | None = None, name: str = "exported", **settings: str
) -> ExportedModel:
    out = ExportedModel(run.root / name, name)
    out.path.mkdir()
    version = before and VersionBefore(
        1, before.fingerprint, lambda: before.saved_model, None, None
    )
    return exporter.build(
        run.model, run.examples, settings=ExporterSettings(**settings), out=out, before=version
    )


# Buckets of float16 are read as words are: test_exporter has them.
@pytest.fixture(scope="module", params=["float32", "int8"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.param


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("run"), vectors(TYPES), buckets())


@pytest.fixture(scope="module")
def exported(trained: Run, storage: Storage) -> ExportedModel:
    return export(trained, name=storage, storage=storage)


@pytest.fixture(scope="module")
def embeddings(exported: ExportedModel) -> Embeddings:
    return Embeddings.load(exported.saved_model)


@pytest.fixture(scope="module")
def served(storage: Storage) -> Buckets:
    """What numpy makes words of."""
    rows = buckets()
    return Buckets(SUBWORDS, rows.ids[1:], store(rows.rows[1:], storage).restored())


def test_unknown_words_have_the_mean_of_their_ngrams_in_the_tokeniser_s_spelling(
    embeddings: Embeddings, served: Buckets
) -> None:
    words = ["the", "Unheard", " unheard\n", "x" * 10_000, "👩‍🔬", "q", "w3", "two words", "</s>"]
    spelled = ["the", "unheard", "unheard", "x" * 10_000, "👩‍🔬", "q", "w3", "two words", "</s>"]
    found, known = embeddings.vectors_of(words)
    expected = served.compose(spelled)
    expected[[0, 6]] = embeddings.vectors[[0, TOKENS.index("w3")]]
    assert known.tolist() == [word in ("the", "w3") for word in words]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not found[-1].any()
    np.testing.assert_array_equal(found[[0, 6]], expected[[0, 6]])


def test_a_text_is_the_mean_of_all_tokens_that_have_a_vector(
    embeddings: Embeddings, served: Buckets
) -> None:
    texts = ["The unheard, the W3 qqqq!", "the w3", "unheard", "", "東 </s>"]
    mean, token_count, known_count = embeddings.means_of(texts)
    table = dict(zip(TOKENS, embeddings.vectors, strict=True))
    unheard, qqqq, s = served.compose(["unheard", "qqqq", "s"])
    rows: list[list[np.ndarray]] = [
        [table["the"], unheard, table["the"], table["w3"], qqqq],
        [table["the"], table["w3"]],
        [unheard],
        [],
        [table["東"], s],
    ]
    expected = [
        np.mean([row for row in text if row.any()] or [np.zeros(DIMENSIONS)], axis=0)
        for text in rows
    ]
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert (token_count.tolist(), known_count.tolist()) == ([5, 2, 1, 0, 2], [3, 2, 0, 0, 1])
    alone = [embeddings.means_of([text])[0][0] for text in texts]
    np.testing.assert_array_equal(mean, alone)


def test_unknown_words_are_questions_like_others(embeddings: Embeddings, served: Buckets) -> None:
    table = embeddings.vectors
    units = table / np.linalg.norm(table, axis=1, keepdims=True)
    unheard = served.compose(["unheard"])[0]
    unheard /= np.linalg.norm(unheard)

    def best(target: np.ndarray, left_out: int) -> list[str]:
        cosines = units @ target
        cosines[left_out] = -9
        return [TOKENS[id_] for id_ in np.argsort(-cosines)[:5]]

    nearest = embeddings.nearest(["unheard", "the", ""], 5)
    assert [row and [word for word, _ in row] for row in nearest] == [
        [TOKENS[id_] for id_ in np.argsort(-units @ unheard)[:5]],
        best(units[0], 0),
        None,
    ]
    found = embeddings.analogy("unheard", "the", "Unheard", 5)
    assert found is not None
    assert [word for word, _ in found] == best(units[0], 0)
    assert embeddings.analogy("", "the", "unheard", 5) is None


@pytest.mark.parametrize("storage", ["float32"], indirect=True)
def test_answers_say_which_words_are_in_the_vocabulary(exported: ExportedModel) -> None:
    ask = Signatures(tf.saved_model.load(str(exported.saved_model)))
    answer = ask("nearest", words=["unheard", "the", ""], k=1)
    assert answer["in_vocabulary"] == [False, True, False]
    assert [row != [""] for row in answer["neighbors"]] == [True, True, False]


def test_buckets_can_be_read_from_the_saved_model(embeddings: Embeddings, served: Buckets) -> None:
    found = embeddings.buckets()
    assert found is not None
    assert found.subwords == SUBWORDS
    np.testing.assert_array_equal(found.ids, served.ids, strict=True)
    np.testing.assert_array_equal(found.rows, served.rows, strict=True)


@pytest.mark.usefixtures("probe_here")
@pytest.mark.parametrize("storage", ["int8"], indirect=True)  # The turned ones are of float32.
def test_an_export_with_buckets_is_blessed(trained: Run, exported: ExportedModel) -> None:
    assert exported.summary["buckets"] == len(buckets().ids) - 1
    assert trained.validate(exported).summary["calls"] == 28


@pytest.mark.usefixtures("probe_here")
@pytest.mark.parametrize("storage", ["int8"], indirect=True)
def test_buckets_of_another_training_are_found_in_every_signature(
    trained: Run, exported: ExportedModel, tmp_path: Path
) -> None:
    run = train(tmp_path, vectors(TYPES), buckets(seed=1))
    with pytest.raises(NotBlessedError, match="serving_default of unknown words: embedding"):
        run.validate(exported)
    found = {difference.split(" of ")[0] for difference in run.report["differences"]}
    assert found == {"serving_default", "embed_text", "nearest", "analogy"}


@pytest.mark.usefixtures("probe_here")
@pytest.mark.parametrize("storage", ["float32"], indirect=True)
def test_buckets_are_turned_with_the_words(exported: ExportedModel, tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=[DIMENSIONS] * 2))[0]
    rows = (buckets().rows @ turn).astype(np.float32)
    turned = Buckets(SUBWORDS, buckets().ids, rows)
    run = train(tmp_path, (vectors(TYPES) @ turn).astype(np.float32), turned)
    second = export(run, exported)
    assert second.summary["alignment_residual"] < 1e-5
    words = ["unheard", "the", "q"]
    before, now = (
        Embeddings.load(made.saved_model).vectors_of(words)[0] for made in (exported, second)
    )
    np.testing.assert_allclose(now, before, atol=1e-5)
    checked = alignment.served_buckets(second, run.model)
    assert checked is not None
    np.testing.assert_allclose(checked.rows, buckets().rows, atol=1e-5)
    run.validate(second)


def test_averages_with_contexts_are_refused(tmp_path: Path) -> None:
    run = train(tmp_path, vectors(TYPES), buckets())
    with pytest.raises(
        SkipstreamError, match="must be target for a model with n-grams, .* average"
    ):
        export(run, vectors="average")
    ngrams = ["trainer.min_ngram=3", "trainer.max_ngram=6"]
    with pytest.raises(SkipstreamError, match="must be target with n-grams, .* got average"):
        config.load(None, [*ngrams, "exporter.vectors=average"])
    assert config.load(None, ngrams).exporter.vectors == "target"


@pytest.mark.parametrize("storage", ["float32"], indirect=True)
def test_warm_up_asks_for_an_unknown_word_too(exported: ExportedModel) -> None:
    (path,) = (exported.saved_model / "assets.extra").glob("*warmup*")
    for record in tf.data.TFRecordDataset(str(path)).take(3).as_numpy_iterator():
        assert b"zzzznotaword" in record


@pytest.mark.parametrize("storage", ["float32"], indirect=True)
def test_commands_answer_for_unknown_words_and_mark_them(
    exported: ExportedModel, command: Command
) -> None:
    mark = "unheard (not in the vocabulary: from its n-grams)\n"
    done = command("neighbors", exported.saved_model, "unheard", "the", "-k", 1)
    assert (done.returncode, done.stderr) == (0, mark)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["unheard", "the"]
    done = command("analogy", exported.saved_model, "the", "unheard", "w3", "-k", 2)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, mark, 2)
    done = command("neighbors", exported.saved_model, "</s>", "the", "-k", 1)
    assert done.returncode == 1
    assert "not in the model's vocabulary: </s>" in done.stderr
