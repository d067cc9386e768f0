"""The SavedModel: its four signatures, its independence, and what happens when it is damaged."""

import json
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.artifacts import Examples, ExportedModel, Model
from components.errors import SkipstreamError
from components.exporter import exporter
from components.exporter.embeddings import Embeddings
from components.exporter.served import resolve
from components.exporter.signatures import EmbeddingModel
from components.exporter.storage import store
from components.phrases import FILE, HEADER
from components.settings import ExporterSettings, TrainerSettings, TransformSettings
from components.text import Tokenizer, tokenize
from components.vocabulary import Vocabulary

# North and south are opposite, "up" is nowhere, "norte" is exactly as north as "north".
TOKENS = ("north", "east", "south", "don't", "東", "norte", "up")
VECTORS = np.array([[0, 2], [3, 0], [0, -1], [1, 1], [-1, 0], [0, 2], [0, 0]], np.float32)


def export(
    root: Path,
    tokens: tuple[str, ...] = TOKENS,
    vectors: np.ndarray = VECTORS,
    tokenizer: Tokenizer = "words",
    phrases: bytes = b"",
) -> ExportedModel:
    """Export `tokens` with `vectors`."""
    for name in ("model", "examples", "exported"):
        (root / name).mkdir(parents=True)
    np.save(root / "model" / "vectors.npy", vectors)
    Vocabulary(tokens, np.arange(len(tokens), 0, -1)).save(root / "examples" / "vocabulary.tsv")
    if phrases:
        (root / "examples" / FILE).write_bytes(HEADER + phrases)
    settings = TransformSettings(tokenizer=tokenizer, lowercase=True)
    return exporter.build(
        Model(root / "model", "1").finish(TrainerSettings()),
        Examples(root / "examples", "2").finish(settings),
        settings=ExporterSettings(),
        out=ExportedModel(root / "exported", "3"),
    )


@dataclass(frozen=True)
class Signatures:
    """Signatures that take and return plain Python values."""

    model: Any

    def __call__(self, signature: str, **inputs: Any) -> dict[str, Any]:
        tensors = {
            name: tf.constant(value, tf.int32 if isinstance(value, int) else tf.string)
            if isinstance(value, int) or value
            else tf.constant([], tf.string)
            for name, value in inputs.items()
        }
        answer = self.model.signatures[signature](**tensors)
        return {
            name: [[word.decode() for word in row] for row in tensor.numpy().tolist()]
            if tensor.dtype == tf.string
            else tensor.numpy().tolist()
            for name, tensor in answer.items()
        }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def ask(exported: ExportedModel) -> Signatures:
    return Signatures(tf.saved_model.load(str(exported.saved_model)))


def test_signatures_have_the_names_dtypes_and_shapes_of_the_contract(ask: Signatures) -> None:
    def described(specs: dict[str, tf.TensorSpec]) -> dict[str, tuple[str, list[int | None]]]:
        return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}

    signatures = {
        name: (
            described(signature.structured_input_signature[1]),
            described(signature.structured_outputs),
        )
        for name, signature in ask.model.signatures.items()
    }
    words, k = ("string", [None]), ("int32", [])
    neighbors = {"neighbors": ("string", [None, None]), "similarity": ("float32", [None, None])}
    known = {"in_vocabulary": ("bool", [None])}
    count = ("int32", [None])
    assert signatures == {
        "serving_default": ({"words": words}, {"embedding": ("float32", [None, 2])} | known),
        "embed_text": (
            {"text": words},
            {"embedding": ("float32", [None, 2]), "token_count": count, "known_count": count},
        ),
        "nearest": ({"words": words, "k": k}, neighbors | known),
        "analogy": ({"a": words, "b": words, "c": words, "k": k}, neighbors),
    }


def test_unknown_and_empty_words_answer_zeros(ask: Signatures) -> None:
    assert ask("serving_default", words=["east", "zzzznotaword", "", b"\xff"]) == {
        "embedding": [[3, 0], [0, 0], [0, 0], [0, 0]],
        "in_vocabulary": [True, False, False, False],
    }


def test_a_word_is_found_as_the_tokeniser_would_spell_it(ask: Signatures) -> None:
    words = ["EAST", " East\n", "Don’t", "東", "East.", "(east)", "north south", "東東"]
    assert ask("serving_default", words=words)["in_vocabulary"] == [True] * 4 + [False] * 4


def test_a_word_is_found_however_it_is_typed(tmp_path: Path) -> None:
    spellings = {
        "café": ["cafe\u0301", "CAFE\u0301", "ca\u00adfé"],
        "istanbul": ["İstanbul", "I\u0307stanbul", "\u200eIstanbul"],
        "м'ята": ["м’ята", "Мʼята"],
        "צה״ל": ['צה"ל', "צה”ל"],
        "οδος": ["ΟΔΟΣ"],
        "한국어": [unicodedata.normalize("NFD", "한국어")],
        "new_york": ["New_York"],
    }
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("".join(f"{token}\n" for token in spellings), encoding="utf-8")
    vectors = np.arange(len(spellings), dtype=np.float32)[:, np.newaxis]
    model = EmbeddingModel(vectors, vocabulary, tokenizer="words", lowercase=True)
    asked = [(word, float(n)) for n, words in enumerate(spellings.values()) for word in words]
    answer = model.look_up(tf.constant([word for word, _ in asked]))
    assert answer["in_vocabulary"].numpy().all()
    assert answer["embedding"].numpy()[:, 0].tolist() == [number for _, number in asked]


def test_ids_of_segmented_text_are_found_by_themselves_alone(tmp_path: Path) -> None:
    settings = TransformSettings(tokenizer="whitespace")
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("aBcD9\nAbCd9\ncafé\n", encoding="utf-8")
    model = EmbeddingModel(
        np.array([[1], [2], [3]], np.float32),
        vocabulary,
        tokenizer=settings.tokenizer,
        lowercase=settings.lowered,
    )
    words = ["AbCd9", "aBcD9", " café ", "abcd9", "ABCD9", "cafe\u0301", "Café"]
    answer = model.look_up(tf.constant(words))
    assert answer["embedding"].numpy()[:, 0].tolist() == [2, 1, 3, 0, 0, 0, 0]
    text = model.embed_text(tf.constant(["aBcD9 abcd9 café"]))
    assert (int(text["token_count"][0]), int(text["known_count"][0])) == (3, 2)


@pytest.mark.parametrize("word", ["", "!!!", " ", b"\xff", "\0"])
def test_a_batch_without_any_token_is_unknown(ask: Signatures, word: str) -> None:
    assert ask("serving_default", words=[word])["in_vocabulary"] == [False]
    assert ask("nearest", words=[word], k=1) == {
        "neighbors": [[""]],
        "similarity": [[0]],
        "in_vocabulary": [False],
    }
    assert ask("analogy", a=[word], b=[word], c=[word], k=1)["neighbors"] == [[""]]


def test_an_empty_batch_answers_an_empty_batch(ask: Signatures) -> None:
    assert ask("serving_default", words=[]) == {"embedding": [], "in_vocabulary": []}
    assert ask("embed_text", text=[]) == {"embedding": [], "token_count": [], "known_count": []}
    assert ask("nearest", words=[], k=3) == {
        "neighbors": [],
        "similarity": [],
        "in_vocabulary": [],
    }
    assert ask("analogy", a=[], b=[], c=[], k=3) == {"neighbors": [], "similarity": []}


def test_a_text_is_the_mean_of_its_known_tokens(ask: Signatures) -> None:
    assert ask("embed_text", text=["North, EAST and north!", "nothing known", ""]) == {
        "embedding": [[1, pytest.approx(4 / 3)], [0, 0], [0, 0]],
        "token_count": [4, 2, 0],
        "known_count": [3, 0, 0],
    }


def test_a_text_equals_the_mean_of_serving_default_over_its_tokens(ask: Signatures) -> None:
    text = "Don’t go east: 東京 is south-east of up, 'north' \x85 e\u0301ast NORTE…"
    tokens = tokenize(tf.constant([text]), tokenizer="words", lowercase=True)
    answer = ask.model.signatures["serving_default"](words=tokens.flat_values)
    known = answer["in_vocabulary"].numpy()
    whole = ask.model.signatures["embed_text"](text=tf.constant([text]))
    np.testing.assert_allclose(
        whole["embedding"].numpy()[0], answer["embedding"].numpy()[known].mean(axis=0), rtol=1e-6
    )
    assert (int(whole["token_count"][0]), int(whole["known_count"][0])) == (13, 8)


def test_neighbors_come_by_cosine_and_ties_by_id(ask: Signatures) -> None:
    half = pytest.approx(0.5**0.5)
    assert ask("nearest", words=["north", "nowhere", "don't"], k=3) == {
        "neighbors": [["norte", "don't", "east"], [""] * 3, ["north", "east", "norte"]],
        "similarity": [[1, half, 0], [0] * 3, [half] * 3],
        "in_vocabulary": [True, False, True],
    }


def test_more_neighbors_than_words_leave_blanks(ask: Signatures) -> None:
    answer = ask("nearest", words=["east"], k=9)
    half = pytest.approx(0.5**0.5)
    assert answer["neighbors"] == [["don't", "north", "south", "norte", "up", "東", "", "", ""]]
    assert answer["similarity"] == [[half, 0, 0, 0, 0, -1, 0, 0, 0]]


def test_fewer_than_one_neighbor_is_an_error(ask: Signatures) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="k must be at least 1"):
        ask("nearest", words=["east"], k=0)


@pytest.mark.parametrize("k", [10_001, 2**31 - 1])
def test_more_neighbors_than_fit_the_memory_are_an_error(ask: Signatures, k: int) -> None:
    """Each takes a string of every row: one request could end the server."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="k must be at most 10000"):
        ask("nearest", words=["east"], k=k)
    assert len(ask("nearest", words=["east"], k=10_000)["neighbors"][0]) == 10_000


def test_an_analogy_leaves_its_three_words_out(ask: Signatures) -> None:
    # 東 - east + … : west of "don't" (north-east) is north; all that point there tie.
    answer = ask("analogy", a=["east", "east"], b=["north", "x"], c=["南", "east"], k=2)
    assert answer == {"neighbors": [["", ""]] * 2, "similarity": [[0, 0]] * 2}
    answer = ask("analogy", a=["east"], b=["north"], c=["don't"], k=7)
    target = np.array([-1, 1]) + np.array([1, 1]) / 2**0.5
    cosine = target / np.linalg.norm(target)
    assert answer["neighbors"] == [["norte", "東", "up", "south", "", "", ""]]
    assert answer["similarity"] == [
        pytest.approx([cosine[1], -cosine[0], 0, -cosine[1], 0, 0, 0], abs=1e-6)
    ]


def test_neighbors_and_analogies_agree_with_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    tokens = tuple(f"w{i}" for i in range(500))
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("".join(f"{token}\n" for token in tokens))
    ask = Signatures(EmbeddingModel(vectors, vocabulary, tokenizer="words", lowercase=True))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def ranked(target: np.ndarray, left_out: list[int]) -> list[str]:
        cosines = units @ target
        cosines[left_out] = -9
        return [tokens[id_] for id_ in np.argsort(-cosines)[:10]]

    ids = list(range(0, 500, 31))
    answer = ask("nearest", words=[tokens[id_] for id_ in ids], k=10)
    assert answer["neighbors"] == [ranked(units[id_], [id_]) for id_ in ids]
    answer = ask("analogy", a=["w1"], b=["w2"], c=["w3"], k=10)
    assert answer["neighbors"] == [ranked(units[2] - units[1] + units[3], [1, 2, 3])]


@pytest.mark.parametrize("size", [1, 127, 128, 129, 1000])
@pytest.mark.parametrize("farthest_only", [False, True])
def test_neighbors_come_by_cosine_and_ties_by_id_wherever_they_are(
    tmp_path: Path, size: int, farthest_only: bool
) -> None:
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("".join(f"w{n}\n" for n in range(size)))
    # By cosine with the first, falling; the nearer a direction is, the fewer words have it. The
    # farthest have negative cosines, less than those of the zeros that fill the last block.
    directions = np.array([[1, 0], [2, 1], [1, 1], [0, 0], [-1, 1], [-2, 1], [-1, 0]], np.float32)
    rarity = np.where(np.arange(7) < 4 * farthest_only, 0, 4.0 ** np.arange(7))
    draw = np.random.default_rng(size)
    level = draw.choice(7, size, p=rarity / rarity.sum())
    level[: size // 2] = 6  # the neighbours are not in the word's own block
    level[0] = 0
    vectors = directions[level] * 2.0 ** draw.integers(-3, 3, (size, 1))
    model = EmbeddingModel(
        vectors.astype(np.float32), vocabulary, tokenizer="words", lowercase=True
    )
    order = 1 + np.argsort(level[1:], kind="stable")
    cosine = np.array([1, 0.8**0.5, 0.5**0.5, 0, -(0.5**0.5), -(0.8**0.5), -1])
    for k in (1, 5, size, size + 200):
        answer = model.nearest(tf.constant(["w0"]), tf.constant(k))
        blanks = max(k - len(order), 0)
        expected = [f"w{n}".encode() for n in order[:k]] + [b""] * blanks
        assert answer["neighbors"].numpy().tolist() == [expected]
        similarity = np.append(cosine[level[order[:k]]], np.zeros(blanks))
        np.testing.assert_allclose(answer["similarity"], [similarity], rtol=1e-6)


def test_strange_tokens_of_segmented_text_keep_their_ids_and_exporting_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens = ('"', "a,b", "\x01", "'", "#", "%s", "\\n", "e\u0301", "👩\u200d👩", "\x1f", "</s>")
    vectors = np.arange(len(tokens) * 2, dtype=np.float32).reshape(-1, 2)
    exported = export(tmp_path, tokens, vectors, "whitespace")
    assert capfd.readouterr() == ("", "")
    embeddings = Embeddings.load(exported.saved_model)
    found, known = embeddings.vectors_of(tokens)
    assert known.all()
    np.testing.assert_array_equal(found, vectors)
    assert embeddings.words == list(tokens)
    assert embeddings.means_of([" ".join(tokens)])[2].tolist() == [len(tokens)]


def test_a_tokenised_word_is_one_token_that_tokenises_to_itself() -> None:
    rng = np.random.default_rng(0)
    alphabet = list("aZéİΣ’'’''-_ \t\0\x85\u0301\ufe0f5½東の々⼀가ßﬁ") + ["👩", "\u200d", "e\u0301"]
    texts = ["".join(rng.choice(alphabet, 12)) for _ in range(3000)]
    for tokenizer in ("words", "whitespace"):
        tokens = tokenize(tf.constant(texts), tokenizer=tokenizer, lowercase=True).flat_values
        again = tokenize(tokens, tokenizer=tokenizer, lowercase=True).to_list()
        assert again == [[token] for token in tokens.numpy().tolist()]


def test_it_serves_in_a_fresh_process_with_tensorflow_alone_and_survives_another_save(
    tmp_path: Path,
) -> None:
    exported = export(tmp_path / "made", phrases=b"1 north east\t9\t123.5\n")
    original = tmp_path / "moved"
    exported.saved_model.rename(original)
    shutil.rmtree(tmp_path / "made")
    program = """
import sys
import tensorflow as tf
source, copy = sys.argv[1:]
tf.saved_model.save(loaded := tf.saved_model.load(source), copy, signatures=loaded.signatures)
tf.io.gfile.rmtree(source)
signatures = tf.saved_model.load(copy).signatures
answer = signatures["nearest"](words=tf.constant(["North"]), k=tf.constant(1))
joined = signatures["embed_text"](text=tf.constant(["north, east of south-east"]))
assert not {"components", "pipeline"} & set(sys.modules)
print(answer["neighbors"].numpy()[0, 0].decode(), joined["token_count"].numpy()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, original, tmp_path / "copy"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "norte 4\n"), done.stderr


def test_warm_up_asks_every_signature_for_frequent_words(
    exported: ExportedModel, ask: Signatures
) -> None:
    path = exported.saved_model / "assets.extra" / "tf_serving_warmup_requests"
    requests = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "skipstream"
        inputs = {name: tf.make_ndarray(value).tolist() for name, value in request.inputs.items()}
        requests[request.model_spec.signature_name] = inputs
        ask.model.signatures[request.model_spec.signature_name](
            **{name: tf.constant(tf.make_ndarray(v)) for name, v in request.inputs.items()}
        )
    assert requests == {
        "serving_default": {"words": [b"north", b"east", b"south"]},
        "embed_text": {"text": [b"north east south"]},
        "nearest": {"words": [b"north"], "k": 10},
        "analogy": {"a": [b"north"], "b": [b"east"], "c": [b"south"], "k": 10},
    }


def test_the_matrix_is_stored_once_and_the_vocabulary_as_an_asset(exported: ExportedModel) -> None:
    variables = tf.train.list_variables(str(exported.saved_model / "variables" / "variables"))
    shapes = sorted(shape for name, shape in variables if "OBJECT_GRAPH" not in name)
    assert shapes == [[128], [128, 2]]  # whole blocks
    assets = list((exported.saved_model / "assets").iterdir())
    assert [asset.name for asset in assets] == ["vocabulary.txt"]
    assert assets[0].read_text(encoding="utf-8").split("\n") == [*TOKENS, ""]


def test_vectors_and_vocabulary_of_two_trainings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="got 6 vectors in .* and 7 tokens in"):
        export(tmp_path, TOKENS, VECTORS[:6])


def test_embeddings_answer_in_python_values(exported: ExportedModel) -> None:
    embeddings = Embeddings.load(exported.saved_model)
    half = pytest.approx(0.5**0.5)
    assert embeddings.nearest(["north", "\udcff"], 2) == [[("norte", 1.0), ("don't", half)], None]
    assert embeddings.nearest(["up"], 99)[0] == [(word, 0.0) for word in TOKENS[:6]]
    assert embeddings.nearest([], 1) == []
    assert embeddings.analogy("east", "north", "nowhere", 1) is None
    best = embeddings.analogy("east", "north", "don't", 1)
    assert best is not None and best[0][0] == "norte"
    assert [part.tolist() for part in embeddings.means_of(["east up up zz"])] == [
        [[1, 0]],
        [4],
        [3],
    ]
    assert embeddings.words == list(TOKENS)
    np.testing.assert_array_equal(embeddings.vectors, VECTORS)
    assert embeddings.buckets() is None
    with pytest.raises(SkipstreamError, match="must be at least 1, got 0"):
        embeddings.nearest(["north"], 0)


def test_a_model_that_travels_alone_has_its_counts(exported: ExportedModel, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(exported.saved_model, copy)
    counts = Embeddings.load(copy).counts
    assert counts is not None
    assert (counts.dtype, counts.tolist()) == (np.int64, [7, 6, 5, 4, 3, 2, 1])
    (copy / "assets.extra" / "counts.txt").write_text("7\n")
    with pytest.raises(SkipstreamError, match=r"counts.txt must hold a number for each word"):
        _ = Embeddings.load(copy).counts
    (copy / "assets.extra" / "counts.txt").unlink()  # As models of before have none.
    assert Embeddings.load(copy).counts is None


def test_a_serving_root_means_its_newest_version(tmp_path: Path) -> None:
    for version in ("9", "10", ".push-x", "11"):
        (tmp_path / version).mkdir()
        if version != "11":
            (tmp_path / version / "saved_model.pb").touch()
    assert resolve(tmp_path) == tmp_path / "10"
    assert resolve(tmp_path / "9") == tmp_path / "9"


def test_what_is_no_saved_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(SkipstreamError, match=r"MODEL must be a SavedModel.*got ") as caught:
            Embeddings.load(path)
        assert "\n" not in str(caught.value)
    # A copy has the name that the user knows.
    with pytest.raises(SkipstreamError, match="got s3://b/trainer/f: run.json"):
        Embeddings.load(tmp_path, "s3://b/trainer/f")


@pytest.mark.parametrize(
    "damage",
    ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets/vocabulary.txt"],
)
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_saved_model_is_refused_in_one_line(
    exported: ExportedModel, tmp_path: Path, damage: str, how: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported.saved_model, copy)
    if how == "cut":
        content = (copy / damage).read_bytes()
        (copy / damage).write_bytes(content[: len(content) // 2])
    else:
        (copy / damage).unlink()
    with pytest.raises(SkipstreamError, match="MODEL must be") as caught:
        Embeddings.load(copy)
    assert "\n" not in str(caught.value)


def test_a_saved_model_of_another_make_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(SkipstreamError, match="without analogy, embed_text"):
        Embeddings.load(tmp_path / "other")


def test_the_summary_counts_the_model(exported: ExportedModel) -> None:
    manifest = json.loads((exported.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["summary"].keys() == {"types", "dimensions", "bytes", "seconds"}
    assert (manifest["summary"]["types"], manifest["summary"]["dimensions"]) == (7, 2)


@pytest.mark.parametrize(("storage", "share"), [("float16", 0.5), ("int8", 0.25)])
def test_fewer_bytes_answer_nearly_the_same(tmp_path: Path, storage: Any, share: float) -> None:
    vocabulary = tmp_path / "vocabulary.txt"
    types = [f"w{n}" for n in range(9000)]  # more than are ranked at a time
    vocabulary.write_text("".join(f"{token}\n" for token in types))
    vectors = np.random.default_rng(2).normal(0, 3, (len(types), 64)).astype(np.float32)
    vectors[7] = 0
    options = {"tokenizer": "words", "lowercase": True}
    module = EmbeddingModel(vectors, vocabulary, storage=storage, **options)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=dict(module.signatures))
    embeddings = Embeddings.load(tmp_path / "1")
    served = store(vectors, storage).restored()
    np.testing.assert_array_equal(embeddings.vectors, served)
    step = np.abs(vectors).max(axis=1, keepdims=True) * (
        2**-11 if storage == "float16" else 1 / 254
    )
    assert (np.abs(served - vectors) <= step * 1.001).all()
    np.testing.assert_array_equal(embeddings.vectors_of(types)[0], served)
    mean, tokens, known = embeddings.means_of(["w3 w4 unknown", ""])
    np.testing.assert_allclose(mean, [served[3:5].mean(axis=0), np.zeros(64)], rtol=1e-5, atol=1e-6)
    words = types[::50]
    plain = EmbeddingModel(served, vocabulary, **options)
    exact = plain.nearest(tf.constant(words), 5)
    found = embeddings.nearest(words, 5)
    assert [[word for word, _ in row] for row in found] == [
        [word.decode() for word in row] for row in exact["neighbors"].numpy().tolist()
    ]
    stored = sum(file.stat().st_size for file in (tmp_path / "1" / "variables").iterdir())
    assert stored < (share + 0.06) * vectors.nbytes
