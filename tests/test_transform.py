"""The Beam job against an independent count, over whole corpora and awkward ones."""

import errno
import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain_job
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from bucket import BucketFileSystem

from components import text
from components.artifacts import Corpus, Examples
from components.beam_options import runner_and_options
from components.errors import SkipstreamError
from components.example_gen.build import build as list_corpus
from components.example_gen.build import find
from components.example_gen.formats import Block
from components.example_gen.split import held_out
from components.example_gen.units import Listing, plan
from components.identity import code_identity, imported
from components.settings import ExampleGenSettings, TransformSettings
from components.transform import (
    partitions,
    preprocessing,
    records,
    segments,
    statistics,
    storage,
    transform,
)
from components.transform.segment_ref import SegmentRef
from components.transform.token_cache import TokenCache
from components.transform.tokenise import TokeniseUnit
from components.vocabulary import Vocabulary


def run(
    out: Path,
    *patterns: str,
    settings: TransformSettings | None = None,
    cache: str | None = None,
    **corpus_settings: object,
) -> Examples:
    (out / "corpus").mkdir(parents=True)
    (out / "examples").mkdir()
    chosen = ExampleGenSettings(input=patterns, **corpus_settings)
    corpus = list_corpus(settings=chosen, out=Corpus(out / "corpus", "corpus"))
    return transform.build(
        corpus,
        settings=settings or TransformSettings(min_count=1),
        cache=cache,
        out=Examples(out / "examples", "examples"),
    )


def documents_of(examples: Examples, split: str) -> Iterator[list[int]]:
    return documents_in(examples.records(split))


def documents_in(paths: list[str]) -> Iterator[list[int]]:
    for record in tf.data.TFRecordDataset(paths, "GZIP"):
        example = tf.train.Example.FromString(record.numpy())
        assert list(example.features.feature) == ["ids"]
        yield list(example.features.feature["ids"].int64_list.value)


def words_of(examples: Examples, split: str = "train") -> list[list[str]]:
    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    return [[tokens[id_] for id_ in document] for document in documents_of(examples, split)]


@pytest.fixture
def without_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_job.use(monkeypatch)


@pytest.mark.usefixtures("without_beam")
def test_a_small_corpus_comes_out_whole(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("the cat sat zoo\n\na cat, the cat\nThe dog!\nzoo\n")
    (tmp_path / "a.txt").write_text("a cat, the cat\n…\n")
    settings = TransformSettings(min_count=2, max_size=2, deduplicate=True)
    pattern = str(tmp_path / "*.txt")
    examples = run(tmp_path / "out", pattern, settings=settings, eval_share=0)
    assert (examples.path / "vocabulary.tsv").read_text() == "cat\t3\nthe\t3\n"
    assert words_of(examples) == [["cat", "the", "cat"], ["the", "cat"], ["the"]]
    assert words_of(examples, "eval") == []
    statistics = examples.statistics
    dropped = {"empty": 1, "no_token": 1, "no_known_token": 1, "duplicate": 1}
    assert statistics["documents_dropped"] == dropped
    assert examples.summary["documents_dropped"] == statistics["documents_dropped"]
    assert statistics["tokens"] == 11
    assert statistics["types"] == 6
    assert statistics["kept_tokens"] == 6
    assert statistics["tokens_dropped"] == {"out_of_vocabulary": 5}
    assert statistics["splits"]["train"]["documents"] == 3
    assert "phrases" not in statistics
    assert not (examples.path / "phrases.tsv").exists()
    assert statistics["document_lengths"] == [
        {"up_to": 1, "documents": 1},
        {"up_to": 2, "documents": 1},
        {"up_to": 4, "documents": 2},
    ]


def assert_ids_of(
    examples: Examples,
    lines: list[bytes],
    documents: Sequence[Sequence[Any]],
    ids: Mapping[Any, int],
    eval_share: float,
) -> None:
    """Each split has the ids of the known tokens of its lines' documents, in their order."""
    chosen = held_out(pa.array(lines, pa.binary()), eval_share)
    for split, side in (("train", False), ("eval", True)):
        naive = [
            [ids[token] for token in document if token in ids]
            for document, eval_ in zip(documents, chosen, strict=True)
            if eval_ == side
        ]
        assert list(documents_of(examples, split)) == [document for document in naive if document]


def tokenise(documents: list[bytes]) -> tf.RaggedTensor:
    return text.tokenize(tf.constant(documents), tokenizer="words", lowercase=True)


def test_vocabulary_records_and_graph_are_those_of_an_independent_count(
    shared: Path, tmp_path: Path
) -> None:
    lines = []
    for name in ("enwiki-dev", "zhwiki"):  # Together more than a block of the reader.
        with gzip.open(shared / "corpora" / name / "part-000.txt.gz") as file:
            lines += file.read(600_000).split(b"\n")
    lines = list(dict.fromkeys(line for line in lines if line.strip()))
    again = lines[::9]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    (tmp_path / "b.txt").write_bytes(b"\n".join([*again, b"", "…\n".encode()]))
    settings = TransformSettings(min_count=3, max_size=7000, deduplicate=True)
    examples = run(tmp_path / "out", str(tmp_path / "*.txt"), settings=settings)
    documents = tokenise(lines).to_list()
    counts = Counter(token for document in documents for token in document)
    kept = [item for item in plain_job.largest_first(counts) if item[1] >= 3]
    assert len(kept) > 7000
    expected = kept[:7000]
    written = (examples.path / "vocabulary.tsv").read_bytes()
    assert written == b"".join(b"%s\t%d\n" % item for item in expected)
    assert examples.statistics["tokens"] == counts.total()
    assert examples.statistics["types"] == len(counts)
    dropped = {"duplicate": len(again), "empty": 1, "no_token": 1}
    assert examples.statistics["documents_dropped"] == dropped
    unknown = counts.total() - sum(count for _, count in expected)
    assert examples.statistics["tokens_dropped"] == {"out_of_vocabulary": unknown}

    ids = {token: id_ for id_, (token, _) in enumerate(expected)}
    assert_ids_of(examples, lines, documents, ids, ExampleGenSettings().eval_share)

    graph = tft.TFTransformOutput(str(examples.path / "transform_graph"))
    outputs = graph.transform_raw_features({"text": tf.constant(["The CITY, unheard-of"])})
    assert outputs["ids"].to_list() == [[ids[token] for token in (b"the", b"city", b"of")]]
    assert outputs["tokens"].numpy().tolist() == [4]


def digests(examples: Examples) -> dict[str, str]:
    files = [path for split in ("train", "eval") for path in (examples.path / split).iterdir()]
    files += [examples.path / name for name in ("vocabulary.tsv", "statistics.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.usefixtures("without_beam")
def test_only_new_text_is_tokenised_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.example_gen.units.UNIT_BYTES", 20_000)
    monkeypatch.setattr("components.transform.segments.SEGMENT_BYTES", 7_000)
    monkeypatch.setattr("components.example_gen.reader.BLOCK_BYTES", 3_000)
    draw = np.random.default_rng(0)
    for number in range(3):
        words = draw.integers(0, 60, 13_000)
        texts = [" ".join(f"w{w}" for w in words[i : i + 20]) for i in range(0, 13_000, 20)]
        lines = [json.dumps({"text": text}) for text in texts]
        lines.insert(500, ["", "no JSON", '{"other": 1}'][number])  # a reason of its own
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines))
    pattern, cache = str(tmp_path / "*.jsonl"), tmp_path / "tokens"
    first = run(tmp_path / "first", pattern, cache=str(cache))
    assert first.summary["units"] > 8
    assert first.summary["units_reused"] == 0

    (tmp_path / "3.jsonl").write_text('{"text": "and one more"}\n')
    changed = tmp_path / "1.jsonl"
    content = changed.read_text()
    changed.write_text(content.replace(' "w', ' "x', 1))  # In place, at the same size.
    second = run(tmp_path / "second", pattern, cache=str(cache))
    assert second.summary["units_reused"] == second.summary["units"] - 2
    assert len(list(cache.iterdir())) == second.summary["units"]

    settings = TransformSettings(min_count=1, cache=False)
    uncached = run(tmp_path / "3", pattern, cache=str(cache), settings=settings)
    assert uncached.summary["units_reused"] == 0
    assert digests(uncached) == digests(second)
    assert not cache.exists()  # Nobody wants it any more.


@pytest.mark.usefixtures("without_beam")
def test_an_awkward_corpus_runs_through(tmp_path: Path) -> None:
    (tmp_path / "crlf.txt").write_bytes(b"\xef\xbb\xbfone two\r\n\r\nthree\r\n")
    (tmp_path / "odd.txt").write_bytes(
        "smile 😀 cafe\u0301\nnul\0byte\n".encode() + b"bad\xff end\n"
    )
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "folder.txt").mkdir()
    # Longer than a block of the reader, and with a word that is.
    (tmp_path / "huge.txt").write_bytes(b"word " * 400_000 + b"x" * 3_000_000)
    unreadable = json.dumps({"text": "json"}), "{broken", '{"body": "one two"}'
    (tmp_path / "lines.jsonl").write_text("\n".join(unreadable))
    pattern = str(tmp_path / "*.*")
    examples = run(
        tmp_path / "out", pattern, eval_share=0, max_invalid_utf8=0.2, max_unreadable=0.3
    )
    documents = words_of(examples)
    documents.remove(["json"])
    assert documents[:2] == [["one", "two"], ["three"]]
    assert documents[3:] == [["smile", "café"], ["nul", "byte"], ["bad", "end"]]
    assert len(documents[2]) == 400_001
    statistics = examples.statistics
    dropped = {"empty": 1, "invalid_json": 1, "missing_field": 1}
    assert statistics["documents_dropped"] == dropped
    assert statistics["documents_repaired"] == {"invalid_utf8": 1, "nul": 1, "cut": 0}
    assert sum(statistics["files_skipped"].values()) == 1


TOO_SMALL = (
    "the vocabulary must hold at least 2 words to compare, got 'the': of 5 tokens in 2 documents, "
    "no other occurs transform.min_count = 2 times; the text is too small: word vectors begin to "
    "be of use at some 20,000 tokens and are good from a million on; give more text, or for a "
    "trial --set transform.min_count=1"
)


def test_a_text_of_blank_lines_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n \n")
    settings = TransformSettings(min_count=1, deduplicate=True, phrase_passes=1)
    said = r"hold text, got 1 file without a document \(3 are blank\): check"
    with pytest.raises(SkipstreamError, match=said):
        run(tmp_path / "out", str(tmp_path / "a.txt"), settings=settings)


@pytest.mark.usefixtures("without_beam")
@pytest.mark.parametrize(
    ("content", "min_count", "said"),
    [
        ("… !\n?\n", 1, "hold words, got 1 file whose 2 documents have no letter and no digit"),
        ("… !\nthe words of the text\n", 2, TOO_SMALL),
    ],
)
def test_a_text_of_too_few_words_is_an_error_that_names_the_first_cause(
    tmp_path: Path, content: str, min_count: int, said: str
) -> None:
    (tmp_path / "a.txt").write_text(content)
    settings = TransformSettings(min_count=min_count)
    with pytest.raises(SkipstreamError) as caught:
        run(tmp_path / "out", str(tmp_path / "a.txt"), settings=settings)
    assert said in str(caught.value)


@pytest.mark.usefixtures("without_beam")
def test_too_many_unreadable_documents_are_an_error(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "one two"})] * 8 + ["{broken", '{"body": "one two"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    pattern = str(tmp_path / "a.jsonl")
    said = r"got 20.0% \(1 invalid_json, 1 missing_field\): in .*/a\.jsonl, for example, a line "
    with pytest.raises(SkipstreamError, match=said):
        run(tmp_path / "1", pattern)


@pytest.mark.usefixtures("without_beam")
@pytest.mark.parametrize("scheme", ["", f"{BucketFileSystem.scheme()}:/"])
def test_a_corpus_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two\n")
    tokenise, cache = segments.tokenise, tmp_path / "tokens"

    def meddle(*arguments: Any, **options: Any) -> Iterator[segments.Segment]:
        path.write_text("two one\n")  # As long as before, and with the same counts.
        return tokenise(*arguments, **options)

    monkeypatch.setattr(segments, "tokenise", meddle)
    with pytest.raises(
        SkipstreamError, match=r"must not change while it is read, but .*a\.txt did"
    ):
        run(tmp_path / "out", f"{scheme}{path}", cache=str(cache))
    assert not list(cache.glob("*.arrow"))  # None is found under the name of what was there.


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--no_such_option=1", "unrecognized arguments: --no_such_option=1"),
        ("--direct_num_workers=many", "invalid int value: 'many'"),
        ("--runner=NoRunner", "Unexpected pipeline runner: NoRunner"),
    ],
)
def test_a_mistake_in_beams_options_is_told_in_one_line(flag: str, reason: str) -> None:
    with pytest.raises(SkipstreamError, match=f"Beam refuses its options {flag}: .*{reason}"):
        runner_and_options([flag])


def test_options_of_remote_runners_are_theirs_to_know() -> None:
    runner, options = runner_and_options(["--runner=FlinkRunner", "--flink_master=host:8081"])
    assert type(runner).__name__ == "FlinkRunner"
    assert options.get_all_options()["flink_master"] == "host:8081"


def segment_of(documents: list[str], held_out: list[bool] | None = None) -> segments.Segment:
    block = Block(pa.array([d.encode() for d in documents], pa.binary()), {"documents": 1})
    (segment,) = segments.tokenise([block], settings=TransformSettings(), eval_share=0)
    return replace(segment, held_out=np.array(held_out or [False] * len(documents)))


def test_a_segment_comes_back_from_its_file(tmp_path: Path) -> None:
    made = [segment_of(["a b a", "…", "b c"], [True, False, False]), segment_of([" ", "d"])]
    path = str(tmp_path / "unit.arrow")
    segments.save(made, path)
    assert segments.count(path) == 2
    first, second = (segments.load(path, number) for number in range(2))
    assert first.types.to_pylist() == [b"a", b"b", b"c"]
    assert first.tokens.tolist() == [0, 1, 0, 1, 2]
    assert first.lengths.tolist() == [3, 0, 2]
    assert first.held_out.tolist() == [True, False, False]
    assert first.read == {"documents": 1}
    assert (second.types.to_pylist(), second.lengths.tolist()) == ([b"d"], [0, 1])
    types, counts = segments.load_counts(path, 0)
    assert (types.to_pylist(), counts.to_pylist()) == ([b"a", b"b", b"c"], [2, 2, 1])


def test_the_last_block_may_end_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6)
    texts = b"a b", b"c d", b"e f", b"g h"
    blocks = [Block(pa.array([text], pa.binary()), {"bytes": 3}) for text in texts]
    made = segments.tokenise(blocks, settings=TransformSettings(), eval_share=0)
    types = [segment.types.to_pylist() for segment in made]
    assert types == [[b"a", b"b", b"c", b"d"], [b"e", b"f", b"g", b"h"]]


def test_documents_that_are_left_out_take_their_tokens_along() -> None:
    segment = segment_of(["a b a", "…", "b c"], [True, False, False])
    assert segment.without(np.zeros(3, np.bool_), "duplicate") is segment
    kept = segment.without(np.array([True, False, False]), "duplicate")
    assert kept.lengths.tolist() == [0, 2]
    assert kept.tokens.tolist() == [1, 2]
    assert kept.held_out.tolist() == [False, False]


def test_a_segment_is_written_in_its_order_and_again_the_same(tmp_path: Path) -> None:
    for name in ("train", "eval", "unfinished"):
        (tmp_path / name).mkdir()
    segment = segment_of(["a b", "rare", "c", "…", "b"], [False, False, True, False, False])
    ids = np.array([5, 6, -1, 7])
    path = tmp_path / "train" / "000007-0003.tfrecord.gz"
    counts = records.write_segment(7, 3, segment, ids, str(tmp_path))
    first = path.read_bytes()
    assert records.write_segment(7, 3, segment, ids, str(tmp_path)) == counts
    assert path.read_bytes() == first
    assert list(documents_in([str(path)])) == [[5, 6], [6]]
    assert list(documents_in([str(tmp_path / "eval" / path.name)])) == [[7]]
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == [path.name] * 2
    assert counts["train.kept_tokens"] == 3
    assert counts["train.files"] == counts["eval.files"] == 1
    assert counts["dropped.no_known_token"] == counts["dropped.no_token"] == 1


def test_a_record_file_that_did_not_arrive_is_noticed(tmp_path: Path) -> None:
    for name in ("train", "eval", "unfinished"):
        (tmp_path / name).mkdir()
    (tmp_path / "vocabulary.tsv").write_text("a\t1\nb\t1\nc\t1\n")
    segment = segment_of(["a b", "c"], [False, True])
    counts = records.write_segment(0, 0, segment, np.arange(3), str(tmp_path))

    def describe() -> dict[str, Any]:
        listing = Listing((), (), "lines", "text", 0.0, "fail", {}, 0.01, 0.1, ())
        return statistics.describe(dict(counts), 3, 3, listing, Examples(tmp_path, "examples"))

    assert list(describe()["splits"]["eval"]["files"]) == ["000000-0000.tfrecord.gz"]
    (tmp_path / "eval" / "000000-0000.tfrecord.gz").unlink()
    with pytest.raises(SkipstreamError, match=r"of 1 in eval/ there are 0: .*run again"):
        describe()


def test_partitions_sum_up_to_the_counts_of_all_segments(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    expected: Counter[bytes] = Counter()
    sums: dict[int, list[pa.Table]] = {}
    combine = preprocessing.SumCounts()
    path = str(tmp_path / "unit.arrow")
    documents = [" ".join(f"{n}" for n in draw.integers(0, 1000, size)) for size in range(40)]
    segments.save(map(segment_of, ([document] for document in documents)), path)
    for number, document in enumerate(documents):
        expected.update(document.encode().split())
        segment = SegmentRef(0, number, path, reused=False)
        for partition, table in preprocessing.types_by_partition(segment):
            sums[partition] = combine.add_input(sums.get(partition, []), table)
    tables = [combine.extract_output(combine.compact(tables)) for tables in sums.values()]
    naive = sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    for size in (None, 100):
        lines = b"".join(preprocessing.vocabulary_lines(pa.concat_tables(tables), max_size=size))
        assert lines == b"".join(b"%s\t%d\n" % item for item in naive[:size])


def test_partitions_are_of_like_size_and_of_a_tokens_bytes_alone() -> None:
    tokens = pa.array([b"w%d" % number for number in range(100_000)], pa.binary())
    found = partitions.partitions_of(tokens)
    assert (
        np.bincount(found, minlength=partitions.PARTITIONS).max()
        < 3 * len(tokens) / partitions.PARTITIONS
    )
    assert partitions.partitions_of(tokens[500:600]).tolist() == found[500:600].tolist()


def test_tokens_are_found_by_all_code_that_they_depend_on() -> None:
    found = imported("components.transform.token_cache")
    assert {"components.text", "components.example_gen.reader", "tensorflow"} <= found
    assert not any("trainer" in name for name in found)  # It may change without that.


@pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_documents_tokenised_together_are_as_each_alone(tokenizer: Any, lowercase: bool) -> None:
    letters = [
        "a",
        "Σ",
        "ΑΣ",
        "é",
        "'",
        "’",
        "\u0301",
        "漢",
        "か\u3099",
        " ",
        "\n",
        "\0",
        "!",
        "𝔘",
        "3",
    ]
    pieces = [*(letter.encode() for letter in letters), b"\xff", b"\xe6\x97", segments._BOUNDARY]
    draw = np.random.default_rng(8)
    settings = TransformSettings(tokenizer=tokenizer, lowercase=lowercase)
    for likely in (0, 1):  # whether the word that stands between documents may be in them
        chosen = len(pieces) - 1 + likely
        documents = [
            b"".join(pieces[i] for i in draw.integers(0, chosen, draw.integers(1, 9)))
            for _ in range(400)
        ]
        block = Block(pa.array(documents, pa.binary()), {})
        (segment,) = segments.tokenise([block], settings=settings, eval_share=0)
        naive = text.tokenize(tf.constant(documents), tokenizer=tokenizer, lowercase=lowercase)
        assert segment.types.take(pa.array(segment.tokens)).to_pylist() == list(
            naive.flat_values.numpy()
        )
        assert segment.lengths.tolist() == naive.row_lengths().numpy().tolist()
        assert set(segment.tokens.tolist()) == set(range(len(segment.types)))


@pytest.mark.usefixtures("without_beam")
def test_files_are_read_where_they_are_now(tmp_path: Path) -> None:
    day, moved = tmp_path / "day", tmp_path / "moved"
    day.mkdir()
    (day / "a.txt").write_text("é b é b z a z a Z\n")
    for name in ("corpus", "examples"):
        (tmp_path / name).mkdir()
    settings = ExampleGenSettings(input=(f"{day}/*",), eval_share=0)
    corpus = list_corpus(settings=settings, out=Corpus(tmp_path / "corpus", "corpus"))
    day.rename(moved)
    _, listing = find(settings.model_copy(update={"input": (f"{moved}/*",)}))
    examples = transform.build(
        corpus,
        settings=TransformSettings(min_count=1, max_size=3, lowercase=False),
        out=Examples(tmp_path / "examples", "examples"),
        listing=listing,
    )
    assert words_of(examples) == [["b", "b", "z", "a", "z", "a"]]


@pytest.mark.usefixtures("without_beam")
def test_of_equal_documents_the_first_one_stays(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("components.example_gen.units.UNIT_BYTES", 60)
    monkeypatch.setattr("components.example_gen.units._FILE_BYTES", 1)
    draw = np.random.default_rng(1)
    lines = [f"w{a} w{b} x{a}" for a, b in draw.integers(0, 6, (60, 2))]
    (tmp_path / "a.txt").write_text("\n".join(lines[:25]) + "\n")
    (tmp_path / "b.txt").write_text("\n".join(lines[25:]) + "\n")
    settings = TransformSettings(min_count=1, deduplicate=True)
    examples = run(tmp_path / "1", str(tmp_path / "?.txt"), settings=settings, eval_share=0)
    assert examples.summary["units"] > 5
    unique = list(dict.fromkeys(lines))
    assert [" ".join(words) for words in words_of(examples)] == unique
    assert examples.statistics["documents_dropped"] == {"duplicate": 60 - len(unique)}
    assert examples.statistics["documents"] == 60
    counts = Counter(word for line in unique for word in line.split())
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    assert dict(zip(vocabulary.tokens, vocabulary.counts.tolist(), strict=True)) == counts


@pytest.mark.usefixtures("without_beam")
def test_short_documents_and_long_tokens_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = "a bb ccc\nééé dddd a\ndddd\n…\nbb a eeeee\na dddd dddd\nbb\n"
    (tmp_path / "a.txt").write_text(lines)
    settings = TransformSettings(min_count=1, min_tokens=2, max_token_length=3)
    examples = run(tmp_path / "1", str(tmp_path / "a.txt"), settings=settings, eval_share=0)
    assert words_of(examples) == [["a", "bb", "ccc"], ["ééé", "a"], ["bb", "a"]]
    statistics = examples.statistics
    assert statistics["documents_dropped"] == {"no_token": 2, "too_short": 2}
    # None of a document that was dropped, long or not.
    assert statistics["tokens_dropped"] == {"out_of_vocabulary": 0, "too_long": 3}
    assert statistics["tokens"] == 10


@pytest.mark.usefixtures("without_beam")
def test_damaged_and_vanished_files_can_be_skipped_and_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress("\n".join(f"w{n} again" for n in range(9)).encode())
    (tmp_path / "a.txt").write_text("one two\n")
    damaged, vanished = tmp_path / "b.txt.gz", tmp_path / "d.txt"
    damaged.write_bytes(packed[: len(packed) // 2])
    (tmp_path / "c.txt").write_text("three\n")
    vanished.write_text("four\n")
    pattern = str(tmp_path / "?.txt*")
    options = {"cache": str(tmp_path / "tokens"), "eval_share": 0, "damaged_files": "skip"}

    def meddle(*arguments: Any) -> Any:
        vanished.unlink()  # Between listing and reading.
        return plan(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(plain_job, "plan", meddle)
        examples = run(tmp_path / "1", pattern, **options)
    assert words_of(examples) == [["one", "two"], ["three"]]
    assert examples.statistics["files_skipped"] == {"damaged_parts": 2}
    damaged.write_bytes(packed)
    examples = run(tmp_path / "2", pattern, **options)
    assert len(words_of(examples)) == 11
    assert examples.statistics["files_skipped"] == {}


def test_text_that_is_appended_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("components.example_gen.units.UNIT_BYTES", 64)
    file, cache = tmp_path / "a.txt", str(tmp_path / "tokens")
    for length in range(1, 40):
        file.write_text("".join(f"w{n:03}\n" for n in range(2 * length)))
        (tmp_path / "corpus").mkdir(exist_ok=True)
        settings = ExampleGenSettings(input=(str(file),))
        corpus = list_corpus(settings=settings, out=Corpus(tmp_path / "corpus", "corpus"))
        token_cache = TokenCache(cache, found_again=True)
        (tmp_path / "tokens").mkdir(exist_ok=True)
        do = TokeniseUnit(token_cache, TransformSettings(), 0.0)
        made = [ref for unit in plan(Listing.load(corpus)) for ref in do.process(unit)]
        words = [
            word.decode()
            for segment in (ref.load() for ref in made)
            for word in segment.types.take(pa.array(segment.tokens)).to_pylist()
        ]
        assert words == file.read_text().split()
        assert sum(not ref.reused for ref in made) <= 2  # what was the end, and what is now


def test_a_worker_with_other_libraries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    do = TokeniseUnit(TokenCache("tokens", found_again=False), TransformSettings(), 0.0)
    do.setup()
    found = code_identity("components.transform.job")
    older = {"code": "0" * 32, "libraries": found["libraries"] | {"tensorflow": "2.1.0"}}
    monkeypatch.setattr("components.identity.code_identity", lambda module: older)
    with pytest.raises(SkipstreamError, match=r"got tensorflow 2\.1\.0 instead of .*, code 0{12}"):
        do.setup()


def test_a_damaged_token_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "unit.arrow"
    segments.save([segment_of(["a b"]), segment_of(["c"]), segment_of(["d"])], str(path))
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(SkipstreamError, match=r"unit\.arrow is damaged or gone .*delete it"):
            [segments.load(str(path), number) for number in range(segments.count(str(path)))]


def test_no_byte_of_a_token_file_changes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "unit.arrow"
    segments.save([segment_of(["a b a", "c"], [True, False])], str(path))
    whole = path.read_bytes()

    def content() -> list[Any]:
        found = segments.load(str(path), 0)
        return [found.types.to_pylist(), found.tokens.tolist(), found.lengths.tolist(), found.read]

    expected, noticed = content(), 0
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert content() == expected
        except SkipstreamError as error:
            noticed += 1
            assert f"{path} is damaged or gone" in str(error)
    assert noticed > 50


def test_results_come_from_another_file_system(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "work" / "train").mkdir(parents=True)
    (tmp_path / "work" / "train" / "000000.tfrecord.gz").write_text("x")
    (tmp_path / "work" / "counts.json").write_text("{}")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    storage.fetch(str(tmp_path / "work"), tmp_path / "out")
    assert (tmp_path / "out" / "train" / "000000.tfrecord.gz").read_text() == "x"
    assert not (tmp_path / "work").exists()


def test_a_job_that_cannot_be_wired_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def wire(pipeline: Any, *_: Any, **__: Any) -> None:
        assert list((tmp_path / "tmp").iterdir())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transform.job, "wire", wire)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "a.txt").write_text("the cat\n")
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "out", str(tmp_path / "a.txt"))
    assert not list((tmp_path / "tmp").iterdir())


def test_a_directory_that_would_be_a_pattern_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(SkipstreamError, match=r"may hold any of \* \? \[ \].*o\[1\]"):
        run(tmp_path / "o[1]", str(tmp_path / "a.txt"))
