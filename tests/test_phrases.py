"""Phrases: found as word2phrase finds them, joined alike in Beam, in the graph and when served."""

import gzip
import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from stages import unlisted

from components import text
from components.artifacts import Corpus, Examples, ExportedModel, InfraBlessing, Model
from components.errors import NotBlessedError, SkipstreamError
from components.evaluator.evaluator import find_ids
from components.example_gen.build import build as list_corpus
from components.example_gen.formats import Block
from components.exporter import exporter
from components.exporter.embeddings import Embeddings
from components.infra_validator import validator
from components.phrases import FILE, HEADER, Phrases
from components.settings import (
    ExampleGenSettings,
    ExporterSettings,
    TrainerSettings,
    TransformSettings,
)
from components.transform import joins, segments, transform
from components.vocabulary import Vocabulary

Pass = set[tuple[str, str]]


def write(path: Path, *passes: Pass) -> Phrases:
    lines = [
        f"{number} {first} {second}\t9\t123.5\n"
        for number, pairs in enumerate(passes, 1)
        for first, second in sorted(pairs)
    ]
    path.write_bytes(HEADER + "".join(lines).encode())
    return Phrases.parse(path.read_bytes())


def naive_join(tokens: list[str], pairs: Pass) -> list[str]:
    """As word2phrase.c writes them: a word follows `_` where the pair is one, else a space."""
    written, free = "", False
    for last, token in zip(["", *tokens], tokens, strict=False):
        free = free and (last, token) in pairs
        written += f"_{token}" if free else f" {token}"
        free = not free
    return written.split()


def test_joins_agree_with_a_naive_one_on_random_documents(tmp_path: Path) -> None:
    for seed in range(15):
        draw = np.random.default_rng(seed)
        words = ["a", "b", "c", "é", "a_b", "b_c"]  # Two pairs may make the same token.
        documents = [list(draw.choice(words, draw.integers(0, 12))) for _ in range(40)]
        expected, passes = documents, []
        for _ in range(3):
            pairs = {tuple(draw.choice(words, 2).tolist()) for _ in range(draw.integers(1, 9))}
            expected = [naive_join(document, pairs) for document in expected]
            words += ["_".join(pair) for pair in sorted(pairs)]
            passes.append(pairs)
        path = tmp_path / f"{seed}.tsv"
        phrases = write(path, *passes)
        assert [phrases.join(document) for document in documents] == expected

        table = text.line_numbers(str(path), 1 + len(phrases))
        lines = tf.constant([" ".join(document) for document in documents])
        tokens = text.tokenize(lines, tokenizer="whitespace", lowercase=True)
        joined = text.join_phrases(tokens, table.lookup, passes=3)
        assert [[t.decode() for t in document] for document in joined.to_list()] == expected

        block = Block(pa.array(lines.numpy(), pa.binary()), {})
        settings = TransformSettings(tokenizer="whitespace")
        (whole,) = segments.tokenise([block], settings=settings, eval_share=0)
        segment = joins.join(whole, joins.load(str(path)))
        types = segment.types.to_pylist()
        assert len(set(types)) == len(types)
        of_all = [types[number].decode() for number in segment.tokens]
        assert of_all == [token for document in expected for token in document]
        assert segment.lengths.tolist() == list(map(len, expected))
        assert segment.read.get("phrases_joined", 0) == len(whole.tokens) - len(segment.tokens)


def test_pairs_have_the_same_numbers_in_every_process() -> None:
    """A set's order is another one in each; segments that are joined again need the same types."""
    names = [f"w{number:02}" for number in range(40)]
    assert joins.Pairs.of(frozenset(itertools.pairwise(names))).words.to_pylist() == [
        name.encode() for name in names
    ]


@pytest.mark.parametrize("documents", [[], [""], ["", "b", ""]])
def test_documents_of_no_pair_stay_as_they_are(tmp_path: Path, documents: list[str]) -> None:
    write(tmp_path / FILE, {("b", "b")})
    tokens = text.tokenize(
        tf.constant(documents, tf.string, [len(documents)]), tokenizer="words", lowercase=True
    )
    table = text.line_numbers(str(tmp_path / FILE))
    joined = text.join_phrases(tokens, table.lookup, passes=2)
    assert joined.to_list() == tokens.to_list()


def run(out: Path, source: Path, *flags: str, cache: Path | None = None, **settings: float) -> Path:
    for name in ("corpus", "examples"):
        (out / name).mkdir(parents=True)
    chosen = ExampleGenSettings(input=(str(source),), max_unreadable=0)
    corpus = list_corpus(settings=chosen, out=Corpus(out / "corpus", "corpus"))
    transform.build(
        corpus,
        settings=TransformSettings(**settings),
        beam_options=flags,
        cache=str(cache) if cache else None,
        out=Examples(out / "examples", "examples"),
    )
    return out / "examples"


def word2phrase(documents: list[list[str]], min_count: int, threshold: float) -> Pass:
    words = Counter(word for document in documents for word in document)
    total = words.total()
    pairs = Counter(pair for document in documents for pair in itertools.pairwise(document))
    return {
        (a, b)
        for (a, b), count in pairs.items()
        if words[a] >= min_count <= words[b]
        and (count - min_count) / words[a] / words[b] * total > threshold
    }


def test_phrases_and_vocabulary_are_word2phrases(shared: Path, tmp_path: Path) -> None:
    source = next((shared / "corpora" / "enwiki-dev").glob("*.gz"))
    with gzip.open(source) as file:
        lines = [line.rstrip(b"\n") for line in itertools.islice(file, 2000)]
    (tmp_path / "part.txt").write_bytes(b"\n".join(lines))
    examples = run(
        tmp_path / "run",
        tmp_path / "part.txt",
        min_count=3,
        phrase_passes=2,
        phrase_threshold=50,
    )
    phrases = Phrases.load(examples / FILE)

    split = text.tokenize(tf.constant(lines), tokenizer="words", lowercase=True).to_list()
    documents = [[token.decode() for token in line] for line in split]
    before = sum(map(len, documents))
    for found in phrases.passes:
        pairs = word2phrase(documents, 3, 50)
        assert found == pairs
        assert len(pairs) > 20
        documents = [naive_join(document, pairs) for document in documents]
    counts = Counter(token for document in documents for token in document)
    vocabulary = Vocabulary.load(examples / "vocabulary.tsv")
    expected = {token: count for token, count in counts.items() if count >= 3}
    assert dict(zip(vocabulary.tokens, vocabulary.counts.tolist(), strict=True)) == expected
    statistics = json.loads((examples / "statistics.json").read_text())
    assert statistics["tokens"] == counts.total()
    joined = before - counts.total()
    assert statistics["phrases"] == {"types": len(phrases), "pairs_joined": joined}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of a small town's newspaper."""
    draw = np.random.default_rng(0)
    words = [f"w{number}" for number in range(40)]
    lines = []
    for _ in range(600):
        line = list(draw.choice(words, 8))
        place = draw.integers(0, 8)
        line[place:place] = [["New", "York"], ["New", "York", "Times"], ["york"]][draw.integers(3)]
        lines.append(" ".join(line))
    path = tmp_path_factory.mktemp("corpus") / "a.txt"
    path.write_text("\n".join(lines))
    return path


two_passes = partial(run, phrase_passes=2, phrase_threshold=8.0)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Examples]:
    """Two passes over the corpus in many units and segments, by two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.example_gen.units.UNIT_BYTES", 5000)
        patch.setattr("components.transform.segments.SEGMENT_BYTES", 2000)
        flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
        yield Examples(two_passes(tmp_path_factory.mktemp("run"), corpus, *flags), "2")


def digests(examples: Path) -> dict[str, str]:
    files = [path for name in ("train", "eval") for path in (examples / name).iterdir()]
    files += [examples / name for name in (FILE, "vocabulary.tsv", "statistics.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_bytes_are_the_same_at_any_worker_count(
    tmp_path: Path, corpus: Path, examples: Examples
) -> None:
    alone = two_passes(tmp_path / "1", corpus, "--direct_num_workers=1")
    assert digests(alone) == digests(examples.path)
    assert len(list((alone / "train").iterdir())) > 3


def test_frequent_pairs_are_tokens_of_the_vocabulary(examples: Examples) -> None:
    lines = (examples.path / FILE).read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        "pass first second",
        "1 new york",
        "1 york times",  # which does not come up: "york" is joined before
        "2 new_york times",
    ]
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    assert {"new_york", "new_york_times", "york"} < vocabulary.index.keys()
    assert {"new", "times"}.isdisjoint(vocabulary.index)
    statistics = examples.statistics
    counts = dict(zip(vocabulary.tokens, vocabulary.counts.tolist(), strict=True))
    joined = counts["new_york"] + 2 * counts["new_york_times"]
    assert statistics["phrases"] == {"types": 3, "pairs_joined": joined}
    assert sorted(path.name for path in examples.path.iterdir()) == [
        *("eval", "manifest.json", FILE, "statistics.json", "train", "transform_graph"),
        "vocabulary.tsv",
    ]


TEXTS = ["New York Times", "in new york, times", "times new, york", "", "York new_york"]


def test_the_transform_graph_joins_the_same(examples: Examples, tmp_path: Path) -> None:
    moved = tmp_path / "graph"  # It needs nothing but itself.
    shutil.copytree(examples.path / "transform_graph", moved)
    outputs = tft.TFTransformOutput(str(moved)).transform_raw_features({"text": tf.constant(TEXTS)})
    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    assert [[tokens[id_] for id_ in ids] for ids in outputs["ids"].to_list()] == [
        ["new_york_times"],
        ["new_york_times"],
        ["new_york"],
        [],
        ["york", "new_york"],
    ]
    assert outputs["tokens"].numpy().tolist() == [1, 2, 2, 0, 2]


@dataclass(frozen=True)
class Served:
    """Random vectors of the vocabulary, and the SavedModel made of them."""

    examples: Examples
    model: Model
    exported: ExportedModel
    vectors: np.ndarray

    def validate(self, out: Path, examples: Examples | None = None) -> InfraBlessing:
        out.mkdir()
        return validator.build(
            self.exported,
            self.model,
            examples or self.examples,
            out=InfraBlessing(out, "5"),
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, examples: Examples) -> Served:
    root = tmp_path_factory.mktemp("served")
    for name in ("model", "exported"):
        (root / name).mkdir()
    size = len(Vocabulary.load(examples.path / "vocabulary.tsv"))
    vectors = np.random.default_rng(1).normal(size=(size, 4)).astype(np.float32)
    np.save(root / "model" / "vectors.npy", vectors)
    model = Model(root / "model", "3").finish(TrainerSettings())
    exported = exporter.build(
        model,
        examples,
        settings=ExporterSettings(),
        out=ExportedModel(root / "exported", "4"),
    )
    return Served(examples, model, exported, vectors)


def test_the_served_model_joins_the_same(served: Served) -> None:
    embeddings = Embeddings.load(served.exported.saved_model)
    index = Vocabulary.load(served.examples.path / "vocabulary.tsv").index
    vectors, tokens, known = embeddings.means_of(TEXTS)
    assert tokens.tolist() == [1, 2, 2, 0, 2]
    assert known.tolist() == [1, 1, 1, 0, 2]
    np.testing.assert_array_equal(vectors[0], served.vectors[index["new_york_times"]])
    np.testing.assert_array_equal(vectors[2], served.vectors[index["new_york"]])
    found, in_vocabulary = embeddings.vectors_of(["new_york", "New_York", "new york"])
    assert in_vocabulary.tolist() == [True, True, False]
    np.testing.assert_array_equal(found[1], served.vectors[index["new_york"]])


def test_a_second_save_keeps_the_phrases(served: Served, tmp_path: Path) -> None:
    moved, copy = str(tmp_path / "moved"), str(tmp_path / "copy")
    shutil.copytree(served.exported.saved_model, moved)
    loaded = tf.saved_model.load(moved)
    tf.saved_model.save(loaded, copy, signatures=loaded.signatures)
    shutil.rmtree(moved)
    embed = tf.saved_model.load(copy).signatures["embed_text"]
    assert embed(text=tf.constant(["New York Times"]))["token_count"].numpy().tolist() == [1]


def test_a_phrase_file_that_was_cut_is_refused(served: Served, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(served.exported.saved_model, copy)
    asset = copy / "assets" / FILE
    asset.write_bytes(b"".join(asset.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(SkipstreamError, match="MODEL must be a whole SavedModel"):
        Embeddings.load(copy)
    with pytest.raises(ValueError, match="cut off"):
        Phrases.parse(HEADER + b"1 new york")


@pytest.mark.usefixtures("probe_here")
def test_the_validator_finds_an_export_with_other_phrases(served: Served, tmp_path: Path) -> None:
    served.validate(tmp_path / "blessed")
    (tmp_path / "other").mkdir()
    other = Examples(tmp_path / "other", "2")
    for name in ("vocabulary.tsv", "manifest.json"):
        shutil.copy(served.examples.path / name, other.path)
    write(unlisted(other.path) / FILE, {("new", "york")})
    with pytest.raises(NotBlessedError, match=r"embed_text of .*: token_count"):
        served.validate(tmp_path / "refused", other)


def test_the_evaluator_finds_phrases_as_the_signatures_do(examples: Examples) -> None:
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    words = ["New_York", "new_york_times ", "york", "new york", "new"]
    ids = find_ids(words, vocabulary, TransformSettings())
    found = [vocabulary.index[token] for token in ("new_york", "new_york_times", "york")]
    assert ids.tolist() == [*found, -1, -1]
