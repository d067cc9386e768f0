"""Artifacts of a directory and of a bucket: what they were made of, found, published, tidied up."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from stages import place, step

from components.artifacts import (
    CHECKPOINTS,
    STATE,
    Corpus,
    Examples,
    Model,
    Statistics,
)
from components.errors import SettingsError, SkipstreamError
from components.identity import code_identity
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.lease import Lease
from components.settings import TrainerSettings, TransformSettings
from pipeline import cache
from pipeline.config import Settings
from pipeline.runner import Runner
from pipeline.store import Step, Store, Use

URL = "s3://bucket/output"


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(place(request.param, tmp_path / "out"))


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), URL)


def fill(out: Any) -> Any:
    """What a stage does that writes two files, one in a directory."""
    (out.path / "deep").mkdir()
    (out.path / "deep" / "data").write_text("123")
    (out.path / "text").write_text("the cat")
    return out.finish(documents=3)


def forbidden(out: Any) -> Any:
    raise AssertionError("the stage runs again")


def run(store: Store, made: Step[Any], run_id: str = "night", **options: Any) -> Any:
    with Runner(store, Settings(), run_id=run_id) as runner:
        return runner.do(made, **options)


def test_a_manifest_says_what_the_artifact_was_made_of(store: Store) -> None:
    settings = TransformSettings(min_count=7)
    corpus = run(store, step(Corpus, fill, content={"digest": "d"}))
    made = Step(
        Examples,
        "components.transform.transform",
        inputs={"corpus": corpus, "other": None},
        settings=settings,
    )
    store.begin(made, "night-7").finish(settings, documents=3)
    publishable = store.unpublished(made) or store.find(Examples, made.fingerprint)
    assert publishable
    examples = store.publish(publishable)
    manifest = json.loads(store.place.read(f"transform/{made.fingerprint}/manifest.json") or b"")
    assert manifest == examples.manifest
    finished, files = manifest.pop("finished"), manifest.pop("files", None)
    identity = code_identity("components.transform.transform")
    assert manifest == {
        "kind": "Examples",
        "fingerprint": made.fingerprint,
        "made_of": {
            "inputs": {"corpus": {"stage": "example_gen", "fingerprint": corpus.fingerprint}},
            "settings": settings.counting(),
            "content": None,
            "code": identity["code"],
            "libraries": identity["libraries"],
        },
        "run": "night-7",
        "summary": {"documents": 3},
    }
    assert finished.endswith("+00:00")
    assert {"apache-beam", "tensorflow", "python"} <= identity["libraries"].keys()
    assert (files is not None) == store.is_remote
    # The fingerprint is the digest of what the manifest says.
    key = json.dumps(["transform", manifest["made_of"]], sort_keys=True)
    assert made.fingerprint == hashlib.sha256(key.encode()).hexdigest()[:16]
    assert examples.settings.counting() == settings.counting()


def test_what_was_made_is_found_and_read(store: Store) -> None:
    made = step(Corpus, fill)
    assert store.find(Corpus, made.fingerprint) is None
    assert store.last(Corpus) is None
    run(store, made)
    found = Store(store.place).find(Corpus, made.fingerprint)
    assert found and found == store.last(Corpus)
    assert found.address == store.place.at(f"example_gen/{made.fingerprint}")
    assert (found / "text").read_text() == "the cat"
    assert (found / "deep" / "data").read_text() == "123"
    assert found.summary == {"documents": 3}
    assert (found.has("deep/data"), found.has("deep/none")) == (True, False)
    assert store.find(Statistics, made.fingerprint) is None


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


def test_nothing_half_made_is_found(store: Store) -> None:
    def fail(out: Any) -> Any:
        (out.path / "text").write_text("the")
        raise SkipstreamError("the disk is gone")

    made = step(Corpus, fail)
    with pytest.raises(SkipstreamError):
        run(store, made)
    assert store.find(Corpus, made.fingerprint) is None
    assert store.last(Corpus) is None


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
    deadline = time.monotonic() + 20
    while not bucket.has(f"{name}/{CHECKPOINTS}/3/{STATE}"):  # It is uploaded in a thread.
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shutil.rmtree(cache_directory)  # Another machine.
    # A checkpoint that is only half there is none.
    bucket.write(f"{name}/{CHECKPOINTS}/4/weights", b"half")
    model = run(Store(bucket), step(Model, lambda out: train(out, 5)), resumable=True)
    assert found == [{}, {"3": "after 3"}]
    assert [file for file in bucket.files(name) if file.startswith(CHECKPOINTS)] == []
    assert Store(bucket).find(Model, model.fingerprint)


def test_ancestors_are_the_nearest_of_each_stage(store: Store) -> None:
    corpus = run(store, step(Corpus, fill, content="new"))
    before = run(store, step(Corpus, fill, content="old"))
    old = run(store, step(Examples, fill, inputs={"corpus": before}))
    start = run(store, step(Model, fill, inputs={"examples": old}))
    examples = run(store, step(Examples, fill, inputs={"corpus": corpus}))
    model = run(store, step(Model, fill, inputs={"examples": examples, "start": start}))
    assert Store(store.place).ancestors([model]) == {
        "trainer": model.fingerprint,
        "transform": examples.fingerprint,
        "example_gen": corpus.fingerprint,
    }
    # What is gone is named, and what it was made of is unknown.
    store.remove(f"transform/{examples.fingerprint}")
    assert Store(store.place).ancestors([model]) == {
        "trainer": model.fingerprint,
        "transform": examples.fingerprint,
    }


def test_what_nothing_needs_is_named_with_its_bytes(store: Store) -> None:
    kept = run(store, step(Corpus, fill, content="kept"))
    dropped = run(store, step(Corpus, fill, content="dropped"))
    last = run(store, step(Corpus, fill, content="last"))
    store.place.write("trainer/half/checkpoints/1/weights", b"x" * 500)
    store.place.write("notes/by-hand", b"x")
    fresh = Store(store.place)
    found = dict(fresh.unneeded([("example_gen", kept.fingerprint)]))
    manifest = len(store.place.read(f"example_gen/{dropped.fingerprint}/manifest.json") or b"")
    assert found == {
        f"example_gen/{dropped.fingerprint}": manifest + len("123the cat"),
        "trainer/half": 500,
    }
    for name in found:
        fresh.remove(name)
    assert dict(fresh.unneeded([("example_gen", kept.fingerprint)])) == {}
    assert fresh.find(Corpus, kept.fingerprint) == kept
    assert fresh.last(Corpus) == last


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


def test_the_ledger_says_what_the_last_run_used(store: Store) -> None:
    assert not store.exists
    made = run(store, step(Corpus, fill), "one")
    run(store, step(Corpus, forbidden), "two")
    ledger = Store(store.place).ledger
    seconds = ledger.uses["example_gen"].seconds
    use = Use(fingerprint=made.fingerprint, run="two", seconds=seconds, reused=True)
    assert ledger.uses == {"example_gen": use}
    assert seconds == 0
    assert (ledger.destinations, bool(ledger.last_finished)) == ([], True)
    assert Store(store.place).exists


def test_destinations_lie_below_the_output_wherever_that_is(store: Store) -> None:
    assert store.at("serving") == f"{store.address}/serving"
    assert store.at("/models") == "/models" or store.is_remote
    assert store.at("gs://bucket/models") == "gs://bucket/models"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"uses": []}', '{"uses": {"trainer": {"seconds": 1}}}', '{"format": 2}']
)
def test_a_damaged_ledger_is_one_line(store: Store, content: str) -> None:
    store.place.write("store.json", content.encode())
    for ask in (lambda: store.ledger, lambda: store.exists, lambda: run(store, step(Corpus, fill))):
        with pytest.raises(SkipstreamError) as caught:
            ask()
        assert str(caught.value).startswith(
            f"{store.address}/store.json must be what this release writes, and is damaged"
        )
        assert "\n" not in str(caught.value)
    assert (store.place.read("store.json") or b"").decode() == content


def test_the_output_of_an_earlier_release_is_refused(store: Store) -> None:
    store.place.write("run.json", b'{"stages": {}, "destinations": ["serving"]}')
    before = store.place.files("")
    with pytest.raises(SkipstreamError) as caught:
        run(store, step(Corpus, fill))
    assert str(caught.value) == (
        f"{store.address} is the output of an earlier release, whose artifacts do not say what "
        "they were made of: give another --output; its versions can be read at "
        f"{store.address}/serving, and go on there as pusher.destination"
    )
    after = {name for name in store.place.files("") if not name.startswith(".lock")}
    assert after == set(before)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"kind": 1}'])
def test_a_damaged_manifest_is_one_line(store: Store, content: bytes) -> None:
    made = step(Corpus, fill)
    run(store, made)
    name = f"example_gen/{made.fingerprint}"
    store.place.write(f"{name}/manifest.json", content)
    with pytest.raises(SkipstreamError) as caught:
        store.find(Corpus, made.fingerprint)
    assert str(caught.value).startswith(f"{store.place.at(name)}")
    assert "run again" in str(caught.value)


def test_an_output_is_a_directory_or_a_bucket() -> None:
    with pytest.raises(SettingsError, match="--output must be a directory, gs://bucket/path or"):
        Store.open("ftp://a/b")
    assert Store.open("gs://bucket/path").is_remote
    assert Store.open("gs://bucket/path/").address == "gs://bucket/path"


def test_a_run_holds_the_output(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(store.place, Bucket):
        bucket = store.place  # Half a minute would pass until a holder that lives has shown it.
        monkeypatch.setattr(bucket, "hold", lambda run: Lease(bucket, run, seconds=0.8))
    with (
        store.hold("one"),
        pytest.raises(SkipstreamError, match="is in use by"),
        Runner(Store(store.place), Settings()),
    ):
        pass
    run(store, step(Corpus, fill))


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        copy = tmp_path / "place" / name
        (copy / "deep").mkdir(parents=True)
        (copy / "deep" / "file").write_bytes(b"x" * 100)
        os.utime(copy, (1e9 - age, 1e9 - age))
    cache.shrink(tmp_path, 300)
    assert len(list((tmp_path / "place").iterdir())) == 3
    cache.shrink(tmp_path, 250)
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["middle", "newest"]
    cache.shrink(tmp_path, 0)
    assert list((tmp_path / "place").iterdir()) == []


def test_a_copy_counts_as_used_when_it_is_looked_for(cache_directory: Path) -> None:
    path = cache.directory_for(URL, "trainer-0123")
    assert path.parent.parent == cache_directory
    path.mkdir()
    os.utime(path, (1, 1))
    assert cache.directory_for(URL, "trainer-0123") == path
    assert path.stat().st_mtime > 1e9
    assert cache.directory_for(f"{URL}/other", "trainer-0123").parent != path.parent


def test_a_cache_that_is_too_large_shrinks_when_it_is_opened(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = cache_directory / "place" / "trainer-0123"
    copy.mkdir(parents=True)
    (copy / "file").write_bytes(b"x" * 2000)
    monkeypatch.setenv(cache.GIGABYTES, "1e-6")
    cache.directory_for(URL, "x")
    assert not copy.exists()


def test_the_bound_of_the_cache_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.GIGABYTES, "20GB")
    with pytest.raises(SettingsError, match="SKIPSTREAM_CACHE_GB must be a number .*, got '20GB'"):
        cache.directory_for(URL, "x")


def test_an_artifact_in_a_directory_is_made_where_it_lies(tmp_path: Path) -> None:
    store = Store(Directory(tmp_path / "out"))
    made = run(store, step(Corpus, fill))
    assert made.path == tmp_path / "out" / "example_gen" / made.fingerprint
    assert sorted(path.name for path in made.path.iterdir()) == ["deep", "manifest.json", "text"]
