"""All kinds of faults, and how often each is drawn."""

from collections.abc import Callable

from faults.damage import damaged, input_changed, unfinished
from faults.fault import Case, Fault
from faults.machine import (
    clock_jumps,
    descriptors_few,
    disk_full,
    environment_bare,
    memory_short,
    rights_go,
)
from faults.signals import child_killed, killed, signalled, together
from faults.story import NIGHTS, OPERATIONS, READERS


def _nights(*stages: str) -> list[str]:
    return [f"night {number}: {stage}" for number in range(1, NIGHTS + 1) for stage in stages]


_CHEAP = _nights("transform", "train", "evaluate", "validate", "push")
_COSTLY = _nights("run")
_REST = [*READERS, "rollback", "gc", f"night {NIGHTS}: again"]
_ALL = 3 * _CHEAP + 2 * _REST + _COSTLY
_LATER = [name for name in _ALL if OPERATIONS[name][0]]
# Each kind with the operations that it is drawn for, as often as they are named.
KINDS: dict[str, tuple[Callable[[Case], Fault], list[str]]] = {
    "killed": (killed, _ALL),
    "signal": (signalled, _ALL),
    "child killed": (child_killed, 2 * _nights("validate", "push") + _ALL),
    "disk full": (disk_full, 3 * _CHEAP + ["rollback", "report", "gc"] + _COSTLY),
    "input changes": (input_changed, _nights("transform", "transform", "transform", "run")),
    "damage": (damaged, _LATER),
    "unfinished": (unfinished, 3 * _nights("train") + _nights("transform", "push") + _COSTLY),
    "clock": (clock_jumps, _ALL),
    "together": (together, _ALL),
    "rights": (rights_go, _ALL),
    "environment": (environment_bare, _ALL),
    "descriptors": (descriptors_few, _ALL),
    "memory": (memory_short, _ALL),
}
ONLY_LOCAL = ("rights",)
NEEDS_ROOT = ("rights",)
# Damage is what most can be wrong with.
WEIGHTS = {
    "killed": 3,
    "signal": 2,
    "disk full": 2,
    "input changes": 2,
    "damage": 5,
    "unfinished": 2,
    "together": 2,
}
