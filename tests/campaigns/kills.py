"""SIGKILL of the whole process group at random moments; the same command once more goes on."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, suppress

import faults
import whole
from nights import Checks, Corpus, Environment, arguments
from stores import Server
from three_nights import Reference

from components.places.place import open_place
from pipeline.commands.places import destination_of

LONGEST = 30.0  # Seconds to a kill, at most: about as long as a night takes.
MOST_REQUESTS = 250  # To a kill, at most: about as many as a night makes.


def check(
    checks: Checks, corpus: Corpus, expected: Reference, server: Server, seed: int, kills: int
) -> None:
    """Kill as often, over as many times three nights as that takes."""
    draw = random.Random(f"{seed} {server.scheme}")
    done = rounds = 0
    while done < kills:
        rounds += 1
        with faults.Proxy(server.endpoint) as proxy:
            url = f"{server.bucket().url}/round-{rounds}"
            done = _nights(checks, corpus, expected, server, proxy, url, draw, done, kills)


def _nights(
    checks: Checks,
    corpus: Corpus,
    expected: Reference,
    server: Server,
    proxy: faults.Proxy,
    url: str,
    draw: random.Random,
    done: int,
    kills: int,
) -> int:
    """Three nights with kills, as long as there are any left; how many there were in all."""
    place = open_place(url)
    variables = server.environment(proxy.endpoint)
    with ExitStack() as stack:
        environment = stack.enter_context(Environment(variables))
        for night in (1, 2, 3):
            command = arguments(corpus.night(night), url)
            for _ in range(4):  # More would keep it from ever ending.
                if done == kills or not _killed(checks, environment, proxy, command, draw):
                    break
                done += 1
                _look(checks, url, f"{url} after kill {done} (night {night})")
                if done == kills // 2:
                    _let_it_expire(checks, environment, url, command)
                if draw.random() < 0.5:
                    environment = stack.enter_context(Environment(variables))
                    checks.say("     goes on in a fresh environment")
            ended = environment.run(*command)
            checks(ended.code == 0, f"{url} night {night} ends", ended.error)
            bits = whole.bits(place)
            there = expected.bits[night - 1]
            right = whole.without_older_tokens(bits, there)
            said = f"{url} night {night} has the bits of one that was never killed"
            checks(right == there, said, whole.differences(there, right))
    return done


def _killed(
    checks: Checks,
    environment: Environment,
    proxy: faults.Proxy,
    command: list[object],
    draw: random.Random,
) -> bool:
    """Start the command and kill it at a moment, or at a request; False: it ended before."""
    moment = threading.Event()
    seconds = LONGEST
    if draw.random() < 0.5:
        seconds = draw.uniform(0.5, LONGEST)
        what = f"after {seconds:.1f} s"
    else:
        left = draw.randrange(1, MOST_REQUESTS)
        what = f"at request {left}"
        seconds = 300.0
        proxy.fail("reset", _at(left, moment))
    process = environment.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = time.monotonic()
    while process.poll() is None and not moment.wait(0.02):
        if time.monotonic() - start > seconds:
            break
    killed = process.poll() is None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    proxy.rules.clear()
    took = time.monotonic() - start
    checks.say(f"     kill {what}: " + (f"at {took:.1f} s" if killed else f"ended by {took:.1f} s"))
    return killed


def _at(left: int, moment: threading.Event):  # noqa: ANN202
    """A rule that says when the request came, which then gets no answer."""
    seen = 0

    def takes(request: faults.Request) -> bool:
        nonlocal seen
        seen += 1
        if seen >= left:
            moment.set()
        return seen >= left

    return takes


def _look(checks: Checks, url: str, said: str) -> None:
    """Nothing that is visible is half there, and the versions can be listed."""
    halves = whole.half(open_place(url))
    checks(not halves, f"{said}: nothing is half there", halves[:3])
    try:
        history = destination_of(url).history()
        checks(True, f"{said}: versions {history.versions} are listed")
    except Exception as error:
        checks(False, f"{said}: versions are listed", error)


def _let_it_expire(
    checks: Checks, environment: Environment, url: str, command: list[object]
) -> None:
    """The lease of another machine's run, which was killed, ends."""
    holder = {"run": "killed", "host": "elsewhere", "machine": "another", "pid": 1, "began": "1"}
    open_place(url).write(".lease", json.dumps(holder).encode())
    with environment.start(*command) as process:
        start = time.monotonic()
        assert process.stderr is not None
        said = next((line for line in process.stderr if "its lease is taken over" in line), "")
        took = time.monotonic() - start
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    checks(said, f"{url} a lease of another machine's run is taken over")
    checks.say(f"     after {took:.0f} s")
