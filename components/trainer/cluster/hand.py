"""One hand: looks what is missing, claims it, makes it and writes it, until all is done."""

import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from components.places.lease import is_gone, this_process
from components.places.place import Found
from components.trainer.cluster import work
from components.trainer.cluster.station import GoneError, OverError, Station

# A hand that has not written what it claimed is held for dead after that time, or after that many
# times what the watcher took for anything.
PATIENCE = 60.0  # Seconds.
_TIMES = 4.0
_PAUSES = 0.02, 1.0  # Seconds between two looks: the first one, doubled up to the last one.


def work_at(address: str, number: int, patience: float = PATIENCE) -> None:
    """Work until the training is done, or stopped.

    Where a process has more hands than devices, those without one wait.

    Args:
        address: The work directory.
        number: Of the hand; others begin elsewhere.
        patience: Seconds that a claim counts in any case.
    """
    station = Station.at(address)
    if station is None:
        return
    device = station.devices.get()
    try:
        with tf.device(device):
            Hand(station, number, device, patience).work()
    finally:
        station.devices.put(device)


class _Claim(NamedTuple):
    """What another hand has claimed, as this one saw it.

    Attributes:
        file: Another one, once it is taken over.
        content: Says who.
        since: When it was first seen, by this machine's clock.
    """

    file: Found
    content: bytes
    since: float


class Hand:
    """One of a station's."""

    def __init__(self, station: Station, number: int, device: str, patience: float) -> None:
        """Nothing is done yet.

        Args:
            station: Of this process.
            number: Of the hand.
            device: In scope when it works.
            patience: See `work_at`.
        """
        self._station, self._number, self._device = station, number, device
        self._place = station.place
        name = {"hand": secrets.token_hex(8), "host": socket.gethostname(), **this_process()}
        self._name = json.dumps(name).encode()
        self._patience, self._longest = patience, 0.0
        self._claims: dict[str, _Claim] = {}
        self._state = -1

    def work(self) -> None:
        """Until nothing is left, or nothing more is wanted."""
        with suppress(OverError):
            self._work()

    def _work(self) -> None:
        pause = _PAUSES[0]
        while not self._place.has(work.STOP):
            try:
                found = self._look()
            except GoneError:  # The others are further on.
                found = self._station.catch_up(self._state)
            if found is None:
                self._station.check()
                self._place.write(work.STOP, b"")  # Who comes now need not load anything.
                return
            if found:
                pause = _PAUSES[0]
                continue
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _look(self) -> bool | None:
        """Do one thing. False: there is none now; None: there will be none."""
        station = self._station
        state = station.state
        if state < 0:
            station.check()
            return station.catch_up(state)
        if state != self._state:
            self._claims.clear()
            self._state = state
        directory = work.round_directory(state)
        files = self._place.files(directory)
        tasks: dict[str, Callable[[], bytes]] = {}
        if station.schedule.is_kept(state):
            there = set(self._place.names(work.state_directory(state)))
            for part in station.snapshot:
                if part.name not in there:
                    name = f"{work.state_directory(state)}/{part.name}"
                    tasks[name] = partial(station.rows, state, part)
        if state == len(station.schedule.rounds):
            return self._do(state, tasks, files) if tasks else None
        merged = {
            f"{directory}/{name}": partial(station.merge, state, index)
            for index, (name, _, _) in enumerate(station.merged)
            if name not in files
        }
        if not merged and not tasks:
            station.advance(state)
            self._clean(state, files)
            return True
        shards = {
            f"{directory}/{name}": partial(station.learn, state, shard, self._device)
            for shard in range(station.settings.shards)
            if (name := work.shard_file(shard)) not in files
        }
        # Claims do not count: a hand may have made one where others had removed all of a round.
        begun = len(shards) < station.settings.shards or len(merged) < len(station.merged)
        if not begun and station.catch_up(state):
            return True
        return self._do(state, ((shards or merged) if merged else {}) | tasks, files)

    def _do(
        self, state: int, tasks: Mapping[str, Callable[[], bytes]], files: Mapping[str, Found]
    ) -> bool:
        """One of the tasks that nobody does."""
        names = list(tasks)
        first = self._number % len(names)
        names = names[first:] + names[:first]
        claims = {name: f"claim-{name.replace('/', '-')}" for name in names}
        # Those that nobody has claimed come first.
        for name in sorted(names, key=lambda name: claims[name] in files):
            if self._claim(state, claims[name], files):
                begun = time.monotonic()
                try:
                    content = tasks[name]()
                    self._station.check()
                    self._place.write(name, content)
                except BaseException:
                    self._give_back(state, claims[name])
                    raise
                self._longest = max(self._longest, time.monotonic() - begun)
                return True
        return False

    def _claim(self, state: int, name: str, files: Mapping[str, Found]) -> bool:
        """Whether a task is this hand's now."""
        path = f"{work.round_directory(state)}/{name}"
        claim = files.get(name)
        if claim is None:
            self._station.check()
            return self._place.create(path, self._name)
        if name not in self._claims or self._claims[name].file != claim:
            content = self._place.read(path) or b""
            self._claims[name] = _Claim(claim, content, time.monotonic())
        seen = self._claims[name]
        held = time.monotonic() - seen.since < max(self._patience, _TIMES * self._longest)
        if held and not is_gone(seen.content):
            return False
        del self._claims[name]
        self._station.check()
        self._place.write(path, self._name)
        return True

    def _give_back(self, state: int, name: str) -> None:
        """Let others do it at once: nobody sees that this process lives, but not this hand."""
        if not self._place.silent:
            with suppress(Exception):  # What made the hand give up matters more.
                self._place.remove(f"{work.round_directory(state)}/{name}")

    def _clean(self, state: int, files: Mapping[str, Found]) -> None:
        """Remove what the round from `state` leaves behind, unless another hand does."""
        if not self._claim(state, "claim-clean", files):
            return
        for shard in range(self._station.settings.shards):
            self._place.remove(f"{work.round_directory(state)}/{work.shard_file(shard)}")
        self._station.clean(state + 1)
