"""Versions in the serving directory: only blessed ones, only whole ones, only the newest."""

import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import (
    Evaluation,
    ExportedModel,
    InfraBlessing,
    PushedModel,
    write_json,
)
from components.errors import NotBlessedError, SkipstreamError
from components.pusher import pusher
from components.settings import PusherSettings

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.data-00000-of-00001": b"\x00" * 300_000,
    "assets/vocabulary.txt": b"the\n",
    "assets.extra/tf_serving_warmup_requests": b"warm",
}
BLESSED = {"blessed": True, "reasons": []}


def push(root: Path, serving: Path, *, keep: int = 5, report: Any = BLESSED) -> PushedModel:
    """Push a small candidate, with the artifacts of its run under `root`."""
    for name in ("exported", "evaluation", "validation", "pushed"):
        (root / name).mkdir(parents=True, exist_ok=True)
    exported = ExportedModel(root / "exported", "1")
    for name, content in FILES.items():
        file = exported.saved_model / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    write_json(root / "evaluation" / "evaluation.json", report)
    return pusher.build(
        exported,
        Evaluation(root / "evaluation", "2"),
        InfraBlessing(root / "validation", "3"),
        settings=PusherSettings(keep=keep),
        serving=serving,
        out=PushedModel(root / "pushed", "4"),
    )


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def names(serving: Path) -> list[str]:
    return sorted(path.name for path in serving.iterdir())


def test_the_first_push_is_version_1_and_whole(tmp_path: Path) -> None:
    serving = tmp_path / "deep" / "serving"
    pushed = push(tmp_path / "run", serving)
    assert content(serving / "1") == FILES
    assert pushed.version == 1
    assert pushed.summary == {
        "version": 1,
        "versions_removed": [],
    }
    assert names(serving) == [".lock", "1"]


def test_the_next_version_is_one_above_the_highest_number_there(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    for name in ("2", "10", "note", "²", "11.old"):
        (serving / name).mkdir(parents=True)
    (serving / "12").touch()
    assert push(tmp_path / "run", serving).summary["version"] == 13


def test_only_the_newest_versions_stay_and_nothing_but_versions_goes(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    for name in ("7", "009", "notes", "1²"):
        (serving / name).mkdir(parents=True)
    removed = [
        push(tmp_path / "run", serving, keep=2).summary["versions_removed"] for _ in range(3)
    ]
    assert removed == [[7], [9], [10]]
    assert names(serving) == [".lock", "11", "12", "1²", "notes"]


def test_the_version_just_pushed_stays(tmp_path: Path) -> None:
    for version in (1, 2):
        assert push(tmp_path / "run", tmp_path / "serving", keep=1).summary["version"] == version
    assert names(tmp_path / "serving") == [".lock", "2"]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"blessed": False, "reasons": ["loss 9.1 > 4.2", "no words"]}, "loss 9.1 > 4.2; no words"),
        ({"blessed": "yes"}, "its report gives no reason"),
        ({}, "its report gives no reason"),
    ],
)
def test_what_is_not_blessed_is_not_pushed(tmp_path: Path, report: Any, said: str) -> None:
    with pytest.raises(NotBlessedError) as caught:
        push(tmp_path / "run", tmp_path / "serving", report=report)
    assert said in str(caught.value)
    assert not (tmp_path / "serving").exists()
    assert PushedModel.load(tmp_path / "run" / "pushed") is None


def test_leftovers_of_a_push_that_died_are_removed(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    (serving / ".push-dead" / "model" / "variables").mkdir(parents=True)
    (serving / ".other").mkdir()
    push(tmp_path / "run", serving)
    assert names(serving) == [".lock", ".other", "1"]


def test_a_copy_that_fails_leaves_the_serving_directory_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = tmp_path / "serving"
    push(tmp_path / "run", serving)
    real = shutil.copyfile

    def full(source: Path, *rest: Any, **options: Any) -> Any:
        if "variables" in str(source):
            raise OSError(28, "No space left on device")
        return real(source, *rest, **options)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SkipstreamError, match="with room for the model, got .*No space left"):
        push(tmp_path / "run", serving)
    assert names(serving) == [".lock", "1"]


def test_a_serving_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    with pytest.raises(SkipstreamError, match="must be writable.*File exists"):
        push(tmp_path / "run", tmp_path / "serving")


def test_a_version_that_appears_during_the_push_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = tmp_path / "serving"
    real = Path.rename

    def late(source: Path, target: Path) -> Path:
        if target.name == "1":
            target.mkdir()
            (target / "by hand").touch()
        return real(source, target)

    monkeypatch.setattr(Path, "rename", late)
    assert push(tmp_path / "run", serving).summary["version"] == 2
    assert names(serving / "1") == ["by hand"]
    assert content(serving / "2") == FILES


def _push_in_process(arguments: tuple[Path, Path]) -> int:
    version: int = push(*arguments, keep=100).summary["version"]
    return version


def test_pushes_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    arguments = [(tmp_path / f"run{i}", serving) for i in range(16)]
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(_push_in_process, arguments[:8]))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions += processes.map(_push_in_process, arguments[8:], chunksize=4)
    assert sorted(versions) == list(range(1, 17))
    assert all(content(serving / str(version)) == FILES for version in versions)
    assert len(names(serving)) == 17


def test_a_reader_sees_only_whole_versions(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(push, tmp_path / f"run{i}", serving, keep=100) for i in range(10)]
        while not all(push_.done() for push_ in done):
            for version in serving.glob("[0-9]*"):
                assert content(version) == FILES
    assert [push_.exception() for push_ in done] == [None] * 10
