import logging
import time
from pathlib import Path

import pytest

from components.transform import progress

# Of the corpus, tokens, work.
Places = tuple[int, str, str]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A corpus of three units, of which an earlier run has tokenised one."""
    for name in ("tokens", "work/train", "work/eval"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tokens" / "a.arrow").touch()
    return 3, str(tmp_path / "tokens"), str(tmp_path / "work")


def finish(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / name).touch()


def test_units_are_counted_while_the_job_runs(
    places: Places,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "components.transform.progress")
    with progress.shown(*places):
        finish(tmp_path, "tokens/b.arrow", "tokens/c.arrow", "tokens/d.arrow.0123456789abcdef")
        names = ("train/000000-0000", "train/000000-0001", "eval/000000-0000")
        finish(tmp_path / "work", *(f"{name}.tfrecord.gz" for name in names))
        text = "2 of 3 units newly tokenised, 1 written"
        deadline = time.monotonic() + 20
        while text not in caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert f"{text} [00:00]" in capsys.readouterr().err
    record = next(record for record in caplog.records if record.message == text)
    counts = {name: record.__dict__[name] for name in ("event", "units", "tokenised", "written")}
    assert counts == {"event": "transform_progress", "units": 3, "tokenised": 2, "written": 1}
    said = len(caplog.messages)
    time.sleep(0.2)
    assert len(caplog.messages) == said


def test_a_short_job_says_nothing(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with progress.shown(*places):
        pass
    assert time.monotonic() - start < 5
    assert capsys.readouterr().err == ""


def test_a_failure_of_the_job_is_passed_on(places: Places) -> None:
    with pytest.raises(ValueError, match="x"), progress.shown(*places):
        raise ValueError("x")


def test_places_that_are_not_local_are_left_alone() -> None:
    with progress.shown(3, "gs://bucket/tokens", "gs://bucket/work"):
        pass
