"""Artifacts in a bucket: published whole, fetched when they are read, refused when changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from stages import URL, fill, forbidden, run, step

from components.artifacts import CHECKPOINTS, STATE, Corpus, Model
from components.errors import SkipstreamError
from components.places.bucket import Bucket
from components.settings import TrainerSettings
from pipeline import cache
from pipeline.store import Store


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), URL)


def test_only_one_of_two_machines_finishes_an_artifact(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one takes what the faster one has published."""
    made = step(Corpus, fill)
    slow = Store(bucket)
    begun = slow.begin(made, "slow")
    with monkeypatch.context() as machine:
        machine.setenv(cache.DIRECTORY, str(tmp_path / "another machine"))
        run(Store(bucket), made, "fast")
    (begun.path / "text").write_text("the cat")
    taken = slow.publish(begun.finish())
    assert taken.manifest["run"] == "fast"
    assert taken.summary == {"documents": 3}
    assert (taken / "deep" / "data").read_text() == "123"
    assert not begun.path.exists()


def test_what_is_begun_anew_is_empty_here_and_stays_in_the_bucket(bucket: Bucket) -> None:
    made = step(Corpus, fill)
    finished = run(Store(bucket), made)
    for _ in range(2):
        begun = Store(bucket).begin(made, "next")
        assert list(begun.path.iterdir()) == []
        (begun.path / "half").touch()
    assert Store(bucket).find(Corpus, made.fingerprint) == finished


def test_what_was_made_here_is_not_fetched(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    monkeypatch.setattr(bucket, "download", forbidden)
    for artifact in (made, Store(bucket).find(Corpus, made.fingerprint)):
        assert artifact
        assert (artifact / "text").read_text() == "the cat"
        assert (artifact / "deep" / "data").read_text() == "123"


def test_nothing_is_found_while_it_is_uploaded(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = step(Corpus, fill)
    name = f"example_gen/{made.fingerprint}"
    seen: list[tuple[set[str], bool]] = []
    create = bucket.create

    def watched(file: str, content: bytes) -> bool:
        if file == f"{name}/manifest.json":
            found = Store(bucket).find(Corpus, made.fingerprint)
            seen.append((set(bucket.files(name)), found is not None))
        return create(file, content)

    monkeypatch.setattr(bucket, "create", watched)
    run(Store(bucket), made)
    assert seen == [({"text", "deep/data"}, False)]
    assert Store(bucket).find(Corpus, made.fingerprint)


def test_only_what_is_read_is_fetched(bucket: Bucket, cache_directory: Path) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    shutil.rmtree(cache_directory / made.path.parent.name)
    found = Store(bucket).find(Corpus, made.fingerprint)
    assert found
    assert [path.name for path in found.path.iterdir()] == ["manifest.json"]
    assert (found / "text").read_text() == "the cat"
    assert not (found.path / "deep").exists()
    assert (found / "deep" / "data").is_file()


@pytest.mark.parametrize("damaged", [b"the dog", b"the", b""])
def test_a_file_that_was_changed_in_the_bucket_is_refused(
    bucket: Bucket, cache_directory: Path, damaged: bytes
) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    shutil.rmtree(made.path)
    bucket.write(f"example_gen/{made.fingerprint}/text", damaged)
    found = Store(bucket).find(Corpus, made.fingerprint)
    assert found
    at = f"{URL}/example_gen/{made.fingerprint}"
    with pytest.raises(SkipstreamError, match=f"^{at}/text must have the digest .*: delete {at}"):
        found / "text"
    assert not (found.path / "text").exists()
    assert (found / "deep" / "data").is_file()


@pytest.mark.parametrize("damaged", [b"the dog", b"the", b""])
def test_a_damaged_copy_is_fetched_anew(bucket: Bucket, damaged: bytes) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    (made.path / "text").write_bytes(damaged)
    assert (made / "text").read_text() == "the cat"


def test_a_copy_of_an_artifact_that_was_made_anew_is_not_read(bucket: Bucket) -> None:
    made = step(Corpus, fill)
    first = run(Store(bucket), made)
    assert (first / "text").read_text() == "the cat"
    Store(bucket).remove(f"example_gen/{made.fingerprint}")

    def other(out: Any) -> Any:
        (out.path / "text").write_text("the dog")
        return out.finish()

    elsewhere = Store(Bucket(bucket._store, f"{URL}/"))
    run(elsewhere, step(Corpus, other))
    found = Store(bucket).find(Corpus, made.fingerprint)
    assert found and (found / "text").read_text() == "the dog"


def test_what_could_not_be_published_is_published_by_the_next_run(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = step(Corpus, fill)
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> Any:
            raise SkipstreamError("no network")

        patch.setattr(bucket, "upload", fail)
        with pytest.raises(SkipstreamError, match="no network"):
            run(Store(bucket), made)
    assert Store(bucket).find(Corpus, made.fingerprint) is None
    again = step(Corpus, forbidden)
    assert again.fingerprint == made.fingerprint
    published = run(Store(bucket), again, "day")
    assert published.manifest["run"] == "night"
    assert Store(bucket).find(Corpus, made.fingerprint) == published


def test_a_training_goes_on_from_a_checkpoint_in_the_bucket(
    bucket: Bucket, cache_directory: Path
) -> None:
    found: list[dict[str, str]] = []

    def train(out: Model, until: int) -> Model:
        there = sorted((out.path / CHECKPOINTS).glob("*/weights"))
        found.append({path.parent.name: path.read_text() for path in there})
        for number in range(len(there) and int(there[-1].parent.name), until):
            checkpoint = out.path / CHECKPOINTS / str(number + 1)
            checkpoint.mkdir(parents=True)
            (checkpoint / "weights").write_text(f"after {number + 1}")
            (checkpoint / STATE).write_text("{}")
            out.keep(f"{CHECKPOINTS}/{number + 1}")
            shutil.rmtree(checkpoint)  # The stage has a newer one, or is done.
        if until < 5:
            raise KeyboardInterrupt
        shutil.rmtree(out.path / CHECKPOINTS)
        return out.finish(TrainerSettings())

    with pytest.raises(KeyboardInterrupt):
        run(Store(bucket), step(Model, lambda out: train(out, 3)), resumable=True)
    name = f"trainer/{step(Model, fill).fingerprint}"
    kept = bucket.names(f"{name}/{CHECKPOINTS}")
    # The third was on its way when the stage was interrupted: it is there, or nothing of it counts.
    whole = [n for n in kept if bucket.has(f"{name}/{CHECKPOINTS}/{n}/manifest.json")]
    newest = max(int(n.partition("-")[0]) for n in whole)
    assert newest in (2, 3)
    shutil.rmtree(cache_directory)  # Another machine.
    # A checkpoint that is only half there is none.
    bucket.write(f"{name}/{CHECKPOINTS}/4-0123/weights", b"half")
    model = run(Store(bucket), step(Model, lambda out: train(out, 5)), resumable=True)
    assert found == [{}, {str(newest): f"after {newest}"}]
    assert [file for file in bucket.files(name) if file.startswith(CHECKPOINTS)] == []
    assert Store(bucket).find(Model, model.fingerprint)


def test_what_a_run_has_given_up_is_not_written_any_more(bucket: Bucket) -> None:
    begun: list[Any] = []

    def fail(out: Any) -> Any:
        begun.append(out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Store(bucket), step(Model, fail), resumable=True)
    with pytest.raises(SkipstreamError, match="is no longer written: run again"):
        begun[0].keep(f"{CHECKPOINTS}/1")


def test_a_copy_of_an_earlier_release_s_artifact_is_refused(bucket: Bucket) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    name = f"example_gen/{made.fingerprint}"
    manifest = json.loads(bucket.read(f"{name}/manifest.json") or b"")
    del manifest["files"], manifest["digest"]  # An earlier release wrote none on a disk.
    bucket.write(f"{name}/manifest.json", json.dumps(manifest).encode())
    said = f"must list its files, and that of {URL}/{name}, which an earlier"
    with pytest.raises(SkipstreamError, match=said):
        Store(bucket).find(Corpus, made.fingerprint)


def test_an_artifact_that_goes_is_never_taken_for_whole(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(Store(bucket), step(Corpus, fill))
    delete, left = bucket._delete, []

    def watched(paths: list[str]) -> None:
        delete(paths)
        left.append(Store(bucket).find(Corpus, made.fingerprint))

    monkeypatch.setattr(bucket, "_delete", watched)
    Store(bucket).remove(f"example_gen/{made.fingerprint}")
    assert left == [None, None]
