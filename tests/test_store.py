"""Artifacts in a directory and in a bucket alike: what they were made of, found, tidied up."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from stages import URL, fill, forbidden, place, run, step

from components.artifacts import Corpus, Examples, Model, Statistics
from components.errors import SettingsError, SkipstreamError
from components.identity import code_identity
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.lease import Lease
from components.settings import TransformSettings
from pipeline.config import Settings
from pipeline.runner import Runner
from pipeline.store import Step, Store


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(place(request.param, tmp_path / "out"))


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
    assert manifest.pop("digest")
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
    assert files is not None
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
    assert found and found == store.last(Corpus) == store.publish(found)
    assert found.address == store.place.at(f"example_gen/{made.fingerprint}")
    assert (found / "text").read_text() == "the cat"
    assert (found / "deep" / "data").read_text() == "123"
    assert found.summary == {"documents": 3}
    assert (found.has("deep/data"), found.has("deep/none")) == (True, False)
    assert store.find(Statistics, made.fingerprint) is None


def test_nothing_half_made_is_found(store: Store) -> None:
    def fail(out: Any) -> Any:
        (out.path / "text").write_text("the")
        raise SkipstreamError("the disk is gone")

    made = step(Corpus, fail)
    with pytest.raises(SkipstreamError):
        run(store, made)
    assert store.find(Corpus, made.fingerprint) is None
    assert store.last(Corpus) is None


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


def test_what_a_beam_job_left_stays_as_long_as_it_may_go_on(store: Store) -> None:
    served = run(store, step(Examples, fill, content="served"))
    last = run(store, step(Examples, fill, content="last"))
    for fingerprint in (served.fingerprint, last.fingerprint, "f00d"):
        store.place.write(f"work/{fingerprint}/part", b"12345")
    needed = [("transform", served.fingerprint)]
    assert dict(Store(store.place).unneeded(needed)) == {
        "work/f00d": 5,
        f"work/{served.fingerprint}": 5,
    }


def test_a_run_that_was_overtaken_does_not_overwrite_the_ledger() -> None:
    bucket = Bucket(MemoryStore(), URL)
    slow = Store(bucket)
    slow.ledger.destinations.append("slow")
    run(Store(bucket), step(Corpus, fill), "fast")
    written = bucket.read("store.json")
    for _ in range(2):
        with pytest.raises(SkipstreamError, match=f"^another run has taken {URL} over, and this"):
            slow.save_ledger()
        assert bucket.read("store.json") == written


def test_the_ledger_says_what_the_last_run_used(store: Store) -> None:
    assert not store.exists
    made = run(store, step(Corpus, fill), "one")
    first = Store(store.place).ledger.uses["example_gen"]
    run(store, step(Corpus, forbidden), "two")
    ledger = Store(store.place).ledger
    use = ledger.uses["example_gen"]
    assert (use.fingerprint, use.run, use.reused) == (made.fingerprint, "two", True)
    assert use.seconds == 0 and use.took == first.seconds and use.peak_memory_bytes
    assert (ledger.destinations, bool(ledger.last_finished)) == ([], True)
    assert Store(store.place).exists


def test_destinations_lie_below_the_output_wherever_that_is(store: Store) -> None:
    assert store.at("serving") == f"{store.address}/serving"
    assert store.at("/models") == "/models"
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


def test_no_byte_of_a_manifest_changes_unnoticed(store: Store) -> None:
    made = step(Corpus, fill)
    run(store, made)
    name = f"example_gen/{made.fingerprint}/manifest.json"
    whole = store.place.read(name) or b""
    before, noticed = json.loads(whole), 0
    for at in range(len(whole)):
        store.place.write(name, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = store.find(Corpus, made.fingerprint)
            assert found
            after = found.manifest
            assert [after[key] for key in before if key != "digest"] == [
                before[key] for key in before if key != "digest"
            ]
        except SkipstreamError as error:
            noticed += 1
            assert "is damaged" in str(error) or "holds" in str(error)
    assert noticed > len(whole) / 2


@pytest.mark.parametrize("damaged", [b"the dog", b"the", b""])
def test_a_damaged_file_of_an_artifact_is_named(tmp_path: Path, damaged: bytes) -> None:
    store, made = Store.open(tmp_path), step(Corpus, fill)
    run(store, made)
    file = Path(store.place.at(f"example_gen/{made.fingerprint}/text"))
    found = store.find(Corpus, made.fingerprint)
    assert found
    assert (found / "text").read_text() == "the cat"
    os.utime(file, (1, 1))  # Else a process looks once.
    file.write_bytes(damaged)
    assert (found / "deep" / "data").read_text() == "123"
    with pytest.raises(SkipstreamError) as caught:
        _ = found / "text"
    said = f"{file} is damaged: its content is not what was written: delete {file.parent} and run"
    assert str(caught.value) == f"{said} again"


def test_no_byte_of_the_ledger_changes_unnoticed(tmp_path: Path) -> None:
    run(Store.open(tmp_path), step(Corpus, fill))
    whole = (tmp_path / "store.json").read_bytes()
    before = Store.open(tmp_path).ledger
    for at in range(len(whole)):
        (tmp_path / "store.json").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert Store.open(tmp_path).ledger == before
        except SkipstreamError as error:
            assert "store.json must be what this release writes" in str(error)


def test_an_artifact_of_an_earlier_release_is_refused(store: Store) -> None:
    made = step(Corpus, fill)
    run(store, made)
    name = f"example_gen/{made.fingerprint}"
    manifest = json.loads(store.place.read(f"{name}/manifest.json") or b"")
    del manifest["made_of"], manifest["digest"]
    store.place.write(f"{name}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(SkipstreamError, match="is an artifact of an earlier release") as caught:
        store.find(Corpus, made.fingerprint)
    assert str(caught.value).startswith(store.place.at(name))


@pytest.mark.usefixtures("s3")  # For its credentials.
def test_an_output_is_a_directory_or_a_bucket() -> None:
    with pytest.raises(SettingsError, match="--output must be a directory, gs://bucket/path or"):
        Store.open("ftp://a/b")
    assert Store.open("s3://bucket/path").is_remote
    assert Store.open("s3://bucket/path/").address == "s3://bucket/path"


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


def test_who_holds_the_output_knows_what_the_last_run_used(store: Store) -> None:
    assert store.ledger.uses == {}
    run(Store(store.place), step(Corpus, fill))
    with store.hold("two"):
        assert store.ledger.uses.keys() == {"example_gen"}


def test_a_run_that_was_overtaken_removes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(store, step(Corpus, fill))

    class Lost:
        def check(self) -> None:
            raise SkipstreamError("another run may have taken it over")

    monkeypatch.setattr(store.place, "hold", lambda run: contextlib.nullcontext(Lost()))
    name = f"example_gen/{made.fingerprint}"
    with store.hold("slow"):
        with pytest.raises(SkipstreamError, match="taken it over"):
            store.remove(name)
        assert store.find(Corpus, made.fingerprint)
    store.remove(name)
    assert store.find(Corpus, made.fingerprint) is None


def test_an_artifact_in_a_directory_is_made_where_it_lies(tmp_path: Path) -> None:
    store = Store(Directory(tmp_path / "out"))
    made = run(store, step(Corpus, fill))
    assert made.path == tmp_path / "out" / "example_gen" / made.fingerprint
    assert sorted(path.name for path in made.path.iterdir()) == ["deep", "manifest.json", "text"]
