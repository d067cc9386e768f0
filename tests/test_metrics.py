import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from stages import place, step

from components.artifacts import Corpus
from components.errors import NotBlessedError, SkipstreamError
from pipeline.config import Settings
from pipeline.runner import Runner
from pipeline.store import Store


def run(store: Store, error: Exception | None = None, **summary: Any) -> dict[str, Any]:
    """One run of one stage; the samples of its metrics file by name."""

    def build(out: Corpus) -> Corpus:
        if error:
            raise error
        return out.finish(**summary)

    try:
        with Runner(store, Settings(), run_id="nightly-7") as runner:
            runner.do(step(Corpus, build, content=summary))
    except Exception as raised:
        if raised is not error:
            raise
    text = (store.place.read("metrics.prom") or b"").decode()
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["output"] for sample in samples} == {store.address}
    found = {
        ":".join([sample.name, *filter(None, [sample.labels.get("name")])]): sample
        for sample in samples
    }
    assert len(found) == len(samples)
    return found


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(place(request.param, tmp_path / "out"))


def test_prometheus_reads_what_run_json_says(store: Store) -> None:
    found = run(
        store,
        documents=3,
        kept_share=0.25,
        blessed=True,
        skipped={"a": 1, "b": 2},
        note="x",
        scores={"c.tsv": {"spearman": 0.5, "best": None}},
    )
    report = json.loads(store.place.read("run.json") or b"")
    stage = report["stages"]["example_gen"]
    values = {name.removeprefix("skipstream_"): sample.value for name, sample in found.items()}
    assert values.pop("run_start_timestamp_seconds") > 1.7e9
    assert values.pop("last_success_timestamp_seconds") > 1.7e9
    assert values == {
        "run_info": 1,
        "run_duration_seconds": report["seconds"],
        "run_exit_code": 0,
        "stage_duration_seconds": stage["seconds"],
        "stage_reused": 0,
        "example_gen_peak_memory_bytes": stage["peak_memory_bytes"],
        "example_gen_documents": 3,
        "example_gen_kept_share": 0.25,
        "example_gen_blessed": 1,
        "example_gen_skipped:a": 1,
        "example_gen_skipped:b": 2,
        "example_gen_scores_spearman:c.tsv": 0.5,
    }
    assert found["skipstream_run_info"].labels["run_id"] == report["run_id"] == "nightly-7"
    assert found["skipstream_stage_duration_seconds"].labels["stage"] == "example_gen"


@pytest.mark.parametrize(
    ("error", "code"), [(SkipstreamError("x"), 1), (NotBlessedError("x"), 3), (ValueError("x"), 1)]
)
def test_a_failure_keeps_the_time_of_the_last_success(
    store: Store, error: Exception, code: int
) -> None:
    success = "skipstream_last_success_timestamp_seconds"
    assert success not in run(store, error)
    before = run(store, documents=1)
    failed = run(Store(store.place), error)
    assert failed["skipstream_run_exit_code"].value == code
    assert failed[success].value == before[success].value


def test_a_path_with_quotes_and_newlines_is_one_label(tmp_path: Path) -> None:
    run(Store.open(tmp_path / 'a"b\\c\nd'), documents=1)
