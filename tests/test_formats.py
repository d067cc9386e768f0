"""Each format, read back by the program it is for."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from components.errors import SkipstreamError
from components.exporter import formats

TOKENS = ["the", "café", "東", "don't", '"', "e\u0301", "👩", "\x01", "</s>", "#", "naïve", "ß"]
FORMATS = ["word2vec-text", "word2vec-binary", "keyedvectors", "projector", "npz"]


@dataclass(frozen=True)
class Source:
    """A model as the writers see it: every magnitude of float32, subnormals and both zeros."""

    rows: int = len(TOKENS)

    def tokens(self) -> list[str]:
        return (TOKENS + [f"w{i}" for i in range(self.rows)])[: self.rows]

    def vectors(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(self.rows, 7)) * 10.0 ** rng.integers(-44, 38, (self.rows, 7))
        vectors[0] = [0.0, -0.0, 1.0, -2.0, 0.1, 16777216, 1e-45]
        return vectors.astype(np.float32)


@pytest.fixture(params=[len(TOKENS), 1, 5000])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 1 << 12)  # many blocks, the last not full
    return Source(request.param)


def assert_same(keyed: KeyedVectors, source: Source) -> None:
    assert keyed.index_to_key == source.tokens()
    assert keyed.key_to_index == {token: id_ for id_, token in enumerate(source.tokens())}
    assert keyed.vectors.dtype == np.float32
    assert keyed.vectors.tobytes() == source.vectors().tobytes()


def test_gensim_reads_word2vec_text(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors.txt"
    assert formats.write(source, format="word2vec-text", output=output) == [output]
    assert_same(KeyedVectors.load_word2vec_format(str(output)), source)


def test_gensim_reads_word2vec_binary(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors.bin"
    assert formats.write(source, format="word2vec-binary", output=output) == [output]
    assert_same(KeyedVectors.load_word2vec_format(str(output), binary=True), source)


@pytest.mark.parametrize("mmap", [None, "r"])
def test_gensim_loads_keyedvectors(source: Source, tmp_path: Path, mmap: str | None) -> None:
    output = tmp_path / "model.kv"
    written = formats.write(source, format="keyedvectors", output=output)
    assert written == [output, tmp_path / "model.kv.vectors.npy"]
    assert_same(KeyedVectors.load(str(output), mmap=mmap), source)


def test_loaded_keyedvectors_answer_and_are_saved_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(TOKENS), 8)).astype(np.float32)
    theirs = KeyedVectors(8)

    class Plain(Source):
        def vectors(self) -> np.ndarray:
            return vectors

    formats.write(Plain(), format="keyedvectors", output=tmp_path / "ours")
    ours = KeyedVectors.load(str(tmp_path / "ours"))
    theirs.add_vectors(TOKENS, vectors)
    assert ours.most_similar("東", topn=5) == theirs.most_similar("東", topn=5)
    ours.add_vectors(["new"], vectors[:1])
    ours.save(str(tmp_path / "again"))
    assert KeyedVectors.load(str(tmp_path / "again")).index_to_key == [*TOKENS, "new"]


def test_keyedvectors_have_the_attributes_of_gensims_own(tmp_path: Path) -> None:
    formats.write(Source(), format="keyedvectors", output=tmp_path / "ours")
    theirs = KeyedVectors(7, count=len(TOKENS))
    for token, vector in zip(TOKENS, Source().vectors(), strict=True):
        theirs.add_vector(token, vector)
    theirs.save(str(tmp_path / "theirs"), separately=["vectors"])
    with (tmp_path / "ours").open("rb") as ours, (tmp_path / "theirs").open("rb") as their:
        mine, others = vars(pickle.load(ours)), vars(pickle.load(their))
    assert {**mine, "vectors": None} == {
        name: value for name, value in others.items() if name != "lifecycle_events"
    } | {"vectors": None}


def test_keyedvectors_are_written_without_gensim(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["gensim"] = None
from pathlib import Path
import numpy as np
from components.exporter import formats
class Source:
    def tokens(self): return ["a", "b"]
    def vectors(self): return np.eye(2, dtype=np.float32)
formats.write(Source(), format="keyedvectors", output=Path(sys.argv[1]))
assert "tensorflow" not in sys.modules
"""
    output = tmp_path / "model.kv"
    subprocess.run(
        [sys.executable, "-c", program, output], cwd=Path(__file__).parents[1], check=True
    )
    assert KeyedVectors.load(str(output)).similarity("a", "b") == 0


def test_the_projector_gets_a_row_per_line_in_two_files(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "projector"
    written = formats.write(source, format="projector", output=output)
    assert [file.name for file in written] == [
        "metadata.tsv",
        "projector_config.pbtxt",
        "vectors.tsv",
    ]
    words = (output / "metadata.tsv").read_bytes().decode().split("\n")
    assert words == [*source.tokens(), ""]
    lines = (output / "vectors.tsv").read_text(encoding="ascii").splitlines()
    vectors = np.array([line.split("\t") for line in lines], np.float64).astype(np.float32)
    assert vectors.tobytes() == source.vectors().tobytes()


def test_tensorboards_projector_serves_words_and_vectors(tmp_path: Path) -> None:
    source = Source(5000)
    formats.write(source, format="projector", output=tmp_path / "p")
    plugin = ProjectorPlugin(TBContext(logdir=str(tmp_path / "p")))
    routes = plugin.get_plugin_apps()

    def get(route: str, **arguments: str) -> bytes:
        response = Client(routes[route]).get(route, query_string=arguments)
        assert response.status_code == 200, response.data
        return response.data

    (run,) = json.loads(get("/runs"))
    (embedding,) = json.loads(get("/info", run=run))["embeddings"]
    name = embedding["tensorName"]
    assert embedding["tensorShape"] == [5000, 7]
    tensor = np.frombuffer(get("/tensor", run=run, name=name), np.float32)
    assert tensor.tobytes() == source.vectors().tobytes()
    assert get("/metadata", run=run, name=name).decode().split("\n") == [*source.tokens(), ""]


def test_numpy_reads_npz_without_pickle(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors"  # no suffix is added
    assert formats.write(source, format="npz", output=output) == [output]
    with np.load(output) as arrays:
        assert sorted(arrays) == ["vectors", "words"]
        assert arrays["words"].tolist() == source.tokens()
        assert arrays["vectors"].tobytes() == source.vectors().tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_there_is_replaced_and_nothing_else_is_left(tmp_path: Path, format: str) -> None:
    first = formats.write(Source(3), format=format, output=tmp_path / "out")
    before = {file: file.read_bytes() for file in first}
    second = formats.write(Source(), format=format, output=tmp_path / "out")
    assert first == second
    assert all(file.read_bytes() for file in second)
    assert {file: file.read_bytes() for file in second} != before
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(second)


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, format: str) -> None:
    written = formats.write(Source(), format=format, output=tmp_path / "out")
    before = {file: file.read_bytes() for file in written}

    class Broken(Source):
        def vectors(self) -> np.ndarray:
            raise OSError(28, "No space left on device")

    with pytest.raises(SkipstreamError, match="No space left on device"):
        formats.write(Broken(), format=format, output=tmp_path / "out")
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert after == before


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory" / "full").mkdir(parents=True)
    outputs = [tmp_path / "missing" / "out", tmp_path / "file" / "out"]
    outputs.append(tmp_path / ("file" if format == "projector" else "directory"))
    for output in outputs:
        with pytest.raises(SkipstreamError, match="output must be writable, got"):
            formats.write(Source(), format=format, output=output)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="one of word2vec-text, .*, npz, got csv"):
        formats.write(Source(), format="csv", output=tmp_path / "out")


def test_npz_refuses_words_that_would_not_fit_once_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_PADDED_WORDS_BYTES", 100)
    with pytest.raises(SkipstreamError, match="12 words of up to 5 characters"):
        formats.write(Source(), format="npz", output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
