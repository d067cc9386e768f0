"""Faults of processes: they are killed, interrupted, or not alone."""

import contextlib
import dataclasses
import os
import shutil
import signal

from faults.commands import Process
from faults.fault import Case, Fault
from faults.story import LIMIT, NIGHTS, OPERATIONS, READERS, night, of_output


def killed(case: Case) -> Fault:
    """SIGKILL of all the command's processes, as when the machine is gone."""
    fault = case.moment(Fault("all processes", code=-signal.SIGKILL, dies=True))
    fault.strike = lambda process: process.kill() if process else None
    fault.real = fault.seconds is not None and case.draw.random() < 0.15
    return fault


def signalled(case: Case) -> Fault:
    """SIGTERM or SIGINT of the command, or SIGINT of all its processes, as Ctrl-C."""
    number = case.draw.choice([signal.SIGTERM, signal.SIGINT])
    all_of_them = case.draw.random() < 0.3
    who = "all processes" if all_of_them else "the command"
    fault = case.moment(Fault(f"{number.name} of {who}", code=128 + number))

    def strike(process: Process | None) -> None:
        assert process
        for pid in process.family() if all_of_them else [process.pid]:
            _kill(pid, number)

    fault.strike = strike
    fault.real = fault.seconds is not None and case.draw.random() < 0.15
    if fault.real:  # Python itself has a traceback for Ctrl-C while it starts.
        fault.seconds = 2 + (fault.seconds or 0)
    return fault


def child_killed(case: Case) -> Fault:
    """A signal for one of the processes that the command started."""
    number = case.draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    which = case.draw.random()
    fault = case.moment(Fault(f"{number.name} of a child"))

    def strike(process: Process | None) -> None:
        assert process
        children = process.family()[1:]
        if children:
            _kill(children[int(which * len(children))], number)
        else:
            fault.what += ", of which there was none"

    fault.strike = strike
    return fault


def together(case: Case) -> Fault:
    """Another command in the same output."""
    last = OPERATIONS[case.operation][1]
    number = int(case.operation.split()[1][0]) if "night" in case.operation else NIGHTS
    choices = {
        "the same": last,
        "run": night(number, "run"),
        "push": night(number, "push"),
        "rollback": of_output("rollback"),
        "gc": of_output("gc"),
        **READERS,
    }
    name = case.draw.choice(sorted(choices))
    fault = case.moment(Fault(f"beside {name}", refuses=True))
    other = dataclasses.replace(case.world, root=case.world.root / "other")
    shutil.copytree(case.world.root / "corpus", other.root / "corpus")
    for directory in ("work", "tmp", "home"):
        (other.root / directory).mkdir()
    own_cache = bool(case.world.bucket) and case.draw.random() < 0.5
    variables = other.variables | (
        {} if own_cache else {"SKIPSTREAM_CACHE": str(case.world.root / "cache")}
    )
    running: list[Process] = []

    def strike(process: Process | None) -> None:
        running.append(Process(choices[name](other), other.root, variables))
        running[0].wait(case.draw.choice([0.0, 0.2, 1.0]))

    def undo() -> None:
        for process in running:
            fault.others.append(process.end(LIMIT))

    fault.strike, fault.undo = strike, undo
    if name == "rollback":
        fault.free = ("serving/",)
    if name == "gc":  # No version needs them.
        fault.optional = ("statistics_gen/",)
    return fault


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
