"""Each format, read back by the program it is for."""

import bz2
import gzip
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from components.errors import SettingsError, SkipstreamError
from components.exporter import formats
from pipeline import cli

TOKENS = ["the", "café", "東", "don't", '"', "e\u0301", "👩", "\x01", "</s>", "#", "naïve", "ß"]
FORMATS = list(cli.FORMATS)


@dataclass(frozen=True)
class Source:
    """A model as the writers see it: every magnitude of float32, subnormals and both zeros."""

    rows: int = len(TOKENS)

    @property
    def words(self) -> list[str]:
        return (TOKENS + [f"w{i}" for i in range(self.rows)])[: self.rows]

    @property
    def vectors(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(self.rows, 7)) * 10.0 ** rng.integers(-44, 38, (self.rows, 7))
        vectors[0] = [0.0, -0.0, 1.0, -2.0, 0.1, 16777216, 1e-45]
        return vectors.astype(np.float32)

    @property
    def counts(self) -> np.ndarray | None:
        return np.arange(self.rows, 0, -1)

    def buckets(self) -> None:
        return None


class WithoutCounts(Source):
    """A model that an earlier skipstream exported."""

    @property
    def counts(self) -> None:
        return None


@pytest.fixture(params=[len(TOKENS), 1, 5000])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(formats, "_BLOCK_BYTES", 1 << 12)  # many blocks, the last not full
    return Source(request.param)


def assert_same(keyed: KeyedVectors, source: Source) -> None:
    assert keyed.index_to_key == source.words
    assert keyed.key_to_index == {token: id_ for id_, token in enumerate(source.words)}
    assert keyed.vectors.dtype == np.float32
    assert keyed.vectors.tobytes() == source.vectors.tobytes()


def test_gensim_reads_word2vec_text(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors.txt"
    assert formats.write(source, format="word2vec-text", output=output) == [output]
    assert_same(KeyedVectors.load_word2vec_format(str(output)), source)


def test_gensim_reads_word2vec_binary(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors.bin"
    assert formats.write(source, format="word2vec-binary", output=output) == [output]
    assert_same(KeyedVectors.load_word2vec_format(str(output), binary=True), source)


@pytest.mark.parametrize("format", ["word2vec-text", "word2vec-binary"])
@pytest.mark.parametrize(("suffix", "unpack"), [(".gz", gzip.decompress), (".BZ2", bz2.decompress)])
def test_word2vec_formats_are_packed_as_their_name_says(
    tmp_path: Path, format: str, suffix: str, unpack: Callable[[bytes], bytes]
) -> None:
    plain, packed = tmp_path / "plain", tmp_path / f"vectors{suffix}"
    formats.write(Source(), format=format, output=plain)
    assert formats.write(Source(), format=format, output=packed) == [packed]
    content = packed.read_bytes()
    assert unpack(content) == plain.read_bytes()
    again = tmp_path / f"other{suffix}"
    formats.write(Source(), format=format, output=again)
    assert again.read_bytes() == content  # Neither the name nor the time is in it.


def test_gensim_reads_packed_word2vec(tmp_path: Path) -> None:
    for suffix in (".gz", ".bz2"):
        output = tmp_path / f"vectors.bin{suffix}"
        formats.write(Source(), format="word2vec-binary", output=output)
        assert_same(KeyedVectors.load_word2vec_format(str(output), binary=True), Source())


@pytest.mark.parametrize(
    ("format", "name", "message"),
    [
        (
            "word2vec-text",
            "a b.zip",
            "word2vec-text is not packed as .zip (.gz and .bz2 work), got ",
        ),
        ("keyedvectors", "a b.gz", "keyedvectors is not packed as .gz, got "),
        ("npz", "a b.zst", "npz is not packed as .zst, got "),
    ],
)
def test_names_that_would_promise_another_format_are_refused(
    tmp_path: Path, format: str, name: str, message: str
) -> None:
    output = tmp_path / name
    with pytest.raises(SettingsError) as caught:
        formats.write(Source(), format=format, output=output)
    assert str(caught.value) == f"{message}{output}: --output '{tmp_path}/a b'"


@pytest.mark.parametrize("mmap", [None, "r"])
def test_gensim_loads_keyedvectors(source: Source, tmp_path: Path, mmap: str | None) -> None:
    output = tmp_path / "model.kv"
    written = formats.write(source, format="keyedvectors", output=output)
    assert written == [output, tmp_path / "model.kv.vectors.npy"]
    keyed = KeyedVectors.load(str(output), mmap=mmap)
    assert_same(keyed, source)
    assert keyed.get_vecattr("the", "count") == source.rows


def test_gensim_loads_keyedvectors_without_counts(tmp_path: Path) -> None:
    formats.write(WithoutCounts(), format="keyedvectors", output=tmp_path / "model.kv")
    keyed = KeyedVectors.load(str(tmp_path / "model.kv"))
    assert_same(keyed, Source())
    with pytest.raises(KeyError):
        keyed.get_vecattr("the", "count")


def test_loaded_keyedvectors_are_sorted_by_count(tmp_path: Path) -> None:
    class Rising(Source):
        @property
        def counts(self) -> np.ndarray:
            return np.arange(self.rows)

    formats.write(Rising(), format="keyedvectors", output=tmp_path / "model.kv")
    keyed = KeyedVectors.load(str(tmp_path / "model.kv"))
    keyed.sort_by_descending_frequency()
    assert keyed.index_to_key == TOKENS[::-1]
    assert keyed.get_vecattr(TOKENS[3], "count") == 3
    np.testing.assert_array_equal(keyed[TOKENS[3]], Source().vectors[3])


def test_loaded_keyedvectors_answer_and_are_saved_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(TOKENS), 8)).astype(np.float32)
    theirs = KeyedVectors(8)

    class Plain(Source):
        @property
        def vectors(self) -> np.ndarray:
            return vectors

    formats.write(Plain(), format="keyedvectors", output=tmp_path / "ours")
    ours = KeyedVectors.load(str(tmp_path / "ours"))
    theirs.add_vectors(TOKENS, vectors)
    assert ours.most_similar("東", topn=5) == theirs.most_similar("東", topn=5)
    ours.add_vectors(["new"], vectors[:1])
    ours.save(str(tmp_path / "again"))
    again = KeyedVectors.load(str(tmp_path / "again"))
    assert again.index_to_key == [*TOKENS, "new"]
    assert [again.get_vecattr(word, "count") for word in ("the", "ß")] == [12, 1]


def test_keyedvectors_have_the_attributes_of_gensims_own(tmp_path: Path) -> None:
    formats.write(Source(), format="keyedvectors", output=tmp_path / "ours")
    theirs = KeyedVectors(7, count=len(TOKENS))
    for token, vector in zip(TOKENS, Source().vectors, strict=True):
        theirs.add_vector(token, vector)
    for token, count in zip(TOKENS, Source().counts, strict=True):
        theirs.set_vecattr(token, "count", int(count))
    theirs.save(str(tmp_path / "theirs"), separately=["vectors"])
    with (tmp_path / "ours").open("rb") as ours, (tmp_path / "theirs").open("rb") as their:
        mine, others = vars(pickle.load(ours)), vars(pickle.load(their))
    counts, their_counts = mine.pop("expandos"), others.pop("expandos")
    assert counts.keys() == their_counts.keys() == {"count"}
    assert counts["count"].dtype == their_counts["count"].dtype == np.int64
    np.testing.assert_array_equal(counts["count"], their_counts["count"])
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
    @property
    def words(self): return ["a", "b"]
    @property
    def vectors(self): return np.eye(2, dtype=np.float32)
    @property
    def counts(self): return np.array([2, 1])
    def buckets(self): return None
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
    assert words == [*source.words, ""]
    lines = (output / "vectors.tsv").read_text(encoding="ascii").splitlines()
    vectors = np.array([line.split("\t") for line in lines], np.float64).astype(np.float32)
    assert vectors.tobytes() == source.vectors.tobytes()


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
    assert tensor.tobytes() == source.vectors.tobytes()
    assert get("/metadata", run=run, name=name).decode().split("\n") == [*source.words, ""]


def test_numpy_reads_npz_without_pickle(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "vectors"  # no suffix is added
    assert formats.write(source, format="npz", output=output) == [output]
    with np.load(output, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["counts", "vectors", "words"]
        assert arrays["counts"].tolist() == source.counts.tolist()
        assert arrays["words"].tolist() == source.words
        assert arrays["vectors"].tobytes() == source.vectors.tobytes()


def test_npz_without_counts_has_none(tmp_path: Path) -> None:
    formats.write(WithoutCounts(), format="npz", output=tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz") as arrays:
        assert sorted(arrays) == ["vectors", "words"]


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
        @property
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
        with pytest.raises(SkipstreamError, match="output must be writable"):
            formats.write(Source(), format=format, output=output)
    made = tmp_path / "a b" / "c"
    with pytest.raises(SkipstreamError, match="does not exist: mkdir -p ") as caught:
        formats.check(format, made)
    subprocess.run(str(caught.value).rpartition(": ")[2], shell=True, check=True)
    formats.check(format, made)


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
