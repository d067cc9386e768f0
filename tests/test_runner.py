import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import Corpus, Examples
from components.errors import SettingsError, SkipstreamError
from components.settings import TransformSettings
from pipeline import runner as runner_module
from pipeline.config import Settings
from pipeline.runner import Runner, Stage


class Counter:
    """A build function that says how often it ran, and on what."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[list[str]] = []
        self.error = error

    def __call__(self, out: Any) -> Any:
        self.calls.append(sorted(path.name for path in out.path.iterdir()))
        (out.path / "half").write_text("written")
        if self.error:
            raise self.error
        return out.finish(documents=3, words_per_second=1234.5, seconds=9.0)


def run(output: Path, build: Callable[[Any], Any], **options: Any) -> Corpus:
    with Runner(output, Settings()) as runner:
        return runner.stage("example_gen", Corpus, build, command="transform", **options)


def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return content


def test_a_finished_stage_is_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    build = Counter()
    first = run(tmp_path, build)
    assert report(tmp_path)["stages"]["example_gen"]["reused"] is False
    assert run(tmp_path, build) == first
    assert build.calls == [[]]
    assert first.path == tmp_path / "example_gen" / first.fingerprint
    stage = report(tmp_path)["stages"]["example_gen"]
    assert stage == {
        "documents": 3,
        "words_per_second": 1234.5,
        "seconds": 0.0,
        "reused": True,
        "artifact": str(first.path),
        "fingerprint": first.fingerprint,
    }
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "example_gen      running",
        "example_gen        0.0 s  documents 3, words_per_second 1,234",
        "example_gen       reused  documents 3, words_per_second 1,234",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"settings": TransformSettings()},
        {"settings": TransformSettings(min_count=7)},
        {"identity": {"files": 1}},
        {"inputs": [Corpus(Path("/a"), "0123")]},
        {"inputs": [Corpus(Path("/a"), "4567")]},
    ],
)
def test_the_fingerprint_follows_what_the_content_depends_on(
    tmp_path: Path, options: dict[str, Any]
):
    build = Counter()
    plain = run(tmp_path, build)
    other = run(tmp_path, build, **options)
    assert other.fingerprint != plain.fingerprint
    assert run(tmp_path, build, **options) == other
    assert len(build.calls) == 2


def test_the_fingerprint_does_not_depend_on_where_inputs_lie(tmp_path: Path):
    here = run(tmp_path, Counter(), inputs=[Corpus(Path("/a"), "0123")])
    there = run(tmp_path, Counter(), inputs=[Corpus(Path("/b"), "0123")])
    assert here == there


def test_changed_code_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = run(tmp_path, Counter())
    monkeypatch.setattr(runner_module, "code_identity", lambda: {"components": "changed"})
    assert run(tmp_path, Counter()).fingerprint != before.fingerprint


@pytest.mark.parametrize(("resumable", "found"), [(False, []), (True, ["half"])])
def test_an_interrupted_stage_starts_again_or_resumes(
    tmp_path: Path, resumable: bool, found: list[str]
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Counter(KeyboardInterrupt()), resumable=resumable)
    again = Counter()
    run(tmp_path, again, resumable=resumable)
    assert again.calls == [found]


def test_a_finished_artifact_that_is_not_intact_is_built_anew(tmp_path: Path):
    build = Counter()
    run(tmp_path, build)
    run(tmp_path, build, resumable=True, intact=lambda artifact: False)
    assert build.calls == [[], []]


def test_run_json_says_how_a_run_failed(tmp_path: Path):
    with pytest.raises(SkipstreamError):
        run(tmp_path, Counter(SkipstreamError("no text in a.txt")))
    content = report(tmp_path)
    assert "failed" in content
    assert "finished" not in content
    assert content["saved_model"] is None
    assert content["settings"] == json.loads(Settings().model_dump_json())
    assert content["stages"]["example_gen"]["error"] == "no text in a.txt"


def test_run_json_shows_the_stage_under_way(tmp_path: Path):
    def build(out: Corpus) -> Corpus:
        assert list(report(tmp_path)["stages"]) == ["example_gen"]
        return out.finish()

    run(tmp_path, build)
    assert "finished" in report(tmp_path)


def slow(out: Corpus) -> Corpus:
    time.sleep(0.01)
    return out.finish()


def test_commands_of_one_run_report_what_it_took(tmp_path: Path):
    def command(run_id: str, *names: Stage) -> list[tuple[str, bool, bool]]:
        with Runner(tmp_path, Settings(), run_id=run_id) as runner:
            for name in names:
                runner.stage(name, Corpus, slow, command=None)
        stages = report(tmp_path)["stages"].items()
        return [(name, stage["reused"], stage["seconds"] > 0) for name, stage in stages]

    def built(*names: str) -> list[tuple[str, bool, bool]]:
        return [(name, False, True) for name in names]

    assert command("night", "trainer", "exporter") == built("trainer", "exporter")
    # A command passes over what it does not need.
    assert command("night", "trainer", "evaluator") == built("exporter", "trainer", "evaluator")
    stages: list[Stage] = ["trainer", "exporter", "evaluator", "pusher"]
    assert command("night", *stages) == built(*stages)
    assert command("next", "trainer") == [("trainer", True, False)]


@pytest.mark.parametrize(
    ("command", "well"), [("transform", False), ("validate", False), ("push", True), (None, True)]
)
def test_only_what_pushes_is_a_run_that_ended_well(tmp_path: Path, command: str | None, well: bool):
    with Runner(tmp_path, Settings(), command=command):
        pass
    content = report(tmp_path)
    assert content["last_finished"] == (content["finished"] if well else None)


def test_two_runs_in_one_directory_are_refused(tmp_path: Path):
    with (
        Runner(tmp_path, Settings()),
        pytest.raises(SkipstreamError, match=f"is in use by process {os.getpid()}: wait for it"),
        Runner(tmp_path, Settings()),
    ):
        pass
    run(tmp_path, Counter())


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path):
    program = """if True:
        import os, sys
        from pathlib import Path
        from pipeline.config import Settings
        from pipeline.runner import Runner
        with Runner(Path(sys.argv[1]), Settings()):
            os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    run(tmp_path, Counter())


def test_an_output_that_is_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for output in (file, file / "below"):
        with pytest.raises(SkipstreamError, match=r"cannot be written \(.*\): choose another"):
            run(output, Counter())


def test_an_output_that_is_not_utf8_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        run(tmp_path / "caf\udce9", Counter())
    assert str(caught.value) == (
        rf"--output must have a name in UTF-8, got {tmp_path}/caf\xe9: name another directory"
    )
    assert not list(tmp_path.iterdir())


def test_reports_hold_any_name(tmp_path: Path):
    def build(out: Corpus) -> Corpus:
        return out.finish(name="caf\udce9")

    run(tmp_path, build)
    assert r'"name": "caf\udce9"' in (tmp_path / "run.json").read_text(encoding="utf-8")
    assert report(tmp_path)["stages"]["example_gen"]["name"] == "caf\udce9"


def chain(output: Path, min_count: int, command: str | None) -> Examples:
    settings = Settings(transform=TransformSettings(min_count=min_count))
    with Runner(output, settings, command=command) as runner:
        corpus = runner.stage("example_gen", Corpus, Counter(), command="transform")
        return runner.stage(
            "transform",
            Examples,
            Counter(),
            command="train",
            inputs=[corpus],
            settings=settings.transform,
        )


def test_a_single_stage_takes_those_before_it_from_the_store(tmp_path: Path):
    with pytest.raises(SkipstreamError) as caught:
        chain(tmp_path, 5, "train")
    assert str(caught.value) == (
        f"{tmp_path} has no finished transform for these settings: "
        "run 'skipstream transform' with the same settings first"
    )
    assert not (tmp_path / "run.json").exists()
    everything = chain(tmp_path, 5, None)
    assert chain(tmp_path, 5, "train") == everything
    assert chain(tmp_path, 4, "train") != everything


def test_a_missing_stage_names_the_settings_that_changed(tmp_path: Path):
    chain(tmp_path, 5, None)
    before = report(tmp_path)
    with pytest.raises(SkipstreamError) as caught:
        chain(tmp_path, 2, "evaluate")
    assert str(caught.value) == (
        f"{tmp_path} has no finished train for these settings: "
        "run 'skipstream train' with the same settings first "
        "(changed since the last run: transform.min_count (5, now 2))"
    )
    assert report(tmp_path) == before
