import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from test_pusher import content, push

from components.artifacts import Corpus, Examples, write_json
from components.errors import SkipstreamError
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.pusher.objects import ObjectDestination
from pipeline import cli
from pipeline.config import Settings
from pipeline.runner import Runner


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_versions_are_listed_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    serving = tmp_path / "out" / "serving"
    destination = open_destination(serving)
    refused = {"blessed": False, "reasons": ["loss"], "held_out_loss": 9.0}
    push(tmp_path / "run", destination, "a")
    push(tmp_path / "run", destination, "b", report=refused, force=True)
    (serving / "3").mkdir()
    (serving / "3" / "saved_model.pb").touch()
    pusher.rollback(destination, to=1, reason="cats")
    code, lines, _ = answer(capsys, "versions", tmp_path / "out")
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
    assert answer(capsys, "versions", serving)[1] == lines
    _, lines, _ = answer(capsys, "versions", serving, "--json")
    found = json.loads("\n".join(lines))
    assert [entry["version"] for entry in found] == [4, 3, 2, 1]
    assert [entry["served"] for entry in found] == [True, False, False, False]
    assert [entry["rolled_back"] for entry in found] == [False, True, True, False]
    assert found[2]["forced"] is True


def test_a_rollback_says_what_is_served_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    destination = open_destination(tmp_path / "serving")
    for name in "abc":
        push(tmp_path / "run", destination, name)
    code, lines, said = answer(capsys, "rollback", tmp_path, "--to", "1", "--reason", "cats")
    assert (code, lines) == (0, [str(tmp_path / "serving" / "4")])
    assert said.startswith("version 4 is a copy of 1; 3 stays")
    assert content(destination, 4) == content(destination, 1)
    code, _, said = answer(capsys, "rollback", tmp_path, "--to", "9")
    assert code == 1
    assert said == "skipstream: error: --to must be one of 1, 2, 3, 4, got 9\n"


def test_a_place_without_versions_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, _, said = answer(capsys, "versions", tmp_path / "none")
    assert code == 1
    assert said.startswith("skipstream: error: the versions must be in a directory")
    code, _, said = answer(capsys, "rollback", tmp_path)
    assert said == f"skipstream: error: there is no version in {tmp_path}\n"
    nothing = (0, [], f"no version yet in {tmp_path}\n")
    assert answer(capsys, "versions", tmp_path) == nothing
    assert answer(capsys, "versions", tmp_path, "--json") == (0, ["[]"], "")
    assert list(tmp_path.iterdir()) == []


def fill(out: Any) -> Any:
    (out.path / "data").write_bytes(b"x" * 1000)
    return out.finish()


def artifacts(output: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in output.glob("[a-z]*/*") if path.is_dir()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Version 1 of what "old" made; "dropped" made nothing that is kept; the last run is "new"."""
    out = tmp_path / "out"
    fingerprints = {}
    for name in ("old", "dropped", "new"):
        with Runner(out, Settings()) as runner:
            corpus = runner.stage("example_gen", Corpus, fill, command="transform")
            examples = runner.stage(
                "transform", Examples, fill, command="transform", inputs=[corpus], identity=name
            )
            fingerprints[name] = examples.fingerprint
        if name == "old":
            push(tmp_path / "run", open_destination(out / "serving"), "a")
            record = out / "serving" / ".versions" / "1.json"
            content = json.loads(record.read_text())
            content["artifacts"] = {"transform": examples.fingerprint}
            write_json(record, content)
    unfinished = out / "trainer" / "0123456789abcdef"
    unfinished.mkdir(parents=True)
    (unfinished / "checkpoint").write_bytes(b"x" * 500)
    (out / "notes" / "0123456789abcdef").mkdir(parents=True)
    os.rename(out / "transform" / fingerprints["dropped"], out / "transform" / "dropped")
    return out


def test_gc_removes_what_nothing_needs(output: Path, capsys: pytest.CaptureFixture[str]):
    before = artifacts(output)
    code, dry, _ = answer(capsys, "gc", output, "--dry-run")
    assert code == 0
    assert artifacts(output) == before
    manifest = (output / "transform" / "dropped" / "manifest.json").stat().st_size
    assert [line.split(maxsplit=1) for line in dry] == [
        [f"{1000 + manifest:,}", f"{output}/transform/dropped"],
        ["500", f"{output}/trainer/0123456789abcdef"],
        [f"{1500 + manifest:,}", "bytes would be freed"],
    ]
    code, done, _ = answer(capsys, "gc", output)
    assert (code, done[:-1]) == (0, dry[:-1])
    assert before - artifacts(output) == {"transform/dropped", "trainer/0123456789abcdef"}
    assert (output / "serving" / "1" / "saved_model.pb").exists()
    assert answer(capsys, "gc", output)[1] == ["              0  bytes freed"]


def test_gc_lets_go_of_what_removed_versions_were_made_of(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    push(tmp_path / "run", open_destination(output / "serving"), "b", keep=1)
    before = len(list((output / "transform").iterdir()))
    assert answer(capsys, "gc", output)[0] == 0
    assert (before, len(list((output / "transform").iterdir()))) == (3, 1)


def test_gc_looks_for_versions_where_the_last_run_pushed_to(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    elsewhere = tmp_path / "elsewhere"
    os.rename(output / "serving", elsewhere)
    report = json.loads((output / "run.json").read_text())
    write_json(output / "run.json", report | {"destinations": ["old", str(elsewhere)]})
    assert answer(capsys, "gc", output)[0] == 0
    assert len(list((output / "transform").iterdir())) == 2
    assert answer(capsys, "versions", output)[1][1].split()[0] == "1"


@pytest.mark.parametrize("others", [["serving"], ["nowhere", "s3://bucket/x"]])
def test_gc_spares_what_is_served_wherever_it_was_pushed_to(
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    others: list[str],
):
    bucket = ObjectDestination(MemoryStore(), "s3://bucket/x")
    monkeypatch.setattr(ObjectDestination, "open", lambda address: bucket)
    elsewhere = tmp_path / "elsewhere"
    os.rename(output / "serving", elsewhere)
    report = json.loads((output / "run.json").read_text())
    served = {"stages": {}, "destinations": [str(elsewhere), *others]}
    write_json(output / "run.json", report | served)
    with Runner(output, Settings(), command="train"):  # Pushes nothing.
        pass
    assert answer(capsys, "gc", output)[0] == 0
    assert len(list((output / "transform").iterdir())) == 1  # What version 1 was made of.


def test_gc_spares_what_runs_wrote_before_one_that_failed_at_its_input(
    output: Path, capsys: pytest.CaptureFixture[str]
):
    before = artifacts(output)
    kept = {"trainer/checkpointed", "transform/unpushed"}
    stages = {name.split("/")[0]: {"fingerprint": name.split("/")[1]} for name in kept}
    for name in kept:
        (output / name).mkdir()
    write_json(
        output / "run.json", json.loads((output / "run.json").read_text()) | {"stages": stages}
    )
    for _ in range(2):
        with pytest.raises(SkipstreamError, match="no file"), Runner(output, Settings()):
            raise SkipstreamError("no file matches")
    assert answer(capsys, "gc", output)[0] == 0
    assert kept <= artifacts(output) < before | kept
    # A run that comes to a stage is the last one there.
    last = {"trainer": {"fingerprint": "other"}}
    write_json(
        output / "run.json", json.loads((output / "run.json").read_text()) | {"stages": last}
    )
    assert answer(capsys, "gc", output)[0] == 0
    assert artifacts(output) & kept == {"transform/unpushed"}


def test_gc_waits_for_no_run(output: Path, capsys: pytest.CaptureFixture[str]):
    before = artifacts(output)
    with Runner(output, Settings()):
        code, _, said = answer(capsys, "gc", output)
    assert code == 1
    assert f"is in use by process {os.getpid()}" in said
    assert artifacts(output) == before


def test_gc_of_what_is_no_output_directory_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code, _, said = answer(capsys, "gc", tmp_path)
    assert code == 1
    assert said == (
        f"skipstream: error: gc takes an output directory, got {tmp_path}, which has no run.json\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"stages": []}', '{"stages": {"trainer": {"seconds": 1}}}']
)
def test_a_damaged_report_is_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "run.json").write_text(content)
    for command in ("gc", "versions", "stats"):
        code, _, said = answer(capsys, command, tmp_path)
        assert code == 1
        assert said.startswith(f"skipstream: error: {tmp_path}/run.json is damaged (")
        assert said.count("\n") == 1
