"""The kinds of faults: what each does to a world, and how a person mends it."""

import contextlib
import ctypes
import dataclasses
import datetime
import errno
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.commands import Ended, Process
from faults.nights import Corpus
from faults.story import LIMIT, NIGHTS, OPERATIONS, READERS, Story, night, of_output
from faults.world import World


def _nothing() -> None:
    pass


@dataclasses.dataclass
class Fault:
    """One fault.

    Attributes:
        what: In words; `strike` may add to it.
        event: At which event of the command it comes.
        seconds: Or after how many seconds; None: neither, but before the command starts.
        strike: Does it, with the command, which stands still at an event; None before it starts.
        undo: What a person does before the same command runs again.
        tidy: What is to do when all is over.
        prepare: Called in the process of the command first.
        stays: Whether `prepare` and `variables` are those of the second command, too.
        variables: Of the environment; None: not set.
        real: Whether the command is a Python of its own.
        names: Of which an error's line has to have one; empty: any line will do.
        damaged: Names of files that are not what they were.
        dies: Whether the command may die without a word.
        code: Of the command, if the fault came in time; None: 0, or one of an error.
        others: Commands that ran beside it.
        refuses: Whether the second command may refuse.
    """

    what: str
    event: int = 0
    seconds: float | None = None
    strike: Callable[[Process | None], None] = lambda process: None
    undo: Callable[[], None] = _nothing
    tidy: Callable[[], None] = _nothing
    prepare: Callable[[], object] = _nothing
    stays: bool = False
    variables: dict[str, str | None] = dataclasses.field(default_factory=dict)
    real: bool = False
    names: tuple[str, ...] = ()
    damaged: list[str] = dataclasses.field(default_factory=list)
    dies: bool = False
    code: int | None = None
    others: list[Ended | None] = dataclasses.field(default_factory=list)
    refuses: bool = False
    free: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Case:
    """What a fault is drawn for.

    Attributes:
        operation: Of the story.
    """

    draw: random.Random
    story: Story
    operation: str
    world: World

    def moment(self, fault: Fault, *, seconds: bool = True) -> Fault:
        """Draw one for the fault."""
        expected = self.story.expected[self.operation]
        share = self.draw.random()
        if seconds and self.draw.random() < 0.4:
            fault.seconds = share * expected.seconds
        else:
            fault.event = 1 + int(share * expected.events)
        return fault


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


def disk_full(case: Case) -> Fault:
    """No room where the output lies, or, for a bucket, the cache."""
    room = int(math.exp(case.draw.uniform(math.log(4096), math.log(4e6))))
    names = ("disk full", "No space left", "File too large", "Disk quota", "its room")
    if os.geteuid() or case.draw.random() < 0.2:
        limits = (room, resource.RLIM_INFINITY)
        return Fault(
            f"files of at most {room:,} bytes",
            prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
            names=(*names, os.strerror(errno.EFBIG)),
        )
    root = case.world.root
    path = root / case.draw.choice(["cache", "tmp"]) if case.world.bucket else root / "out"
    fault = Fault(f"{room:,} bytes of room in {path.name}", names=names)

    def strike(process: Process | None) -> None:
        old = path.with_name(f"{path.name}.old")
        path.mkdir(exist_ok=True)
        path.rename(old)
        path.mkdir()
        files = [file for file in old.rglob("*") if file.is_file()]
        used = sum(-(-file.stat().st_size // 4096) * 4096 for file in files)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={used + room}", "tmpfs", path], check=True
        )
        fault.tidy = lambda: _unmount(path)
        shutil.copytree(old, path, dirs_exist_ok=True)

    fault.strike = strike
    fault.undo = lambda: _remount(path)
    return fault


def input_changed(case: Case) -> Fault:
    """A file of the text vanishes, shrinks, grows or changes; then it is what it was."""
    number = int(case.operation.split()[1][0])
    path = case.draw.choice(Corpus(case.world.root / "corpus").night(number))
    ways = ["vanishes", "shrinks", "grows", "changes", "is replaced", "is a directory"]
    how = case.draw.choice(ways)
    size, place = path.stat().st_size, case.draw.random()
    fault = case.moment(Fault(f"{path.parent.name}/{path.name} {how}"))

    def strike(process: Process | None) -> None:
        if how == "vanishes":
            path.unlink()
        elif how == "is a directory":
            path.unlink()
            path.mkdir()
        elif how == "shrinks":
            os.truncate(path, int(place * size))
        elif how == "grows":
            with path.open("a") as file:
                file.write("t1w1 t1w2 f3 and more words\n" * 500)
        elif how == "changes":
            with path.open("r+b") as file:
                file.seek(int(place * size))
                file.write(b"other words here\n" * 40)
            os.truncate(path, size)
        else:
            other = path.with_name("other")
            other.write_text("t1w1 t1w2 f3 something else\n" * 3000)
            other.replace(path)

    source = case.story.corpus / path.relative_to(case.world.root / "corpus")
    copy = case.draw.choice([shutil.copy, shutil.copy2])

    def undo() -> None:
        if path.is_dir():
            path.rmdir()
        copy(source, path)

    fault.strike, fault.undo = strike, undo
    fault.names = (str(path), "text.txt", "corpus", "input")
    fault.free = (str(path.relative_to(case.world.root / "corpus")),)
    return fault


def damaged(case: Case) -> Fault:
    """A byte of a file that skipstream wrote is flipped, its tail is cut, it is empty, or zeros."""
    groups: dict[str, list[str]] = {}
    for name in case.world.files():
        groups.setdefault("cache" if name[0] == ":" else name.partition("/")[0], []).append(name)
    if not groups:
        return Fault("nothing is there to damage")
    group = case.draw.choice(sorted(groups))
    name = case.draw.choice(sorted(groups[group]))
    how = case.draw.choice(["flipped", "flipped", "cut", "emptied", "zeroed"])
    place, bit = case.draw.random(), case.draw.randrange(8)
    content = case.world.read(name)
    at = min(int(place * len(content)), max(0, len(content) - 1))
    if not content:
        how, made = "filled", b"\xff garbage"
    elif how == "flipped":
        made = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
        how = f"flipped at byte {at:,} of {len(content):,}"
    elif how == "cut":
        how, made = f"cut at byte {at:,} of {len(content):,}", content[:at]
    elif how == "emptied":
        made = b""
    else:
        made = content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
        how = f"zeroed from byte {at:,} of {len(content):,}"
    fault = Fault(f"{name} {how}", damaged=[name])
    fault.strike = lambda process: case.world.write(name, made)
    parts = name.lstrip(":").split("/")
    if len(parts) > 2 and parts[0] != "serving":
        thing = ("" if name[0] != ":" else ":") + "/".join(parts[:2])
        fault.undo = lambda: case.world.remove(thing)
        fault.names = (parts[1],)
    elif parts[0] == "tokens" or name[0] == ":":
        fault.undo = lambda: case.world.remove(name)
        fault.names = (parts[-1], "tokens")
    else:
        fault.undo = lambda: case.world.write(name, content)
        fault.names = (parts[-1], "serving/" + parts[1] if len(parts) > 1 else parts[0])
    return fault


def clock_jumps(case: Case) -> Fault:
    """The clock tells another time: from the beginning, or suddenly; or it told the files one."""
    seconds = case.draw.choice([-1, 1]) * 10 ** case.draw.uniform(0, 9)
    calls = case.draw.choice([0, case.draw.randrange(1, 40)])
    if case.draw.random() < 0.5:
        fault = Fault(f"times of files are {seconds:+,.0f} s away")

        def strike(process: Process | None) -> None:
            roots = [case.world.root / "cache"]
            roots += [] if case.world.bucket else [Path(case.world.output)]
            for path in [path for root in roots for path in root.rglob("*")]:
                moved = max(1.0, path.stat().st_mtime + seconds)
                os.utime(path, (moved, moved))

        fault.strike = strike
        return fault
    when = f"after {calls} looks at it" if calls else "from the beginning"
    return Fault(f"{seconds:+,.0f} s {when}", prepare=lambda: _move_clock(seconds, calls))


def _move_clock(seconds: float, calls: int) -> None:
    left = calls
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        nonlocal left
        left -= 1
        return 0.0 if left >= 0 else seconds

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            moved = max(0.0, min(time.time(), 4e9))
            return datetime.datetime.fromtimestamp(moved, zone)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(1e9 * offset())
    for name, module in list(sys.modules.items()):
        if name.startswith(("pipeline", "components")) and hasattr(module, "datetime"):
            module.datetime = Clock  # type: ignore[attr-defined]


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
    return fault


def rights_go(case: Case) -> Fault:
    """The command has no rights to a file or a directory any more; then it has."""
    roots = [case.world.root / name for name in ("out", "corpus", "tmp", "cache")]
    paths = [path for root in roots if root.exists() for path in [root, *root.rglob("*")]]
    path = case.draw.choice(sorted(paths))
    mode = case.draw.choice([0o000, 0o500, 0o200] if path.is_dir() else [0o000, 0o400])
    name = path.relative_to(case.world.root)
    fault = case.moment(Fault(f"{name} has mode {mode:03o}"), seconds=False)
    if case.draw.random() < 0.5:
        fault.event = 0
    fault.names = (str(path), path.name, *[str(parent) for parent in path.parents][:2])
    fault.names += (os.strerror(errno.EACCES), "rights", "writable", "cannot be written")
    modes = {}

    def strike(process: Process | None) -> None:
        if path.exists():
            modes[path] = path.stat().st_mode
            path.chmod(mode)

    def undo() -> None:
        for one, old in modes.items():
            if one.exists():
                one.chmod(old)

    fault.strike, fault.undo, fault.stays = strike, undo, True
    fault.prepare = _obey_modes
    return fault


def _obey_modes() -> None:
    """Give up what lets root pass over the modes of its own files."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: for what is executed, too.
        for number in range(3):
            sets[number] &= ~(1 << capability)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def environment_bare(case: Case) -> Fault:
    """Variables that are mostly there are not, or say something odd."""
    draw = case.draw
    choices: Mapping[str, list[str | None]] = {
        "HOME": [None, "", "/nonexistent"],
        "TERM": [None, "", "xterm-256color"],
        "PATH": [None, "", "/nonexistent"],
        "LANG": ["C", "tr_TR.UTF-8", "xx"],
        "LC_ALL": ["C", "POSIX", "tr_TR.UTF-8"],
        "TMPDIR": [None, "/nonexistent"],
        "TZ": ["Asia/Kathmandu", "nonsense"],
        "SKIPSTREAM_CACHE": [None],
        "COLUMNS": ["1", "0", "x"],
        "PYTHONUTF8": ["0"],
        "XDG_CACHE_HOME": ["relative"],
    }
    names = draw.sample(sorted(choices), draw.randrange(1, 6))
    fault = Fault("", real=draw.random() < 0.4)
    fault.variables = {name: draw.choice(choices[name]) for name in names}
    fault.what = ", ".join(
        f"no {name}" if value is None else f"{name}={value}"
        for name, value in fault.variables.items()
    )
    return fault


def descriptors_few(case: Case) -> Fault:
    """The process may open few files."""
    count = int(math.exp(case.draw.uniform(math.log(6), math.log(150))))
    names = ("Too many open files", "files", "descriptor")
    limits = (count, count)
    return Fault(
        f"{count} descriptors",
        prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
        names=names,
        dies=count < 40,
    )


def memory_short(case: Case) -> Fault:
    """The process may map little more than it has at the beginning."""
    megabytes = int(math.exp(case.draw.uniform(math.log(2), math.log(3000))))

    def prepare() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return Fault(f"{megabytes:,} MB more", prepare=prepare, dies=True)


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _remount(path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1g", path], check=True)


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", path], check=True)


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
WEIGHTS = {"killed": 3, "signal": 2, "damage": 5, "input changes": 2, "together": 2, "disk full": 2}
