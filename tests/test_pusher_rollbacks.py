"""Earlier versions are served again, and what was rolled back from does not come back by itself."""

from pathlib import Path

import pytest
from obstore.store import MemoryStore
from test_pusher import KINDS, content, destination_of, model, push, visible

from components.errors import NotBlessedError, SkipstreamError
from components.places.bucket import Bucket
from components.pusher import pusher
from components.pusher.destination import Destination


@pytest.fixture(params=KINDS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    return destination_of(request.param, tmp_path)


def test_a_rollback_serves_the_version_before_under_the_next_number(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination, "a")
    push(tmp_path / "run", destination, "b")
    record = pusher.rollback(destination, reason="cats became dogs")
    assert content(destination, 3) == model("a")
    assert content(destination, 2) == model("b")
    history = pusher.read(destination)
    assert history.newest == 3
    assert history.records[3] == record
    assert (record.action, record.restores, record.previous) == ("rollback", 1, 2)
    assert (record.model, record.run_id, record.artifacts) == ("a", "nightly", {"exporter": "a"})
    assert record.reasons == ("cats became dogs",)


def test_rollbacks_go_further_back_each_time(tmp_path: Path, destination: Destination) -> None:
    for name in "abc":
        push(tmp_path / "run", destination, name)
    assert [pusher.rollback(destination).restores for _ in range(2)] == [2, 1]
    with pytest.raises(SkipstreamError, match=r"got versions 1, 2, 3, 4, 5: name one with --to"):
        pusher.rollback(destination)
    assert pusher.rollback(destination, to=3).version == 6
    assert content(destination, 6) == model("c")
    assert set(pusher.read(destination).withdrawn) == {"a", "b"}


def test_a_rollback_names_what_it_cannot_do(tmp_path: Path, destination: Destination) -> None:
    with pytest.raises(SkipstreamError, match="there is no version in "):
        pusher.rollback(destination)
    push(tmp_path / "run", destination)
    with pytest.raises(SkipstreamError, match="needs an earlier version"):
        pusher.rollback(destination)
    push(tmp_path / "run", destination, "b")
    with pytest.raises(SkipstreamError, match="--to must be one of 1, 2, got 7"):
        pusher.rollback(destination, to=7)
    with pytest.raises(SkipstreamError, match="version 2, which is served, holds the model"):
        pusher.rollback(destination, to=2)
    assert pusher.read(destination).versions == [1, 2]


def test_a_model_that_was_rolled_back_from_is_pushed_only_by_force(
    tmp_path: Path, destination: Destination
) -> None:
    for name in "abc":
        push(tmp_path / "run", destination, name)
    pusher.rollback(destination, to=1, reason="cats")
    for name in "cb":  # Whoever goes back to 1 trusts neither.
        with pytest.raises(NotBlessedError, match=r"rolled back from .*version 4 \(cats\)"):
            push(tmp_path / "run", destination, name)
    assert push(tmp_path / "run", destination, "a").version == 4
    assert push(tmp_path / "run", destination, "d", keep=1).version == 5
    with pytest.raises(NotBlessedError, match="rolled back from"):  # Its files are gone.
        push(tmp_path / "run", destination, "c")
    assert push(tmp_path / "run", destination, "c", force=True).version == 6
    assert pusher.read(destination).records[6].forced
    push(tmp_path / "run", destination, "e")
    assert push(tmp_path / "run", destination, "c").version == 8  # It was reinstated.


def test_a_training_that_was_rolled_back_from_is_not_pushed_in_another_storage(
    tmp_path: Path, destination: Destination
) -> None:
    for name, trainer in (("a", "1"), ("b", "2"), ("b-int8", "2")):
        push(tmp_path / "run", destination, name, trainer=trainer)
    pusher.rollback(destination, to=2)
    # Here the storage was at fault, not the training: that is served.
    assert push(tmp_path / "run", destination, "b-half", trainer="2").version == 5
    pusher.rollback(destination, to=1)
    with pytest.raises(NotBlessedError, match=r"rolled back from .* by version 6"):
        push(tmp_path / "run", destination, "b-turned", trainer="2")
    assert push(tmp_path / "run", destination, "a-half", trainer="1").version == 7
    assert push(tmp_path / "run", destination, "b-turned", trainer="2", force=True).version == 8
    assert push(tmp_path / "run", destination, "b-again", trainer="2").version == 9


def test_a_candidate_of_before_a_rollback_is_pushed_only_by_force(
    tmp_path: Path, destination: Destination
) -> None:
    for name in "ab":
        push(tmp_path / "run", destination, name)
    before = pusher.read(destination)
    pusher.rollback(destination)
    said = "version 2 was rolled back from while this was made"
    with pytest.raises(SkipstreamError, match=f"^{said}: run again$") as caught:
        push(tmp_path / "run", destination, "c", made_by=before)
    assert caught.value.exit_code == 1  # Schedulers try again.
    assert pusher.read(destination).versions == [1, 2, 3]
    assert push(tmp_path / "run", destination, "c", made_by=before, force=True).version == 4
    record = pusher.read(destination).records[4]
    assert (record.forced, record.reasons) == (True, (said,))
    assert push(tmp_path / "run", destination, "c", made_by=before).version == 4  # It is served.


def test_a_rollback_during_an_upload_is_not_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Destination(Bucket(MemoryStore(), "s3://bucket"))
    for name in "ab":
        push(tmp_path / "run", destination, name)
    before = pusher.read(destination)
    upload = destination.place.put

    def slow(source: Path, name: str, *, last: str) -> None:
        upload(source, name, last=last)
        pusher.rollback(destination)

    monkeypatch.setattr(destination.place, "put", slow)
    with pytest.raises(SkipstreamError, match="version 3 was pushed while this was made"):
        push(tmp_path / "run", destination, "c", made_by=before)
    assert pusher.read(destination).versions == [1, 2, 3]
    assert visible(destination) == [".versions", "1", "2", "3"]
