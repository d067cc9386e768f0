"""What the stages' fingerprints depend on, and in which order the chain takes them."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stages import STAGES, make_quick, run_chain

from components.artifacts import Evaluation, Model
from components.errors import NotBlessedError, SkipstreamError
from components.exporter import fasttext_model
from components.places.directory import Directory
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import History
from components.settings import (
    EvaluatorSettings,
    ExampleGenSettings,
    ExporterSettings,
    PusherSettings,
    TrainerSettings,
    TransformSettings,
)
from pipeline import cache, cli, runner
from pipeline.config import Settings
from pipeline.store import Store


@pytest.fixture(autouse=True)
def _quick_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("the cat\n")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "file.txt"
    path.parent.mkdir()
    path.write_text("one 2\nthree 4\n")
    return path


def fingerprints(corpus: Path, **settings: Any) -> dict[str, str]:
    """Those of a run in a new output."""
    store = Store.open(corpus.parent / f"out-{len(list(corpus.parent.iterdir()))}")
    chosen = Settings(example_gen=ExampleGenSettings(input=(str(corpus),)), **settings)
    stages = run_chain(store, chosen, "evaluate")
    return {name: stage["fingerprint"] for name, stage in stages.items()}


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store.open(tmp_path / "out")
    return Store.open(f"{request.getfixturevalue('gs').url}/out")


@pytest.mark.parametrize("store", ["directory"], indirect=True)  # See the nights on new machines.
def test_the_stages_are_taken_in_order_and_all_are_reused(store: Store, corpus: Path) -> None:
    settings = Settings(example_gen=ExampleGenSettings(input=(str(corpus),)))
    first = run_chain(store, settings)
    assert list(first) == STAGES
    assert not any(stage["reused"] for stage in first.values())
    again = run_chain(store, settings)
    assert list(again) == STAGES
    assert all(stage["reused"] for stage in again.values())
    assert again["pusher"]["version"] == 1


@pytest.mark.parametrize(
    ("settings", "anew"),
    [
        ({"transform": TransformSettings(min_count=7)}, STAGES[1:]),
        ({"trainer": TrainerSettings(epochs=7)}, STAGES[3:]),
        ({"trainer": TrainerSettings(threads=7)}, []),
        ({"evaluator": EvaluatorSettings(max_loss=7)}, ["evaluator", "pusher"]),
        ({"pusher": PusherSettings(keep=7)}, []),
    ],
)
def test_a_setting_repeats_its_stage_and_what_comes_of_that(
    tmp_path: Path, corpus: Path, settings: dict[str, Any], anew: list[str]
) -> None:
    store = Store(Directory(tmp_path / "out"))
    example_gen = ExampleGenSettings(input=(str(corpus),))
    run_chain(store, Settings(example_gen=example_gen))
    stages = run_chain(store, Settings(example_gen=example_gen, **settings))
    assert [name for name, stage in stages.items() if not stage["reused"]] == anew


def test_start_vectors_count_by_their_content(corpus: Path, file: Path) -> None:
    def model(path: Path) -> str:
        chosen = TrainerSettings(start_vectors=(str(path),), dimensions=1)
        return fingerprints(corpus, trainer=chosen)["trainer"]

    before = model(file)
    os.utime(file, (1, 1))
    assert model(file) == before
    moved = file.rename(corpus.parent / "renamed.txt")
    assert model(moved) == before
    packed = corpus.parent / "packed.txt.gz"
    packed.write_bytes(gzip.compress(moved.read_bytes()))
    assert model(packed) != before
    moved.write_text("one 2\nthree 5\n")
    assert model(moved) != before
    assert fingerprints(corpus, trainer=TrainerSettings(dimensions=1))["trainer"] != before


def test_a_model_of_fasttext_is_looked_at_before_any_stage(corpus: Path, file: Path) -> None:
    with file.open("wb") as content:
        fasttext_model.write(content, ["one"], np.ones((1, 2), np.float32), None, None)
    chosen = TrainerSettings(start_vectors=(str(file),), dimensions=3)
    with pytest.raises(SkipstreamError, match="must have trainer.dimensions = 3, got 2"):
        fingerprints(corpus, trainer=chosen)
    with pytest.raises(SkipstreamError, match="min_ngram, max_ngram and buckets = 3, 6 and 9, got"):
        ngrams = {"dimensions": 2, "min_ngram": 3, "max_ngram": 6, "buckets": 9}
        fingerprints(corpus, trainer=chosen.model_copy(update=ngrams))
    assert not list(corpus.parent.glob("out-*/example_gen"))
    fingerprints(corpus, trainer=chosen.model_copy(update={"dimensions": 2}))


@pytest.mark.parametrize(
    ("kind", "text"), [("word_pairs", "one two 3\n"), ("analogies", "one two three four\n")]
)
def test_files_of_scores_count_by_their_names_and_content(
    corpus: Path, file: Path, kind: str, text: str
) -> None:
    file.write_text(text)

    def evaluation(path: Path) -> str:
        settings = EvaluatorSettings(**{kind: (str(path),)})
        return fingerprints(corpus, evaluator=settings)["evaluator"]

    before = evaluation(file)
    os.utime(file, (1, 1))
    assert evaluation(file) == before
    moved = file.rename(corpus.parent / file.name)
    assert evaluation(moved) == before
    moved.write_text(text.replace("one", "six"))
    assert evaluation(moved) != before
    moved.write_text(text)
    assert evaluation(moved) == before
    assert evaluation(moved.rename(corpus.parent / "other.txt")) != before


def test_nothing_is_trained_on_a_corpus_outside_the_limits(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = runner.import_module

    def refuse(name: str) -> Any:
        module = quick(name)
        if "statistics_gen" in name:
            module.build = lambda out, **_: out.finish(accepted=False, reasons=["too few", "odd"])
        return module

    monkeypatch.setattr(runner, "import_module", refuse)
    with pytest.raises(NotBlessedError) as caught:
        fingerprints(corpus)
    out = next(corpus.parent.glob("out-*"))
    assert str(caught.value) == (
        "only a corpus within the limits is trained on, and this one is not: too few; odd: "
        f"see 'skipstream stats {out}'"
    )
    assert not (out / "trainer").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": TrainerSettings(start_vectors=("/none",))}, "trainer.start_vectors must"),
        ({"trainer": TrainerSettings(warm_start="/none")}, "trainer.warm_start must be 'latest'"),
        ({"evaluator": EvaluatorSettings(analogies=("/none",))}, "evaluator.analogies must match"),
    ],
)
def test_a_mistake_in_a_name_costs_no_stage(
    corpus: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SkipstreamError, match=message):
        fingerprints(corpus, **settings)
    assert not list(corpus.parent.glob("out-*/example_gen"))


def night(store: Store, corpus: Path, text: str) -> dict[str, Any]:
    """What run.json says of a run that goes on from the latest version, and its `start`."""
    corpus.write_text(text)
    settings = Settings(
        example_gen=ExampleGenSettings(input=(str(corpus),)),
        trainer=TrainerSettings(warm_start="latest"),
    )
    stages = run_chain(store, settings)
    model = store.last(Model)
    assert model
    return {"start": model.manifest["made_of"]["inputs"].get("start"), **stages}


@pytest.mark.parametrize("store", ["directory"], indirect=True)  # See the nights on new machines.
def test_a_training_from_the_latest_version_is_repeated_from_the_same(
    store: Store, corpus: Path
) -> None:
    first = night(store, corpus, "the cat\n")
    assert first["start"] is None
    second = night(store, corpus, "the dog\n")
    trained = {"stage": "trainer", "fingerprint": first["trainer"]["fingerprint"]}
    assert second["start"] == trained
    again = night(store, corpus, "the dog\n")
    assert again["start"] == trained
    assert all(again[name]["reused"] for name in STAGES)


def test_nights_on_new_machines_are_those_of_one_that_stays(
    gs: Any, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the bucket keeps is enough, and where things lie is no part of a fingerprint."""
    texts = ["the cat\n", "the dog\n", "the dog\n", "the cow\n"]
    here = Store(Directory(tmp_path / "out"))
    for number, text in enumerate(texts):
        stays = night(here, corpus, text)
        monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / f"machine {number}"))
        new = night(Store.open(f"{gs.url}/out"), corpus, text)
        for name in STAGES:
            facts = [
                (stages[name]["fingerprint"], stages[name]["reused"]) for stages in (stays, new)
            ]
            assert facts[0] == facts[1]
    bucket = open_destination(f"{gs.url}/out/serving")
    assert pusher.read(bucket).versions == [1, 2, 3]
    assert pusher.read(bucket).artifacts(3) == pusher.read(
        open_destination(tmp_path / "out" / "serving")
    ).artifacts(3)


def test_a_model_is_pushed_again_where_another_was_pushed_since(store: Store, corpus: Path) -> None:
    def pushed(epochs: int) -> dict[str, Any]:
        settings = Settings(
            example_gen=ExampleGenSettings(input=(str(corpus),)),
            trainer=TrainerSettings(epochs=epochs),
            exporter=ExporterSettings(align=False),
        )
        stages = run_chain(store, settings)
        assert store.place.has(f"serving/{stages['pusher']['version']}/saved_model.pb")
        return stages

    first, second, third = pushed(1), pushed(2), pushed(1)
    assert [run["pusher"]["version"] for run in (first, second, third)] == [1, 2, 3]
    made = first["exporter"]
    assert made.pop("peak_memory_bytes") > 0  # Of a run that makes it.
    assert third["exporter"] == made | {"seconds": 0.0, "reused": True}
    assert pushed(1)["pusher"]["reused"]


def test_a_training_starts_anew_where_the_latest_model_is_gone(
    store: Store, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = night(store, corpus, "the cat\n")["trainer"]
    store.remove(f"trainer/{first['fingerprint']}")
    capsys.readouterr()
    assert night(store, corpus, "the dog\n")["start"] is None
    warning = f"warning: the training starts anew: {first['artifact']} is gone, which "
    assert warning in capsys.readouterr().err


def test_runs_and_commands_do_without_the_reports_of_other_runs(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(Directory(tmp_path / "out"))
    settings = Settings(example_gen=ExampleGenSettings(input=(str(corpus),)))
    run_chain(store, settings)
    for content in (b"{", b'{"stages": []}', None):
        if content is None:
            store.place.remove("run.json")
        else:
            store.place.write("run.json", content)
        assert cli.run(["gc", store.address]) == 0
        assert capsys.readouterr().out.endswith("0  bytes freed\n")
        assert cli.run(["versions", store.address]) == 0
        assert capsys.readouterr().out.count("\n") == 2
        again = run_chain(store, settings)
        assert all(stage["reused"] for stage in again.values())


def test_a_place_that_nothing_is_pushed_to_is_not_remembered(
    store: Store, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        example_gen=ExampleGenSettings(input=(str(corpus),)),
        pusher=PusherSettings(destination=str(tmp_path / "models")),
    )
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "report", {"blessed": False, "reasons": ["loss"]})
        with pytest.raises(NotBlessedError):
            run_chain(store, settings)
    assert Store(store.place).ledger.destinations == []
    run_chain(store, settings)
    assert Store(store.place).ledger.destinations == [str(tmp_path / "models")]


def test_a_run_reads_the_records_of_versions_once_and_a_push_once_more(
    store: Store, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Destination] = []
    history = Destination.history

    def counted(destination: Destination) -> History:
        reads.append(destination)
        return history(destination)

    monkeypatch.setattr(Destination, "history", counted)
    for times in (2, 1):
        reads.clear()
        run_chain(store, Settings(example_gen=ExampleGenSettings(input=(str(corpus),))))
        assert len(reads) == times
