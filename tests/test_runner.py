"""A run of stages: what is reused, what is made anew, and what run.json says of it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stages import place, run, step

from components import identity
from components.artifacts import (
    Artifact,
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    Model,
    PushedModel,
)
from components.errors import SettingsError, SkipstreamError
from components.settings import TransformSettings
from pipeline.config import Settings
from pipeline.runner import Runner
from pipeline.store import Step, Store


class Counter:
    """A stage that says how often it ran, and on what."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[list[str]] = []
        self.error = error

    def __call__(self, out: Any) -> Any:
        self.calls.append(sorted(path.name for path in out.path.iterdir()))
        (out.path / "half").write_text(f"written {len(self.calls)}")
        if self.error:
            raise self.error
        return out.finish(documents=3, words_per_second=1234.5, seconds=9.0)


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(place(request.param, tmp_path / "out"))


def report(store: Store) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(store.place.read("run.json") or b"")
    return content


def test_what_is_imported_beside_a_stage_is_not_looked_at_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_to_import() -> None:
        monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("half of it"))

    store = Store(place("directory", tmp_path / "out"))
    assert run(store, step(Corpus, Counter()), beside=begin_to_import)


def test_a_finished_stage_is_reused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    build = Counter()
    first = run(store, step(Corpus, build))
    assert report(store)["stages"]["example_gen"]["reused"] is False
    assert run(store, step(Corpus, build), "another") == first
    assert build.calls == [[]]
    assert report(store)["stages"]["example_gen"] == {
        "documents": 3,
        "words_per_second": 1234.5,
        "seconds": 0.0,
        "reused": True,
        "artifact": f"{store.address}/example_gen/{first.fingerprint}",
        "fingerprint": first.fingerprint,
    }
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.sub(r"\d\.\d s", "0.0 s", captured.err).splitlines() == [
        "example_gen      running",
        "example_gen        0.0 s  documents 3, words_per_second 1,234",
        "example_gen       reused  documents 3, words_per_second 1,234",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"settings": TransformSettings()},
        {"settings": TransformSettings(min_count=7)},
        {"content": {"files": 1}},
        {"inputs": {"corpus": Corpus(Path("/a"), "0123")}},
        {"inputs": {"corpus": Corpus(Path("/a"), "4567")}},
        {"inputs": {"other": Corpus(Path("/a"), "0123")}},
    ],
)
def test_the_fingerprint_follows_what_the_content_depends_on(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    store, build = Store.open(tmp_path), Counter()
    plain = run(store, step(Corpus, build))
    other = run(store, step(Corpus, build, **options))
    assert other.fingerprint != plain.fingerprint
    assert run(store, step(Corpus, build, **options)) == other
    assert len(build.calls) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": {"corpus": Corpus(Path("/b"), "0123")}},
        {"inputs": {"corpus": Corpus(Path("/a"), "0123"), "start": None}},
        {"given": {"listing": ["files"]}},
        {"settings": TransformSettings(work_directory="/elsewhere", cache=False)},
    ],
)
def test_the_fingerprint_does_not_depend_on_the_rest(options: dict[str, Any]) -> None:
    plain = {
        "inputs": {"corpus": Corpus(Path("/a"), "0123")},
        "settings": TransformSettings(),
    }
    one, other = step(Examples, Counter(), **plain), step(Examples, Counter(), **plain | options)
    assert one.fingerprint == other.fingerprint


def test_a_fingerprint_is_of_one_stage() -> None:
    assert step(Corpus, Counter()).fingerprint != step(Examples, Counter()).fingerprint


def test_another_version_of_a_library_is_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fingerprint(module: str) -> str:
        return Step(Examples, f"components.{module}").fingerprint

    trainer, corpus = fingerprint("trainer.trainer"), fingerprint("example_gen.build")
    version = identity.importlib.metadata.version
    changed = {"keras": "99.0"}
    monkeypatch.setattr(
        identity.importlib.metadata, "version", lambda name: changed.get(name) or version(name)
    )
    identity.code_identity.cache_clear()
    try:
        assert fingerprint("trainer.trainer") != trainer
        assert fingerprint("example_gen.build") == corpus  # It computes nothing with Keras.
    finally:
        identity.code_identity.cache_clear()


@pytest.mark.parametrize(("resumable", "found"), [(False, []), (True, ["half"])])
def test_an_interrupted_stage_starts_again_or_goes_on(
    store: Store, resumable: bool, found: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(store, step(Corpus, Counter(KeyboardInterrupt())), resumable=resumable)
    again = Counter()
    run(store, step(Corpus, again), resumable=resumable)
    assert again.calls == [found]


def test_a_finished_stage_can_be_run_again(store: Store) -> None:
    build = Counter()
    first = run(store, step(Corpus, build), "one")
    assert (first / "half").read_text() == "written 1"
    again = run(store, step(Corpus, build), "two", again=True, resumable=True)
    assert build.calls == [[], []]
    found = Store(store.place).find(Corpus, first.fingerprint)
    for artifact in (again, found):
        assert artifact
        assert (artifact / "half").read_text() == "written 2"
        assert artifact.manifest["run"] == "two"


def test_run_json_says_how_a_run_failed(store: Store) -> None:
    with pytest.raises(SkipstreamError):
        run(store, step(Corpus, Counter(SkipstreamError("no text in a.txt"))))
    content = report(store)
    assert "failed" in content
    assert "finished" not in content
    assert content["saved_model"] is None
    assert content["exit_code"] == 1
    assert content["settings"] == json.loads(Settings().model_dump_json())
    assert content["stages"]["example_gen"]["error"] == "no text in a.txt"


def test_run_json_shows_the_stage_under_way(store: Store) -> None:
    def build(out: Corpus) -> Corpus:
        assert list(report(store)["stages"]) == ["example_gen"]
        return out.finish()

    run(store, step(Corpus, build))
    assert "finished" in report(store)


def slow(out: Any) -> Any:
    time.sleep(0.01)
    return out.finish()


def test_commands_of_one_run_report_what_it_took(store: Store) -> None:
    def command(run_id: str, *kinds: type[Artifact]) -> list[tuple[str, bool, bool]]:
        with Runner(Store(store.place), Settings(), run_id=run_id) as runner:
            for kind in kinds:
                runner.do(step(kind, slow))
        stages = report(store)["stages"].items()
        return [(name, stage["reused"], stage["seconds"] > 0) for name, stage in stages]

    def built(*kinds: type[Artifact]) -> list[tuple[str, bool, bool]]:
        return [(kind.STAGE, False, True) for kind in kinds]

    assert command("night", Model, ExportedModel) == built(Model, ExportedModel)
    # A command passes over what it does not need.
    assert command("night", Model, Evaluation) == built(ExportedModel, Model, Evaluation)
    stages = Model, ExportedModel, Evaluation, PushedModel
    assert command("night", *stages) == built(*stages)
    assert command("next", Model) == [("trainer", True, False)]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"stages": {"trainer": 3}}'])
def test_run_json_is_never_read(store: Store, content: bytes | None) -> None:
    with Runner(Store(store.place), Settings(), run_id="night") as runner:
        first = runner.do(step(Corpus, Counter()))
    before = report(store)
    if content is None:
        store.place.remove("run.json")
    else:
        store.place.write("run.json", content)
    with Runner(Store(store.place), Settings(), run_id="night", command="transform") as runner:
        assert runner.do(step(Corpus, Counter())) == first
    after = report(store)
    assert after["stages"] == before["stages"]
    assert after["last_finished"] == before["last_finished"]


@pytest.mark.parametrize(
    ("command", "well"), [("transform", False), ("validate", False), ("push", True), (None, True)]
)
def test_only_what_pushes_is_a_run_that_ended_well(
    store: Store, command: str | None, well: bool
) -> None:
    with Runner(store, Settings(), command=command):
        pass
    content = report(store)
    assert content["last_finished"] == (content["finished"] if well else None)


def test_two_runs_in_one_directory_are_refused(tmp_path: Path) -> None:
    with (
        Runner(Store.open(tmp_path), Settings()),
        pytest.raises(SkipstreamError, match=f"is in use by process {os.getpid()}: wait for it"),
        Runner(Store.open(tmp_path), Settings()),
    ):
        pass
    run(Store.open(tmp_path), step(Corpus, Counter()))


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    program = """if True:
        import os, sys
        from pipeline.config import Settings
        from pipeline.runner import Runner
        from pipeline.store import Store
        with Runner(Store.open(sys.argv[1]), Settings()):
            os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    run(Store.open(tmp_path), step(Corpus, Counter()))


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for output in (file, file / "below"):
        with pytest.raises(SkipstreamError, match=r"cannot be written \(.*\): choose another"):
            run(Store.open(output), step(Corpus, Counter()))


def test_an_output_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Store.open(tmp_path / "caf\udce9")
    assert str(caught.value) == (
        rf"--output must have a name in UTF-8, got {tmp_path}/caf\xe9: name another directory"
    )
    assert not list(tmp_path.iterdir())


def test_reports_hold_any_name(store: Store) -> None:
    run(store, step(Corpus, lambda out: out.finish(name="caf\udce9")))
    assert rb'"name": "caf\udce9"' in (store.place.read("run.json") or b"")
    assert report(store)["stages"]["example_gen"]["name"] == "caf\udce9"


def chain(store: Store, min_count: int, command: str | None) -> Model:
    settings = Settings(transform=TransformSettings(min_count=min_count))
    with Runner(Store(store.place), settings, command=command) as runner:

        def whole(out: Any) -> Any:
            return out.finish(settings.transform)

        corpus = runner.do(step(Corpus, Counter()))
        inputs = {"corpus": corpus}
        examples = runner.do(step(Examples, whole, inputs=inputs, settings=settings.transform))
        model: Model = runner.do(step(Model, Counter(), inputs={"examples": examples}))
        return model


def test_a_single_stage_takes_those_before_it_from_the_store(store: Store) -> None:
    with pytest.raises(SkipstreamError) as caught:
        chain(store, 5, "train")
    assert str(caught.value) == (
        f"{store.address} has no finished transform for these settings: "
        "run 'skipstream transform' with the same settings first"
    )
    assert store.place.read("run.json") is None
    everything = chain(store, 5, None)
    assert chain(store, 5, "train") == everything
    chain(store, 4, None)
    assert chain(store, 4, "train") != everything


def test_a_missing_stage_names_the_settings_that_changed(store: Store) -> None:
    chain(store, 5, None)
    before = report(store)
    with pytest.raises(SkipstreamError) as caught:
        chain(store, 2, "evaluate")
    assert str(caught.value) == (
        f"{store.address} has no finished transform for these settings: "
        "run 'skipstream transform' with the same settings first "
        "(changed since the last run: transform.min_count (5, now 2))"
    )
    assert report(store) == before
