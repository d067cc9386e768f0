"""Faults of the machine: what it has little of, forbids, or says wrongly."""

import ctypes
import datetime
import errno
import functools
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.commands import Process
from faults.fault import Case, Fault


def disk_full(case: Case) -> Fault:
    """No room where the output lies, or, for a bucket, the cache."""
    room = int(math.exp(case.draw.uniform(math.log(4096), math.log(4e6))))
    names = ("disk full", "No space left", "File too large", "Disk quota", "its room")
    if case.draw.random() < 0.2 or not _may_mount():
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
        _mount(path, used + room)
        fault.tidy = lambda: _unmount(path)
        shutil.copytree(old, path, dirs_exist_ok=True)

    fault.strike = strike
    fault.undo = lambda: _remount(path)
    return fault


@functools.cache
def _may_mount() -> bool:
    """Whether this process may: root of a container need not."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            _mount(Path(directory), 4096)
        except (OSError, subprocess.CalledProcessError):
            return False
        _unmount(Path(directory))
    return True


def _mount(path: Path, size: int) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    subprocess.run(command, check=True, capture_output=True)


def _remount(path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1g", path], check=True)


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", path], check=True)


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

    if path.name == "tmp":
        fault.optional = ("tmp/",)
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
