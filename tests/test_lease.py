"""A bucket is held by one run, until that ends or has been dead for some time."""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from obstore.store import MemoryStore

from components.errors import SkipstreamError
from components.places import lease
from components.places.bucket import Bucket
from components.places.lease import Lease

BUCKET = "s3://bucket/path"
SECONDS = 0.8


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), BUCKET)


def elsewhere(bucket: Bucket, run: str, seconds: float = SECONDS) -> Lease:
    """A lease of another machine: whether its process lives, nobody here can see."""
    held = Lease(bucket, run, seconds)
    held._holder["machine"] = "another"
    return held


def dead(bucket: Bucket) -> Lease:
    """A lease of a run that died: nobody renews it or gives it back."""
    held = elsewhere(bucket, "dead")
    held._take()
    return held


def test_a_lease_is_taken_and_given_back(bucket: Bucket) -> None:
    with bucket.hold("20261128-1") as held:
        held.check()
        said = json.loads(bucket.read(lease.NAME) or b"")
        assert said["run"] == "20261128-1"
    assert bucket.names() == []
    with bucket.hold("20261128-2"):
        pass


def test_a_lease_is_refused_while_its_holder_renews_it(bucket: Bucket) -> None:
    with elsewhere(bucket, "one") as held:
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(SkipstreamError) as caught:
                Lease(bucket, "two", SECONDS).__enter__()
            assert time.monotonic() - begun < SECONDS
        held.check()
    assert str(caught.value).startswith(f"{BUCKET} is in use by run one on ")
    assert str(caught.value).endswith(": wait for it, or choose another with --output")


def test_a_lease_is_taken_over_when_its_holder_is_dead(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lost, begun = dead(bucket), time.monotonic()
    with Lease(bucket, "two", SECONDS) as held:
        assert SECONDS < time.monotonic() - begun < 10 * SECONDS
        held.check()
        with pytest.raises(SkipstreamError, match="could not be renewed for 0.6 seconds"):
            lost.check()
        assert json.loads(bucket.read(lease.NAME) or b"")["run"] == "two"
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("waiting to see whether run dead on ")
    assert said[1].endswith("is dead: its lease is taken over")


def test_a_lease_of_a_process_that_is_gone_is_taken_over_at_once(bucket: Bucket) -> None:
    if lease.this_process()["machine"] is None:
        pytest.skip("whether a process lives is seen on Linux only")
    program = (
        "import json; from components.places import lease; print(json.dumps(lease.this_process()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    bucket.write(
        lease.NAME, json.dumps({"run": "1", "host": "h"} | json.loads(done.stdout)).encode()
    )
    begun = time.monotonic()
    with Lease(bucket, "two"):
        assert time.monotonic() - begun < lease.SECONDS / 4


@pytest.mark.parametrize("kill_says", [PermissionError, ProcessLookupError])
def test_a_process_that_is_hidden_is_not_taken_for_dead(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, kill_says: type[OSError]
) -> None:
    if lease.this_process()["machine"] is None:
        pytest.skip("whether a process lives is seen on Linux only")
    look, hidden = lease._stat, os.getpid() + 1

    def stat(pid: int) -> tuple[str, str]:
        if pid == hidden:
            raise FileNotFoundError(pid)
        return look(pid)

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (hidden, 0)
        raise kill_says(pid)

    monkeypatch.setattr(lease, "_stat", stat)
    monkeypatch.setattr(lease.os, "kill", kill)
    holder = {"run": "1", "host": "h"} | lease.this_process() | {"pid": hidden}
    bucket.write(lease.NAME, json.dumps(holder).encode())
    begun = time.monotonic()
    with Lease(bucket, "two", SECONDS):
        waited = time.monotonic() - begun > SECONDS
    assert waited == (kill_says is PermissionError)


def test_of_runs_that_wait_for_a_dead_one_one_wins(bucket: Bucket) -> None:
    def one(number: int) -> str:
        try:
            with Lease(bucket, str(number), SECONDS) as held:
                time.sleep(SECONDS)
                held.check()
        except SkipstreamError as error:
            return str(error)
        return "held"

    dead(bucket)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(one, range(4)))
    assert done.count("held") == 1
    assert sum("is in use by run" in said for said in done) == 3
    assert bucket.names() == []


def test_a_lease_that_somebody_else_wrote_is_lost_and_not_given_back(bucket: Bucket) -> None:
    with Lease(bucket, "one", SECONDS) as held:
        bucket.write(lease.NAME, b'{"run": "two"}')
        deadline = time.monotonic() + 10 * SECONDS
        with pytest.raises(SkipstreamError, match="another run may take it: run the same"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.01)
    assert bucket.read(lease.NAME) == b'{"run": "two"}'


def test_a_lease_that_is_damaged_is_nobodys(bucket: Bucket) -> None:
    bucket.write(lease.NAME, b"{")
    with bucket.hold("one"):
        pass


def test_a_lease_outlives_a_bucket_that_fails_for_a_moment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(bucket, "one", SECONDS) as held:
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise SkipstreamError("503")

            patch.setattr(bucket, "replace", fail)
            time.sleep(SECONDS / 4)
            held.check()
        time.sleep(SECONDS)
        held.check()
    assert bucket.names() == []
