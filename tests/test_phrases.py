"""Phrases: found as word2phrase finds them, joined alike in Beam, in the graph and when served."""

import itertools
import shutil
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from plain_job import largest_first
from stages import unlisted
from test_transform import assert_ids_of
from topics import Documents, natural

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


def naive_join(tokens: list[str], pairs: Set[tuple[str, str]]) -> list[str]:
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


@pytest.fixture(scope="module")
def documents() -> Documents:
    """Of a small town's newspaper, in lower case."""
    draw = np.random.default_rng(0)
    documents = []
    for tokens in natural(0, 1500):
        place = draw.integers(0, 19)
        city = [["new", "york"], ["new", "york", "times"], ["york"], [], []][draw.integers(5)]
        document = [*tokens[:place], *city, *tokens[place:]]
        documents.append([token.replace("f", "é") for token in document])
    return documents


def line_of(document: list[str]) -> str:
    return " ".join(document).replace("york", "York")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, documents: Documents) -> Examples:
    """Two passes over them, in several units and many segments, by two workers."""
    path = tmp_path_factory.mktemp("phrases")
    for name in ("corpus", "examples"):
        (path / name).mkdir()
    (path / "a.txt").write_text("\n".join(map(line_of, documents)))
    chosen = ExampleGenSettings(input=(f"{path}/a.txt",), eval_share=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.example_gen.units.UNIT_BYTES", 50_000)
        patch.setattr("components.transform.segments.SEGMENT_BYTES", 20_000)
        patch.setattr("components.example_gen.reader.BLOCK_BYTES", 10_000)
        return transform.build(
            list_corpus(settings=chosen, out=Corpus(path / "corpus", "corpus")),
            settings=TransformSettings(phrase_passes=2, phrase_threshold=8.0),
            beam_options=["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
            out=Examples(path / "examples", "2"),
        )


def word2phrase(
    documents: Documents, min_count: int, threshold: float
) -> dict[tuple[str, str], tuple[int, float]]:
    """The pairs that it joins, how often they occur, and their scores."""
    words = Counter(word for document in documents for word in document)
    total = words.total()
    pairs = Counter(pair for document in documents for pair in itertools.pairwise(document))
    scores = {
        (a, b): (count - min_count) / words[a] / words[b] * total
        for (a, b), count in pairs.items()
        if words[a] >= min_count <= words[b]
    }
    return {pair: (pairs[pair], score) for pair, score in scores.items() if score > threshold}


def test_phrases_vocabulary_and_records_are_those_of_word2phrase(
    examples: Examples, documents: Documents
) -> None:
    lines = ["pass first second\tcount\tscore\n"]
    joined = documents
    for number in (1, 2):
        found = word2phrase(joined, 5, 8.0)
        assert len(found) > 20
        for (first, second), score in largest_first({pair: found[pair][1] for pair in found}):
            count, _ = found[first, second]
            lines.append(f"{number} {first} {second}\t{count}\t{score:.6g}\n")
        joined = [naive_join(document, found.keys()) for document in joined]
    assert (examples.path / FILE).read_text() == "".join(lines)

    counts = Counter(token for document in joined for token in document)
    kept = [(token, count) for token, count in largest_first(counts) if count >= 5]
    vocabulary = "".join(f"{token}\t{count}\n" for token, count in kept)
    assert (examples.path / "vocabulary.tsv").read_text() == vocabulary
    assert examples.statistics["tokens"] == counts.total()
    tokens = sum(map(len, documents))
    pairs = {"types": len(lines) - 1, "pairs_joined": tokens - counts.total()}
    assert examples.statistics["phrases"] == pairs

    ids = {token: id_ for id_, (token, _) in enumerate(kept)}
    as_lines = [line_of(document).encode() for document in documents]
    assert_ids_of(examples, as_lines, joined, ids, eval_share=0.01)
    assert len(examples.records("train")) > 3


def test_frequent_pairs_are_tokens_of_the_vocabulary(examples: Examples) -> None:
    york = [line for line in (examples.path / FILE).read_text().splitlines() if "york" in line]
    assert [line.split("\t")[0] for line in york] == [
        "1 new york",
        "1 york times",  # which does not come up: "york" is joined before
        "2 new_york times",
    ]
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    assert {"new_york", "new_york_times", "york"} < vocabulary.index.keys()
    assert {"new", "times"}.isdisjoint(vocabulary.index)
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
