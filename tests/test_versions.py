"""`skipstream versions`, `rollback` and `gc`, of a directory and of a bucket."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stages import fill, run, step
from test_pusher import content, push

from components.artifacts import Corpus, Examples, Model
from components.errors import SkipstreamError
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from pipeline import cli
from pipeline.config import Settings
from pipeline.runner import Runner
from pipeline.store import SERVING, Store


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    capsys.readouterr()  # What came before.
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store.open(tmp_path / "out")
    return Store.open(f"{request.getfixturevalue('gs').url}/out")


def serving(store: Store) -> Destination:
    return open_destination(store.at(SERVING))


def test_versions_are_listed_newest_first(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = serving(store)
    refused = {"blessed": False, "reasons": ["loss"], "held_out_loss": 9.0}
    push(tmp_path / "run", destination, "a")
    push(tmp_path / "run", destination, "b", report=refused, force=True)
    destination.place.write("3/saved_model.pb", b"")
    pusher.rollback(destination, to=1, reason="cats")
    run(store, step(Corpus, fill))  # So it is an output.
    code, lines, _ = answer(capsys, "versions", store.address)
    assert code == 0
    rows = [line.split() for line in lines]
    assert rows[0] == ["version", "published", "run", "model", "loss"]
    at = datetime.strptime(f"{rows[1][1]} {rows[1][2]}", "%Y-%m-%d %H:%M:%SZ")
    assert timedelta(0) <= datetime.now(UTC).replace(tzinfo=None) - at < timedelta(minutes=5)
    assert rows[1][3:] == ["nightly", "a", "2.5000", "served,", "copy", "of", "1", "(cats)"]
    assert " ".join(rows[2]) == "3 - - - - rolled back from, copied in by hand"
    assert " ".join(rows[3][:1] + rows[3][3:]).startswith(
        "2 nightly b 9.0000 rolled back from, forced (the evaluation refused this one (loss)"
    )
    assert rows[4][3:] == ["nightly", "a", "2.5000"]
    assert answer(capsys, "versions", destination.address)[1] == lines
    _, lines, _ = answer(capsys, "versions", destination.address, "--json")
    found = json.loads("\n".join(lines))
    assert [entry["version"] for entry in found] == [4, 3, 2, 1]
    assert [entry["served"] for entry in found] == [True, False, False, False]
    assert [entry["rolled_back"] for entry in found] == [False, True, True, False]
    assert found[2]["forced"] is True


def test_a_rollback_says_what_is_served_now(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = serving(store)
    for name in "abc":
        push(tmp_path / "run", destination, name)
    run(store, step(Corpus, fill))
    code, lines, said = answer(capsys, "rollback", store.address, "--to", "1", "--reason", "cats")
    assert (code, lines) == (0, [f"{store.address}/serving/4"])
    assert said.startswith("version 4 is a copy of 1; 3 stays")
    assert content(destination, 4) == content(destination, 1)
    code, _, said = answer(capsys, "rollback", store.address, "--to", "9")
    assert code == 1
    assert said == "skipstream: error: --to must be one of 1, 2, 3, 4, got 9\n"


def test_a_place_without_versions_is_one_line(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not store.is_remote:
        code, _, said = answer(capsys, "versions", store.address)
        assert code == 1
        assert said.startswith("skipstream: error: the versions must be in a directory")
        Path(store.address).mkdir()
    code, _, said = answer(capsys, "rollback", store.address)
    assert said == f"skipstream: error: there is no version in {store.address}\n"
    for options in ([], ["--json"]):
        code, _, said = answer(capsys, "versions", store.address, *options)
        assert code == 1
        assert f"got {store.address}, in which nothing ever ran" in said
        assert said.count("\n") == 1
    assert store.place.names() == []
    run(store, step(Corpus, fill))
    nothing = (0, [], f"no version yet in {store.at(SERVING)}\n")
    assert answer(capsys, "versions", store.address) == nothing
    assert answer(capsys, "versions", store.address, "--json") == (0, ["[]"], "")


@pytest.mark.parametrize("command", ["versions", "rollback", "gc", "stats"])
def test_the_output_of_an_earlier_release_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text('{"stages": {}, "destinations": ["serving"]}')
    (tmp_path / "serving").mkdir()
    code, _, said = answer(capsys, command, tmp_path)
    assert code == 1
    assert said.startswith(
        f"skipstream: error: {tmp_path} is the output of an earlier release, whose artifacts do not"
    )
    assert said.count("\n") == 1
    # What it served can be read, as the line says.
    push(tmp_path / "run", open_destination(tmp_path / "serving"), "a")
    assert answer(capsys, "versions", tmp_path / "serving")[1][1].split()[0] == "1"


@pytest.mark.parametrize("command", ["versions", "rollback", "gc", "stats"])
def test_a_damaged_ledger_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store.json").write_text("{")
    code, _, said = answer(capsys, command, tmp_path)
    assert code == 1
    assert said.startswith(f"skipstream: error: {tmp_path}/store.json must be what this release")
    assert said.count("\n") == 1


def artifacts(store: Store) -> set[str]:
    stages = [name for name in store.place.names() if name in ("transform", "trainer")]
    return {f"{stage}/{name}" for stage in stages for name in store.place.names(stage)}


@pytest.fixture
def output(store: Store, tmp_path: Path) -> Store:
    """Version 1 of what "old" made; "dropped" made nothing that is kept; the last run is "new"."""
    for name in ("old", "dropped", "new"):
        corpus = run(store, step(Corpus, fill))
        examples = run(store, step(Examples, fill, inputs={"corpus": corpus}, content=name))
        if name == "old":
            push(tmp_path / "run", serving(store), "a")
            made_of(serving(store), 1, {"transform": examples.fingerprint})
    store.place.write("trainer/0123456789abcdef/checkpoint", b"x" * 500)
    store.place.write("notes/0123456789abcdef/by-hand", b"x")
    return store


def made_of(destination: Destination, version: int, fingerprints: dict[str, str]) -> None:
    record = pusher.read(destination).records[version]
    record = record.model_copy(update={"artifacts": fingerprints})
    destination.place.write(f".versions/{version}.json", record.model_dump_json().encode())


def fingerprint(name: str) -> str:
    corpus = Corpus(Path(), step(Corpus, fill).fingerprint)
    return step(Examples, fill, inputs={"corpus": corpus}, content=name).fingerprint


def test_gc_removes_what_nothing_needs(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = artifacts(output)
    code, dry, _ = answer(capsys, "gc", output.address, "--dry-run")
    assert code == 0
    assert artifacts(output) == before
    dropped = f"transform/{fingerprint('dropped')}"
    size = sum(found.size for found in output.place.files(dropped).values())
    assert size > len("123the cat")
    assert [line.split(maxsplit=1) for line in dry] == [
        [f"{size:,}", f"{output.address}/{dropped}"],
        ["500", f"{output.address}/trainer/0123456789abcdef"],
        [f"{size + 500:,}", "bytes would be freed"],
    ]
    code, done, _ = answer(capsys, "gc", output.address)
    assert (code, done[:-1]) == (0, dry[:-1])
    assert before - artifacts(output) == {dropped, "trainer/0123456789abcdef"}
    assert output.place.has("serving/1/saved_model.pb")
    assert output.place.has("notes/0123456789abcdef/by-hand")
    assert answer(capsys, "gc", output.address)[1] == ["              0  bytes freed"]


def test_gc_lets_go_of_what_removed_versions_were_made_of(
    output: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(tmp_path / "run", serving(output), "b", keep=1)
    assert answer(capsys, "gc", output.address)[0] == 0
    assert artifacts(output) == {f"transform/{fingerprint('new')}"}


def pushed_to(output: Store, *places: str) -> None:
    """Let the ledger say so."""
    store = Store(output.place)
    store.ledger.destinations = list(places)
    store.save_ledger()


def test_gc_looks_for_versions_where_the_last_run_pushed_to(
    output: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = open_destination(tmp_path / "elsewhere")
    push(tmp_path / "run", elsewhere, "a")
    made_of(elsewhere, 1, {"transform": fingerprint("dropped")})
    output.place.remove("serving")
    pushed_to(output, "old", elsewhere.address)
    assert answer(capsys, "gc", output.address)[0] == 0
    kept = {f"transform/{fingerprint(name)}" for name in ("dropped", "new")}
    assert artifacts(output) == kept
    assert answer(capsys, "versions", output.address)[1][1].split()[0] == "1"


@pytest.mark.parametrize("others", [["serving"], ["nowhere", "BUCKET/x"]])
def test_gc_spares_what_is_served_wherever_it_was_pushed_to(
    output: Store, gs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[str]
) -> None:
    elsewhere = open_destination(tmp_path / "elsewhere")
    push(tmp_path / "run", elsewhere, "a")
    made_of(elsewhere, 1, {"transform": fingerprint("old")})
    output.place.remove("serving")
    places = [other.replace("BUCKET", gs.url) for other in others]
    pushed_to(output, elsewhere.address, *places)
    with Runner(output, Settings(), command="train"):  # Pushes nothing.
        pass
    assert answer(capsys, "gc", output.address)[0] == 0
    assert artifacts(output) == {f"transform/{fingerprint(name)}" for name in ("old", "new")}


def test_gc_removes_nothing_while_a_place_that_was_pushed_to_is_not_there(
    output: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, empty, before = tmp_path / "gone", tmp_path / "empty", artifacts(output)
    empty.mkdir()  # As a mount point is where nothing is mounted.
    for place in (gone, empty):
        pushed_to(output, "serving", str(place))
        code, lines, said = answer(capsys, "gc", output.address)
        assert (code, lines) == (1, [])
        assert f"there are none in {place}: mount it" in said
        assert f"'skipstream gc {output.address} --forget {place}' strikes it" in said
        assert said.count("\n") == 1
    assert artifacts(output) == before
    assert answer(capsys, "gc", output.address, "--forget", empty, "--dry-run")[0] == 0
    assert artifacts(output) == before
    assert Store(output.place).ledger.destinations == ["serving", str(empty)]
    code, _, said = answer(capsys, "gc", output.address, "--forget", f"{empty}/")
    assert (code, said) == (0, f"{empty}/ is no longer a place that versions are looked for in\n")
    assert artifacts(output) == {f"transform/{fingerprint(name)}" for name in ("old", "new")}
    assert Store(output.place).ledger.destinations == ["serving"]


def test_gc_says_how_to_forget_a_bucket_that_is_gone(
    output: Store, gs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, before = f"{gs.url}-gone/models", artifacts(output)
    pushed_to(output, gone)
    code, _, said = answer(capsys, "gc", output.address)
    assert code == 1
    assert f"--forget {gone}' strikes it\n" in said
    assert artifacts(output) == before
    assert answer(capsys, "gc", output.address, "--forget", gone)[0] == 0


def test_only_a_place_that_was_pushed_to_is_forgotten(
    output: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = artifacts(output)
    for places, known in (
        (["serving"], "there is none"),
        (["serving", "/a", "gs://b"], "/a, gs://b"),
    ):
        pushed_to(output, *places)
        code, _, said = answer(capsys, "gc", output.address, "--forget", "s3://b")
        assert code == 1
        assert f"pushed to ({known}), got s3://b\n" in said
    assert artifacts(output) == before


def test_gc_spares_what_runs_used_before_one_that_failed_at_its_input(
    output: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(out: Model) -> Model:
        (out.path / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    checkpointed = step(Model, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(output, checkpointed)
    if output.is_remote:  # As the upload of a checkpoint leaves it.
        output.place.write(f"trainer/{checkpointed.fingerprint}/checkpoints/1/weights", b"half")
    for _ in range(2):
        with pytest.raises(SkipstreamError, match="no file"), Runner(output, Settings()):
            raise SkipstreamError("no file matches")
    assert answer(capsys, "gc", output.address)[0] == 0
    examples = {f"transform/{fingerprint(name)}" for name in ("old", "new")}
    assert artifacts(output) == examples | {f"trainer/{checkpointed.fingerprint}"}
    # A run that comes to a stage is the last one there.
    other = run(output, step(Model, fill))
    run(output, last := step(Model, fill, content="last"))
    assert other.fingerprint == checkpointed.fingerprint
    assert answer(capsys, "gc", output.address)[0] == 0
    assert artifacts(output) == examples | {f"trainer/{last.fingerprint}"}


def test_gc_sweeps_what_dead_processes_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(tmp_path)
    run(store, step(Corpus, fill))
    (tmp_path / ".scratch-dead").mkdir()
    assert answer(capsys, "gc", tmp_path, "--dry-run")[0] == 0
    assert (tmp_path / ".scratch-dead").exists()
    assert answer(capsys, "gc", tmp_path)[0] == 0
    assert not (tmp_path / ".scratch-dead").exists()


def test_gc_waits_for_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(tmp_path)
    run(store, step(Examples, fill, content="dropped"))
    run(store, step(Examples, fill))
    before = artifacts(store)
    with Runner(store, Settings()):
        code, _, said = answer(capsys, "gc", tmp_path)
    assert code == 1
    assert f"is in use by process {os.getpid()}" in said
    assert artifacts(store) == before


def test_gc_of_what_is_no_output_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = answer(capsys, "gc", store.address)
    assert code == 1
    assert said == (
        f"skipstream: error: gc takes an output, got {store.address}, in which nothing ever ran\n"
    )
    assert store.place.names() == []
