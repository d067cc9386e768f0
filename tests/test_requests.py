"""Requests to a store that hangs or loses answers: interrupted, tried again, and few."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stores
from commands import start
from faults.proxy import Proxy, Request, Rule
from stages import fill, run, step
from test_pusher import push

from components.artifacts import Corpus
from components.places.bucket import Bucket
from components.pusher.destination import open_destination
from pipeline.store import Store

INTERRUPTED = "skipstream: error: interrupted: the same command resumes\n"


@pytest.fixture(params=["s3"])
def server(request: pytest.FixtureRequest) -> stores.Server:
    found: stores.Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def proxy(server: stores.Server) -> Iterator[Proxy]:
    with Proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def url(server: stores.Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty bucket behind the proxy."""
    made = server.bucket(through=proxy.endpoint)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made.url


def interrupt(process: subprocess.Popen[str], hanging: Rule, requests: int) -> str:
    """Send SIGINT when so many requests hang; what the process says, which ends soon."""
    with process:
        try:
            deadline = time.monotonic() + 60
            while hanging.hits < requests:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)  # A request is given up after 20 seconds.
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT
    return said


@pytest.mark.parametrize(("hangs", "at_once"), [("list-type", 1), ("/.versions/", 2)])
def test_a_command_that_waits_for_a_store_is_interrupted(
    proxy: Proxy, url: str, tmp_path: Path, hangs: str, at_once: int
) -> None:
    """In one request of the main thread, or in several of others."""
    for model in "ab":
        push(tmp_path / "run", open_destination(f"{url}/models"), model)
    hanging = proxy.fail("timeout", lambda request: hangs in request.query or hangs in request.path)
    process = start("versions", f"{url}/models")
    assert interrupt(process, hanging, at_once) == INTERRUPTED


# A training that keeps a checkpoint, and goes on.
TRAINING = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from stages import run, step
from components.artifacts import CHECKPOINTS, STATE, Model
from pipeline import interrupts
from pipeline.store import Store

def train(out):
    checkpoint = out.path / CHECKPOINTS / "1"
    checkpoint.mkdir(parents=True)
    (checkpoint / STATE).touch()
    out.keep(CHECKPOINTS + "/1")
    time.sleep(60)

interrupts.install()
try:
    run(Store.open(sys.argv[1]), step(Model, train), resumable=True)
except KeyboardInterrupt:
    sys.exit(interrupts.exit_code())
"""


def test_a_training_whose_store_hangs_is_interrupted(proxy: Proxy, url: str) -> None:
    """Its checkpoint, its report and its lease all wait for the store."""
    here: list[bool] = []

    def begun(request: Request) -> bool:
        here.extend([True] if "checkpoints" in request.query.get("prefix", "") else [])
        return len(here) > 1  # The first looks for one to go on from.

    hanging = proxy.fail("timeout", begun)
    command = [sys.executable, "-c", TRAINING, f"{url}/out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = interrupt(process, hanging, 1)
    assert "the lease is not given back" in said
    assert "no answer before the process had to end" in said


@pytest.mark.parametrize("server", ["s3", "gs"], indirect=True)
def test_a_lost_answer_is_no_reason_to_accuse_the_store(proxy: Proxy, url: str) -> None:
    """The file is created by the first request; whether the store keeps its word, asks the next."""
    for lost in (0, 1):
        rule = proxy.fail("lost", lambda request: request.method == "PUT", skip=lost, times=1)
        bucket = Bucket.open(f"{url}/{lost}", "--output")
        assert bucket.create("a", b"1")
        assert rule.hits == 1
        proxy.rules.clear()
        assert bucket.read("a") == b"1"
        assert not bucket.create("a", b"2")


def test_gc_asks_once_for_each_stage(proxy: Proxy, url: str) -> None:
    """However many artifacts there are that stay."""
    store, requests = Store.open(f"{url}/out"), []
    needed = []
    run(store, step(Corpus, fill))
    for number in range(8):
        store.place.write(f"trainer/{number:016}/manifest.json", b"{}")
        store.place.write(f"trainer/{number:016}/vectors.npy", b"123")
        needed.append(("trainer", f"{number:016}"))
        if number in (0, 7):
            before = len(proxy.requests)
            assert list(store.unneeded(needed)) == []
            requests.append([request.kind for request in proxy.requests[before:]])
    assert requests[0] == requests[1]
    assert set(requests[0]) == {"GET bucket ?list-type ?prefix"}
