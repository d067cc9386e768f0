"""Statistics of small corpora against independent ones, the limits, and where references lie."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from scipy.spatial.distance import jensenshannon
from stages import unlisted
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.artifacts import Corpus, Examples, Model, Statistics, write_json
from components.errors import NotBlessedError, SkipstreamError
from components.pusher.history import History, Record
from components.settings import ExampleGenSettings, StatisticsGenSettings, TransformSettings
from components.statistics_gen import features, statistics_gen
from components.statistics_gen.counts import Counts, scripts
from components.statistics_gen.drift import compare
from components.vocabulary import Vocabulary
from pipeline import baseline, results
from pipeline.config import Settings
from pipeline.definition import Chain
from pipeline.runner import Runner
from pipeline.store import Store, Use


def write_examples(
    path: Path, counts: dict[str, int], fingerprint: str = "now", made_of: Any = None
) -> Examples:
    """What the statistics read of an Examples artifact. One token of six was dropped."""
    path.mkdir(parents=True, exist_ok=True)
    Vocabulary(tuple(counts), np.array(list(counts.values()))).save(path / "vocabulary.tsv")
    kept = sum(counts.values())
    split = {"tokens": kept, "kept_tokens": kept, "files": {"000000.tfrecord.gz": 99}}
    statistics = {
        "bytes": 6 * kept,
        "documents": 4,
        "documents_dropped": {"no_token": 1},
        "documents_repaired": {"invalid_utf8": 0},
        "files_skipped": {"damaged_parts": 2},
        "tokens": kept * 6 // 5,
        "types": len(counts) + 3,
        "vocabulary": len(counts),
        "kept_tokens": kept,
        "kept_share": round(5 / 6, 6),
        "tokens_dropped": {"out_of_vocabulary": kept // 5},
        "phrases": {"types": 4, "pairs_joined": 7},
        "types_dropped": {"below_min_count_or_beyond_max_size": 3},
        "splits": {"train": {"documents": 2, **split}, "eval": {"documents": 1, **split}},
        "document_lengths": [{"up_to": 4, "documents": 1}, {"up_to": 16, "documents": 2}],
        "top_tokens": [],
    }
    write_json(path / "statistics.json", statistics)
    return Examples(path, fingerprint, made_of or {}).finish(TransformSettings())


def measure(
    examples: Examples, reference: Examples | None, out: Path, **settings: float
) -> Statistics:
    out.mkdir(parents=True)
    return statistics_gen.build(
        examples,
        reference,
        settings=StatisticsGenSettings(**settings),
        out=Statistics(out, "statistics"),
    )


def as_counts(counts: dict[str, int]) -> Counts:
    return Counts(pa.array(list(counts), pa.large_string()), np.array(list(counts.values())))


def draw_counts(draw: np.random.Generator) -> dict[str, int]:
    """A random half of 40 words, in the order of a vocabulary."""
    words = [f"w{number:02}" for number in draw.permutation(40)[:20]]
    counts = np.sort(draw.zipf(1.5, 20).clip(max=1000))[::-1]
    return {word: int(count) for word, count in zip(words, counts, strict=True)}


@pytest.mark.parametrize("seed", range(20))
def test_distances_equal_those_of_a_naive_count(seed: int) -> None:
    draw = np.random.default_rng(seed)
    now, before = draw_counts(draw), draw_counts(draw)
    words = sorted(now.keys() | before.keys())
    p = np.array([now.get(word, 0) for word in words]) / sum(now.values())
    q = np.array([before.get(word, 0) for word in words]) / sum(before.values())
    report = compare(as_counts(now), as_counts(before))
    assert report["jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2), abs=1e-6)
    widest = np.abs(p - q)
    assert report["l_infinity"]["distance"] == pytest.approx(widest.max(), abs=1e-6)
    assert widest[words.index(report["l_infinity"]["token"])] == pytest.approx(widest.max())
    for kind, mine, other in (("new", now, before), ("vanished", before, now)):
        alone = [word for word in mine if word not in other]
        assert [entry["token"] for entry in report[kind]["top"]] == alone[:20]
        assert report[kind]["types"] == len(alone)
        share = sum(mine[word] for word in alone) / sum(mine.values())
        assert report[kind]["share"] == pytest.approx(share, abs=1e-6)


def test_the_same_counts_have_not_moved() -> None:
    counts = as_counts({"a": 5, "b": 2})
    assert compare(counts, as_counts({"a": 10, "b": 4})) == {
        "l_infinity": {"distance": 0.0, "token": "a"},
        "jensen_shannon": 0.0,
        "new": {"types": 0, "share": 0.0, "top": []},
        "vanished": {"types": 0, "share": 0.0, "top": []},
        "moved": [],
    }


def test_words_in_common_are_what_keeps_the_distance_below_one() -> None:
    report = compare(as_counts({"a": 5, "b": 5}), as_counts({"c": 3, "d": 1}))
    assert report["jensen_shannon"] == 1
    assert report["l_infinity"] == {"distance": 0.75, "token": "c"}


def test_a_doubled_word_moved_more_than_a_ripple_of_a_frequent_one() -> None:
    report = compare(
        as_counts({"the": 598, "cat": 40, "sat": 362}),
        as_counts({"the": 620, "sat": 360, "cat": 20}),
    )
    assert report["l_infinity"]["token"] == "the"
    assert report["moved"][0] == {"token": "cat", "before": 0.02, "now": 0.04}


def test_tokens_are_read_as_the_vocabulary_reads_them(tmp_path: Path) -> None:
    words = ['"', '"a', "a\x01", "\\", "null", "NA", ",", "'", "\x1b[31m", "é", "漢", "1e5"]
    examples = write_examples(tmp_path / "e", {word: 99 - n for n, word in enumerate(words)})
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    counts = Counts.load(examples)
    assert tuple(counts.tokens.to_pylist()) == vocabulary.tokens == tuple(words)
    assert counts.counts.tolist() == vocabulary.counts.tolist()


def test_scripts_are_weighted_by_counts() -> None:
    counts = as_counts({"the": 50, "и": 20, "é": 10, "東": 8, "カ": 6, "2020": 3, "…": 2, "3b": 1})
    assert [(*group.values(),) for group in scripts(counts)] == [
        ("Latin", 61, 0.61, 3),
        ("Cyrillic", 20, 0.2, 1),
        ("Han", 8, 0.08, 1),
        ("Katakana", 6, 0.06, 1),
        (None, 5, 0.05, 2),
    ]


def test_the_report_is_what_a_person_reads(tmp_path: Path) -> None:
    now = write_examples(tmp_path / "now", {"the": 40, "cat": 15, "3\x1b": 5})
    before = write_examples(tmp_path / "before", {"the": 20, "dog": 10, "cat": 10}, "before")
    statistics = measure(now, before, tmp_path / "out", min_kept_share=0.9)
    assert (
        results.corpus(statistics.report)
        == """\
           4  documents (2 train, 1 eval)
         360  bytes
          72  tokens (24.0 a document)
           6  types
           3  types in the vocabulary
          60  tokens kept (83.33 %)

           1  documents dropped: no token
           2  files skipped: damaged parts
          12  tokens dropped: out of vocabulary
           3  types dropped: below min count or beyond max size
           7  pairs joined (4 phrases)

   documents  tokens a document
           1  3 to 4               ####################
           0  5 to 8
           2  9 to 16              ########################################

       types  share of the kept tokens, by script
           2  91.67 %  Latin
           1   8.33 %  no letter

       count  share of the kept tokens
          40  66.67 %  the
          15  25.00 %  cat
           5   8.33 %  3\\x1b

beside the examples before
           4  documents (was 4, +0.0 %)
          72  tokens (was 48, +50.0 %)
           6  types (was 6, +0.0 %)
           3  vocabulary (was 3, +0.0 %)
     83.33 %  kept tokens (was 83.33 %)
        0.25  L-infinity distance (by 'dog')
    0.418669  Jensen-Shannon distance (0: the same, 1: no word in common)
           1  new words (8.33 % of the tokens now: 3\\x1b)
           1  vanished words (25.00 % of the tokens before: dog)

      before           now  moved most
   50.0000 %     66.6667 %  the

not to be trained on: the kept share must be at least 0.9 (statistics_gen.min_kept_share), \
got 0.833333"""
    )


def test_the_features_are_what_tfdv_reads(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "e", {"the": 40, "cat": 15, "é": 5})
    statistics = measure(examples, None, tmp_path / "out")
    read = statistics_pb2.DatasetFeatureStatisticsList.FromString(
        (statistics.path / "FeatureStats.pb").read_bytes()
    )
    buckets = """
        buckets { low_value: 3 high_value: 5 sample_count: 1 }
        buckets { low_value: 5 high_value: 9 }
        buckets { low_value: 9 high_value: 16 sample_count: 2 }
    """
    (dataset,) = read.datasets
    length = dataset.features[1].num_stats
    assert length.std_dev == pytest.approx(4.3461, abs=1e-4)
    length.std_dev = 0
    expected = text_format.Parse(
        f"""
        datasets {{
          name: "corpus" num_examples: 4
          features {{
            type: STRING path {{ step: "tokens" }}
            string_stats {{
              common_stats {{
                num_non_missing: 3 num_missing: 1 tot_num_values: 72
                min_num_values: 3 max_num_values: 16 avg_num_values: 24
                num_values_histogram {{ {buckets} }}
              }}
              unique: 6 avg_length: {175 / 60}
              top_values {{ value: "the" frequency: 40 }}
              top_values {{ value: "cat" frequency: 15 }}
              top_values {{ value: "é" frequency: 5 }}
              rank_histogram {{
                buckets {{ low_rank: 0 high_rank: 0 label: "the" sample_count: 40 }}
                buckets {{ low_rank: 1 high_rank: 1 label: "cat" sample_count: 15 }}
                buckets {{ low_rank: 2 high_rank: 2 label: "é" sample_count: 5 }}
              }}
            }}
          }}
          features {{
            type: INT path {{ step: "tokens_per_document" }}
            num_stats {{
              common_stats {{
                num_non_missing: 3 num_missing: 1 tot_num_values: 3
                min_num_values: 1 max_num_values: 1 avg_num_values: 1
              }}
              mean: 24 min: 3 median: 10.75 max: 16
              histograms {{ {buckets} }}
            }}
          }}
        }}
        """,
        statistics_pb2.DatasetFeatureStatisticsList(),
    )
    assert read == expected


def test_the_features_are_of_what_the_settings_left(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "e", {"the": 40, "cat": 15, "é": 5})
    plain, counts = examples.statistics, Counts.load(examples)
    more = examples.statistics
    more["documents"] += 5
    more["documents_dropped"] |= {"duplicate": 3, "too_short": 2}
    more["tokens"] += 90
    more["tokens_dropped"]["too_long"] = 90
    assert features.to_proto(more, counts) == features.to_proto(plain, counts)


def test_large_vocabularies_leave_a_small_proto(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "e", {f"w{n}": 9000 - n for n in range(3000)})
    (dataset,) = features.to_proto(examples.statistics, Counts.load(examples)).datasets
    stats = dataset.features[0].string_stats
    assert len(stats.top_values) == 20
    assert [bucket.label for bucket in stats.rank_histogram.buckets] == [
        f"w{n}" for n in range(1000)
    ]
    assert stats.unique == 3003


def test_the_same_corpora_have_the_same_bytes(tmp_path: Path) -> None:
    now = write_examples(tmp_path / "now", {"the": 40, "cat": 15, "é": 5})
    before = write_examples(tmp_path / "before", {"the": 9}, "before")
    made = [measure(now, before, tmp_path / out) for out in ("a", "b")]
    contents = [{file.name: file.read_bytes() for file in one.path.iterdir()} for one in made]
    manifests = [one.manifest | {"finished": None} for one in made]
    assert manifests[0] == manifests[1]
    assert contents[0].keys() == {"manifest.json", "report.json", "FeatureStats.pb"}
    del contents[0]["manifest.json"], contents[1]["manifest.json"]
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({}, []),
        ({"min_kept_share": 0.833333, "max_l_infinity": 0.25, "max_jensen_shannon": 0.5}, []),
        ({"max_damaged_parts": 2}, []),
        (
            {"max_damaged_parts": 1},
            [
                "at most 1 damaged files, or parts of large ones, may be skipped "
                "(statistics_gen.max_damaged_parts), got 2"
            ],
        ),
        (
            {"min_kept_share": 0.84},
            ["the kept share must be at least 0.84 (statistics_gen.min_kept_share), got 0.833333"],
        ),
        (
            {"max_l_infinity": 0.1, "max_jensen_shannon": 0},
            [
                "no word's share may change by more than 0.1 (statistics_gen.max_l_infinity), "
                "got 0.25 for 'the'",
                "the Jensen-Shannon distance must be at most 0 "
                "(statistics_gen.max_jensen_shannon), got 0.378359",
            ],
        ),
    ],
)
def test_limits_name_their_setting(
    tmp_path: Path, settings: dict[str, float], reasons: list[str]
) -> None:
    now = write_examples(tmp_path / "now", {"the": 30, "cat": 10})
    before = write_examples(tmp_path / "before", {"the": 20, "dog": 10, "cat": 10}, "before")
    statistics = measure(now, before, tmp_path / "out", **settings)
    assert statistics.report["reasons"] == statistics.summary["reasons"] == reasons
    assert statistics.summary["accepted"] is not reasons
    assert statistics.report["accepted"] == (not reasons)
    assert (statistics.report["examples"], statistics.report["drift"]["reference"]) == (
        "now",
        "before",
    )


def test_without_a_reference_there_is_no_drift_to_refuse(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "e", {"the": 40})
    statistics = measure(examples, None, tmp_path / "out", max_jensen_shannon=0)
    assert statistics.report["drift"] is None
    assert statistics.summary == {"accepted": True, "reasons": []}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"the\t4\n", "must add up to 40, as statistics.json says, got 4: delete"),
        (b"the\t4", "ends within a line"),
        (b"the\t40\ncat\n", "must hold UTF-8 lines of token<TAB>count"),
        (b"the\tx\n", "must hold UTF-8 lines of token<TAB>count"),
        (b"\xff\t40\n", "must hold UTF-8 lines of token<TAB>count"),
        (b"", "must hold UTF-8 lines of token<TAB>count"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    examples = write_examples(tmp_path / "e", {"the": 40})
    file = unlisted(examples.path) / "vocabulary.tsv"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(SkipstreamError, match=f"{file}.*{said}"):
        measure(examples, None, tmp_path / "out")


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "e", {"the": 40})
    (unlisted(examples.path) / "statistics.json").unlink()
    with pytest.raises(SkipstreamError, match=r"statistics\.json cannot be read.*run transform"):
        measure(examples, None, tmp_path / "out")


def record(version: int, examples: str, **fields: Any) -> Record:
    time = datetime(2026, 1, version, tzinfo=UTC)
    return Record(
        version=version,
        action=fields.pop("action", "push"),
        claimed=time,
        published=time,
        model=fields.pop("model", f"model {version}"),
        artifacts={"transform": examples},
        **fields,
    )


def served_before(output: Path, examples: Examples, *records: Record) -> str | None:
    versions = [record.version for record in records]
    history = History(versions, {record.version: record for record in records})
    found = baseline.examples_before(history, Store.open(output), examples)
    return found.fingerprint if found else None


def test_the_reference_is_what_the_newest_version_was_trained_on(tmp_path: Path) -> None:
    stored = {
        name: write_examples(tmp_path / "transform" / name, {"the": 40}, name) for name in "abc"
    }
    first, second = record(1, "a"), record(2, "b")
    assert served_before(tmp_path, stored["c"]) is None
    assert served_before(tmp_path, stored["c"], first, second) == "b"
    # A run repeated after its push is compared with what it was compared with before.
    assert served_before(tmp_path, stored["b"], first) == "a"
    assert served_before(tmp_path, stored["b"], first, second) == "a"
    assert served_before(tmp_path, stored["a"], first) is None
    back = record(3, "a", action="rollback", restores=1, previous=2, model="model 1")
    assert served_before(tmp_path, stored["c"], first, second, back) == "a"
    assert served_before(tmp_path, stored["a"], first, second, back) is None
    assert served_before(tmp_path, stored["c"], first, record(2, "deleted")) is None


def use(output: Path, fingerprint: str) -> None:
    """Let the last run of `output` have used examples with that fingerprint."""
    store = Store.open(output)
    used = Use(fingerprint=fingerprint, run="1", seconds=1.0, reused=False)
    store.ledger.uses["transform"] = used
    store.save_ledger()


def test_examples_are_found_by_either_directory(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "transform" / "x", {"the": 40}, "x")
    assert baseline.examples(str(examples.path)) == examples
    use(tmp_path, "x")
    assert baseline.examples(str(tmp_path)) == examples


@pytest.mark.parametrize("used", [None, "gone"])
def test_a_directory_without_examples_is_refused(tmp_path: Path, used: str | None) -> None:
    if used:
        use(tmp_path, used)
    (tmp_path / "trainer").mkdir()
    Model(tmp_path / "trainer", "x").finish()
    for place in (tmp_path, tmp_path / "none", tmp_path / "trainer"):
        with pytest.raises(SkipstreamError, match=rf"^{place} must be an output whose last run"):
            baseline.examples(str(place))


class TestChain:
    """The gate in the chain, with examples that no Beam job has to make."""

    @pytest.fixture
    def output(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        def build(corpus: Corpus, *, settings: TransformSettings, out: Examples, **_: Any) -> Any:
            return write_examples(out.path, {"the": 30, "cat": 10}, out.fingerprint, out.made_of)

        monkeypatch.setattr("components.transform.transform.build", build)
        (tmp_path / "corpus.txt").write_text("the cat\n")
        return tmp_path / "out"

    def run(
        self, output: Path, command: str | None = "transform", **settings: Any
    ) -> dict[str, Any]:
        """Take the steps of a command; returns what run.json says of each, and the `error`."""
        chosen = Settings(
            example_gen=ExampleGenSettings(input=(str(output.parent / "corpus.txt"),)),
            statistics_gen=StatisticsGenSettings(**settings),
        )
        runner = Runner(Store.open(output), chosen, command=command)
        try:
            with runner:
                Chain(runner, chosen).run(command or "push")
        except SkipstreamError as error:
            return runner.report["stages"] | {"error": error}
        return runner.report["stages"]

    def test_any_command_builds_the_statistics_once(self, output: Path) -> None:
        made = self.run(output)["statistics_gen"]
        assert made["reused"] is False
        shutil.rmtree(made["artifact"])
        found = self.run(output, "validate")
        assert found["statistics_gen"]["reused"] is False
        assert "has no finished train" in str(found["error"])
        assert self.run(output, "evaluate")["statistics_gen"]["reused"] is True

    def test_a_corpus_outside_a_limit_is_not_trained_on(self, output: Path) -> None:
        stages = self.run(output, None, min_kept_share=0.9)
        error = stages.pop("error")
        assert isinstance(error, NotBlessedError)
        refused = f"statistics_gen.min_kept_share.*see 'skipstream stats {output}'"
        assert re.search(refused, str(error))
        assert list(stages) == ["example_gen", "transform", "statistics_gen"]
        again = self.run(output, min_kept_share=0.9)
        assert str(again["error"]) == str(error)
        assert again["statistics_gen"]["reused"] and not again["statistics_gen"]["accepted"]
        assert self.run(output, min_kept_share=0.8)["statistics_gen"]["accepted"]

    def test_a_given_reference_counts_by_its_content(self, output: Path) -> None:
        reference = output.parent / "other" / "transform" / "y"
        write_examples(reference, {"the": 30, "dog": 10}, "y")
        alone = self.run(output)["statistics_gen"]
        beside = self.run(output, reference=str(reference))["statistics_gen"]
        assert beside["fingerprint"] != alone["fingerprint"]
        assert (beside["new"], beside["vanished"], beside["l_infinity"]) == (1, 1, 0.25)
        reference.rename(output.parent / "moved")
        again = self.run(output, reference=str(output.parent / "moved"))["statistics_gen"]
        assert again["reused"] and again["fingerprint"] == beside["fingerprint"]

    def test_what_is_served_is_the_reference(self, output: Path) -> None:
        write_examples(output / "transform" / "y", {"the": 30, "dog": 10}, "y")
        (output / "serving" / ".versions").mkdir(parents=True)
        path = output / "serving" / ".versions" / "1.json"
        path.write_text(record(1, "y").model_dump_json())
        assert "max_l_infinity" in str(self.run(output, max_l_infinity=0.2)["error"])

    def test_a_reference_that_is_not_there_costs_no_beam_job(self, output: Path) -> None:
        stages = self.run(output, None, reference="/none")
        assert str(stages.pop("error")).startswith("/none must be an output")
        assert stages == {}
