"""Of what a run writes to a bucket on its way, nothing is mixed, late, or left in an artifact."""

import itertools
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from obstore.store import MemoryStore
from stages import URL, fill, run, step

from components.artifacts import CHECKPOINTS, STATE, Corpus, Model
from components.errors import SkipstreamError
from components.places.bucket import Bucket
from components.places.lease import NAME as LEASE
from components.places.lease import Lease
from components.settings import TrainerSettings
from pipeline import cache
from pipeline.store import Store

SECONDS = 0.4  # Of the lease.
FIRST = f"{CHECKPOINTS}/1"


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), URL)


def checkpoint(out: Model, text: str) -> None:
    """Write the first one, whose files all hold a text."""
    (out.path / FIRST).mkdir(parents=True)
    for name in ("contexts", STATE, "vectors"):
        (out.path / FIRST / name).write_text(text)


def content(bucket: Bucket, name: str = "") -> dict[str, bytes | None]:
    """All files below a name but the lease, which is renewed."""
    found = (f"{name}/{file}".lstrip("/") for file in bucket.files(name))
    return {file: bucket.read(file) for file in found if file != LEASE}


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_checkpoints_of_two_runs_are_never_mixed(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one was taken for dead: the fast one keeps its own meanwhile, and removes others."""
    made, upload, tokens = step(Model, fill), bucket.upload, itertools.count()
    # The slow one's comes first.
    monkeypatch.setattr("secrets.token_hex", lambda _: f"{next(tokens):08}")
    runs = {}
    for name in ("slow", "fast", "third"):
        monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / name))  # A machine of its own.
        runs[name] = Store(bucket).begin(made, name, resumable=True)
    name = f"trainer/{made.fingerprint}/{CHECKPOINTS}"

    def written() -> list[str]:
        return [file for file in bucket.files(name) if file.endswith("/manifest.json")]

    def interleaved(source: Path, to: str, files: list[str], hold: Any) -> Any:
        sent = upload(source, to, files[:1], hold)
        if source.is_relative_to(tmp_path / "slow"):
            (there,) = bucket.names(name)
            runs["fast"].keep(FIRST)
            wait_until(lambda: written() and there not in bucket.names(name))
        return sent | upload(source, to, files[1:], hold)

    for run_name in ("slow", "fast"):
        checkpoint(runs[run_name], run_name)
    monkeypatch.setattr(bucket, "upload", interleaved)
    runs["slow"].keep(FIRST)
    wait_until(lambda: len(written()) == 2)
    third = Store(bucket).begin(made, "third", resumable=True).path / FIRST
    found = {path.name: path.read_text() for path in third.iterdir()}
    assert found == dict.fromkeys(("contexts", STATE, "vectors"), "fast")


@pytest.mark.parametrize("last", ["checkpoint", "artifact"])
def test_a_run_that_lost_its_lease_writes_nothing_more(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    before: dict[str, bytes | None] = {}
    replace, lost = bucket.replace, []

    def fail(name: str, *arguments: Any) -> Any:
        if name == LEASE and lost:
            raise SkipstreamError("no network")
        return replace(name, *arguments)

    def train(out: Model) -> Any:
        checkpoint(out, "one")
        lost.append(True)
        time.sleep(SECONDS)  # Another run may take the lease now.
        before.update(content(bucket))
        if last == "checkpoint":
            with pytest.raises(SkipstreamError, match="lease of .* could not be renewed"):
                out.keep(FIRST)  # In the stage, so that it trains no longer.
        return out.finish(TrainerSettings())

    monkeypatch.setattr(bucket, "replace", fail)
    monkeypatch.setattr(bucket, "hold", lambda run: Lease(bucket, run, SECONDS))
    with pytest.raises(SkipstreamError, match="lease of .* could not be renewed for 0.3 seconds"):
        run(Store(bucket), step(Model, train))
    assert before
    assert content(bucket) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_has_ended_writes_nothing_more(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A stage fails while its checkpoint is on its way."""
    upload, ended = bucket.upload, []

    def slow(source: Path, name: str, files: Any, hold: Any) -> Any:
        sent = upload(source, name, ["contexts"], hold)
        deadline = time.monotonic() + 2
        while not ended and time.monotonic() < deadline:
            try:
                hold.check()
            except SkipstreamError:
                ended.append(True)
            time.sleep(0.01)
        return sent | upload(source, name, [STATE, "vectors"], hold)

    def train(out: Model) -> Any:
        checkpoint(out, "one")
        out.keep(FIRST)
        wait_until(lambda: bucket.files(f"trainer/{out.fingerprint}"))
        raise error

    monkeypatch.setattr(bucket, "upload", slow)
    with pytest.raises(error):
        run(Store(bucket), step(Model, train), resumable=True)
    after = content(bucket)
    assert ended
    assert [name.rpartition("/")[2] for name in after if CHECKPOINTS in name] == ["contexts"]
    time.sleep(0.1)
    assert content(bucket) == after


@pytest.mark.parametrize("fails_first", [False, True])
def test_what_was_made_here_is_not_fetched_back(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, fails_first: bool
) -> None:
    """Nor is a checkpoint, which the run left, part of the artifact."""

    def train(out: Model) -> Any:
        checkpoint(out, "one")
        out.keep(FIRST)
        (out.path / ".hidden").touch()
        return fill(out)

    def fail(*_: Any, **__: Any) -> Any:
        raise SkipstreamError("no network")

    made = step(Corpus, train)
    if fails_first:
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "create", fail)
            with pytest.raises(SkipstreamError, match="no network"):
                run(Store(bucket), made)
        assert CHECKPOINTS in {name.split("/")[2] for name in bucket.files("") if "/" in name[12:]}
    monkeypatch.setattr(bucket, "download", fail)
    published = run(Store(bucket), made)
    assert (published / "text").read_text() == "the cat"
    assert (published / "deep" / "data").read_text() == "123"
    assert published.manifest["files"].keys() == {"text", "deep/data"}
    assert not published.has(f"{FIRST}/{STATE}")
    name = f"example_gen/{made.fingerprint}"
    assert content(bucket, name).keys() == {
        f"{name}/{file}" for file in ("text", "deep/data", "manifest.json")
    }
    again = Store(bucket).find(Corpus, made.fingerprint)
    assert again and (again / "text").read_text() == "the cat"
    shutil.rmtree(published.path)
    with pytest.raises(SkipstreamError, match="no network"):
        again / "text"


@pytest.mark.parametrize("name", [STATE, "vectors.npy", "best-vectors.npy"])
def test_a_training_begins_anew_where_its_checkpoint_is_damaged(tmp_path: Path, name: str) -> None:
    """As one that never began: nothing of the checkpoint is left."""
    from components.trainer.callbacks import Progress

    class Table:
        def save(self, path: Path) -> None:
            path.write_bytes(b"123")

        def load(self, path: Path) -> None:
            assert path.read_bytes() == b"123"

    training = SimpleNamespace(fixed=None, restored=lambda: None)
    loss = SimpleNamespace(variables=[], result=lambda: 0.0)
    model: Any = SimpleNamespace(
        tables={"vectors": Table()}, training=training, pair_loss=loss, steps=7
    )
    progress = Progress(Model(tmp_path, "1"), model, minutes=1)
    progress.keep_best()
    progress.finish_epoch([{"epoch": 1}])
    (checkpoint,) = (tmp_path / CHECKPOINTS).iterdir()
    assert Progress(Model(tmp_path, "1"), model, minutes=1).restore() == [{"epoch": 1}]
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).unlink()  # Of a link, the other name stays as it is.
    (checkpoint / name).write_bytes(content.replace(b"1", b"2"))
    assert Progress(Model(tmp_path, "1"), model, minutes=1).restore() == []
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
