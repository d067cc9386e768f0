"""Who can write to a bucket or a shared directory cannot write elsewhere, or to the terminal."""

import ast
import io
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import pytest
from obstore.store import MemoryStore

from components.artifacts import MANIFEST, Corpus
from components.errors import SkipstreamError
from components.places import lease
from components.places.bucket import Bucket
from components.transform import storage
from pipeline import cache, console, logs
from pipeline.store import Store

URL = "s3://bucket/out"
EVIL = "\x1b]0;title\x07\x1b[2J\rskipstream: done\x9b\u202e"
MAIL = Path(__file__).parents[1] / "deploy" / "airflow" / "skipstream_nightly.py"


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), URL)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a//evil", ".", "a\0b", ""])
def test_no_name_leads_out_of_a_copy(name: str, bucket: Bucket, tmp_path: Path) -> None:
    copy = tmp_path / "deep" / "copy"
    with pytest.raises(SkipstreamError, match="must name files that lie in it"):
        bucket.download("artifact", copy, {"a": "", name: ""})
    assert not list(tmp_path.iterdir())


def test_no_name_in_a_work_directory_leads_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "files_in", lambda source: [f"{source}/../../evil"])
    with pytest.raises(SkipstreamError, match="plain names"):
        storage.fetch("gs://bucket/work", tmp_path / "deep" / "target")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fingerprint", ["x/../../../../victim", "../victim", "", "other", None])
def test_a_manifest_names_no_other_directory(
    fingerprint: Any, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    manifest = {"kind": "Corpus", "fingerprint": fingerprint, "made_of": {}, "files": {}}
    bucket.write(f"example_gen/0123/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(SkipstreamError, match="is damaged"):
        Store(bucket).find(Corpus, "0123")
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["file"]


def test_a_record_names_no_other_directory(tmp_path: Path) -> None:
    Corpus(tmp_path / "elsewhere", "1").path.mkdir()
    Corpus(tmp_path / "elsewhere", "1").finish()
    (tmp_path / "out" / "example_gen").mkdir(parents=True)
    store = Store.open(tmp_path / "out")
    assert store.find(Corpus, "../../elsewhere") is None


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"",
        b"\xff",
        b'{"kind": "Corpus", "fingerprint": "0123", "made_of": {}, "files": []}',
        b'{"kind": "Corpus", "fingerprint": "0123", "made_of": {}, "files": {"a": 1}}',
    ],
)
def test_a_manifest_that_is_none_is_one_line(content: bytes, bucket: Bucket) -> None:
    bucket.write(f"example_gen/0123/{MANIFEST}", content)
    with pytest.raises(SkipstreamError, match="is damaged"):
        Store(bucket).find(Corpus, "0123")


def test_a_lease_writes_nothing_to_the_terminal(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    holder = {"machine": "other", "pid": 10**30, "began": "1", "host": EVIL, "run": EVIL}
    bucket.write(lease.NAME, json.dumps(holder).encode())
    with lease.Lease(bucket, "run", seconds=0.2):
        pass
    assert "is dead" in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"[]", b'{"machine": "m", "pid": 1}', b"\xff", b'{"machine":1,"pid":1e999}'],
)
def test_a_lease_that_is_none_is_taken_over(content: bytes, bucket: Bucket) -> None:
    bucket.write(lease.NAME, content)
    with lease.Lease(bucket, "run", seconds=0.2) as held:
        held.check()


def test_a_process_that_cannot_be_is_gone() -> None:
    holder = lease.this_process() | {"pid": 10**30}
    assert lease.is_gone(json.dumps(holder).encode())


# --- What is shown.


def test_words_cannot_steer_a_terminal() -> None:
    ours, theirs = os.openpty()
    try:
        stream = console.show_safely(os.fdopen(theirs, "w", encoding="utf-8"))
        print(f"{EVIL}\tнет", file=stream, flush=True)
        shown = os.read(ours, 4096).decode()
        stream.close()
    finally:
        os.close(ours)
    line = shown.expandtabs().rstrip("\r\n")
    assert line.isprintable() and "skipstream: done" in line and line.endswith("нет")


def test_a_pipe_gets_words_as_they_are() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert console.show_safely(stream) is stream


def test_logs_cannot_steer_a_terminal() -> None:
    record = logging.LogRecord("apache_beam", 30, "", 0, "a file %s", (EVIL,), None)
    assert logs.Lines("%(levelname)s: %(message)s").format(record).isprintable()


def test_what_a_person_is_told_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.say(f"trainer  device {EVIL}")
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_the_corpus_is_no_markup_in_a_mail() -> None:
    parsed = ast.parse(MAIL.read_text(encoding="utf-8"))
    wanted = [
        node
        for node in parsed.body
        if (isinstance(node, ast.FunctionDef) and node.name == "mail")
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("REASON", "KEPT"))
    ]
    names: dict[str, Any] = {"SENDER": None, "ALERTS": [], "STAGES": ["trainer"]}
    exec(compile(ast.Module(wanted, []), str(MAIL), "exec"), names)

    class Task:
        def xcom_pull(self, **_: Any) -> list[str]:
            return ["a line that is no JSON object: '<img src=x onerror=alert(1)>'"]

    html = jinja2.Template(names["KEPT"]["html_content"]).render(ti=Task())
    assert "<img" not in html and "&lt;img src=x" in html


# --- The cache in a directory for everybody.


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").touch()  # No cache can be there.
    monkeypatch.delenv(cache.DIRECTORY)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"skipstream-cache-{os.getuid()}"


def test_a_cache_for_one_user_is_made(shared: Path) -> None:
    assert cache.directory_for(URL, "x").is_relative_to(shared)
    assert shared.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("made", ["open", "link"])
def test_a_cache_that_others_can_write_to_is_refused(made: str, shared: Path) -> None:
    shared.parent.mkdir()
    if made == "open":
        shared.mkdir()
        shared.chmod(0o777)
    else:
        (shared.parent / "theirs").mkdir()
        shared.symlink_to(shared.parent / "theirs")
    with pytest.raises(SkipstreamError, match=r"only this user can write to.*SKIPSTREAM_CACHE"):
        cache.directory_for(URL, "x")
