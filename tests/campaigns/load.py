"""An hour in five minutes: nights, pushes, rollbacks and gc beside ten readers and a server.

    make load ARGS='--minutes 5'

An output in a directory and one in a bucket (moto's S3, on this machine) are written by nights, one
after the other, and by a process that pushes, rolls back and tidies up without a pause. Ten readers
load the newest version again and again: by `skipstream.load` or tf.saved_model, or by asking a
server that does. In the end a table says what each process did, and its memory, descriptors and
threads after a fifth of the time and at the end. The exit code is 1 if a reader failed, if memory,
descriptors or threads grew, or if a file or a process was left behind. No time is checked.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import stores  # noqa: E402
from faults.nights import CHECKOUT, Checks, Corpus, Environment, arguments  # noqa: E402

from components.places.place import SCRATCH, open_place  # noqa: E402

READERS = {"directory": 4, "bucket": 3, "saved_model": 2, "client": 1}
MARK = "SKIPSTREAM_LOAD"  # A variable by which processes are told that were started here.
PAUSE = 0.3  # Seconds between two loads of a reader, or two acts of the writer.
# What a process may have more at the end: caches of allocators, and of TensorFlow, which keeps some
# of each graph that it ever loaded.
MORE_MEMORY, MORE_OF_TENSORFLOW = 32, 128  # MB
WARM, LAST = (0.2, 0.35), (0.85, 1.0)  # Shares of the time that the two columns are medians of.


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    checks = Checks()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        corpus = Corpus.write(root / "corpus", nights=1)
        bucket = stack.enter_context(stores.s3()).bucket()
        mark = secrets.token_hex(8)
        machine = stack.enter_context(
            Environment({**bucket.environment, MARK: mark, "TF_CPP_MIN_LOG_LEVEL": "3"})
        )
        os.environ.update(bucket.environment)
        outputs = [str(root / "out"), f"{bucket.url}/out"]
        for output in outputs:
            night = machine.run(*arguments(corpus.night(1), output), "pusher.keep=6")
            if not checks(night.code == 0, f"{output} has a version", night.error):
                return 1
        watched = Watched(root, machine, outputs)
        watched.run(checks, corpus, 60 * options.minutes)
        watched.table(checks)
        _nothing_is_left(checks, machine, outputs, mark)
    checks.say(f"{checks.made} checks, {len(checks.failed)} failed")
    return 1 if checks.failed else 0


class Watched:
    """The processes, and what they hold."""

    def __init__(self, root: Path, machine: Environment, outputs: list[str]) -> None:
        """Nothing runs yet."""
        self._root, self._machine, self._outputs = root, machine, outputs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._samples: dict[str, list[tuple[int, int, int]]] = {}

    def run(self, checks: Checks, corpus: Corpus, seconds: float) -> None:
        """Start all, run nights until the time is over, and let all end."""
        self._start("server", "server")
        self._start("writer", "writer")
        for role, number in READERS.items():
            for place in range(number):
                self._start(f"{role} {place + 1}", role)
        end = time.monotonic() + seconds
        sampler = threading.Thread(target=self._sample, args=[end])
        sampler.start()
        nights: Counter[str] = Counter()
        while time.monotonic() < end:
            output = self._outputs[sum(nights.values()) % 2]
            seed = f"trainer.seed={100 + sum(nights.values())}"
            night = self._machine.run(*arguments(corpus.night(1), output), "pusher.keep=6", seed)
            # The writer pushes meanwhile: then a night is overtaken, and says so.
            refused = night.code in (1, 3) and night.is_one_line
            if checks(night.code == 0 or refused, f"a night of {output}", night.errors[-2000:]):
                nights["published" if night.code == 0 else "refused in one line"] += 1
        sampler.join()
        # The server after those that ask it.
        for name, process in sorted(self._processes.items(), key=lambda item: item[0] == "server"):
            self._stop(name).touch()
            code = process.wait(timeout=120)
            checks(code == 0, f"{name} ended by itself", (self._root / f"{name}.err").read_text())
        checks.say(f"nights: {dict(nights)}")

    def table(self, checks: Checks) -> None:
        """Print it, and check it."""
        row = "{:<14} {:>6} {:>8} {:>9}   {:>14}   {:>11}   {:>9}"
        print(
            row.format("process", "done", "failures", "overtaken", "MB", "descriptors", "threads")
        )
        for name in self._processes:
            said = json.loads((self._root / f"{name}.json").read_text())
            samples = self._samples[name]
            if not checks(len(samples) > 5, f"{name} was watched", len(samples)):
                continue
            warm, last = (
                [statistics.median(column) for column in zip(*_window(samples, part), strict=True)]
                for part in (WARM, LAST)
            )
            pairs = [f"{a:.0f} -> {b:.0f}" for a, b in zip(warm, last, strict=True)]
            numbers = [said[word] for word in ("done", "failures", "overtaken")]
            print(row.format(name, *numbers, *pairs))
            checks(not said["failures"], f"{name} never failed", said["examples"])
            checks(said["done"] > 0, f"{name} did something")
            loads_graphs = name.startswith(("server", "saved_model"))
            more = MORE_OF_TENSORFLOW if loads_graphs else MORE_MEMORY
            checks(last[0] < warm[0] + more, f"{name} holds as much memory as before", pairs[0])
            checks(last[1] <= warm[1] + 2, f"{name} holds as many descriptors", pairs[1])
            checks(last[2] <= warm[2] + 2, f"{name} has as many threads", pairs[2])

    def _start(self, name: str, role: str) -> None:
        said = self._root / f"{name}.json"
        said.write_text(json.dumps({"done": 0, "failures": 0, "overtaken": 0, "examples": []}))
        with (self._root / f"{name}.err").open("wb") as errors:
            self._processes[name] = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("load_roles.py"), role, said,
                 self._stop(name), self._root, *self._outputs],
                env={**self._machine.variables, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}"},
                stdout=errors,
                stderr=errors,
            )  # fmt: skip
        self._samples[name] = []

    def _stop(self, name: str) -> Path:
        """The file that ends a process as soon as it is there."""
        return self._root / f"{name}.stop"

    def _sample(self, end: float) -> None:
        while time.monotonic() < end:
            for name, process in self._processes.items():
                try:
                    self._samples[name].append(_held(process.pid))
                except (OSError, KeyError):  # It is gone, or about to: its exit code tells.
                    continue
            time.sleep(2)


def _held(pid: int) -> tuple[int, int, int]:
    """MB of memory, descriptors and threads of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    memory = int(status["VmRSS"].split()[0]) // 1024
    return memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def _window(
    samples: list[tuple[int, int, int]], part: tuple[float, float]
) -> list[tuple[int, ...]]:
    start, stop = (round(share * len(samples)) for share in part)
    return [*samples[start : max(stop, start + 1)]]


def _nothing_is_left(checks: Checks, machine: Environment, outputs: list[str], mark: str) -> None:
    temporary = [str(path) for path in Path(machine.variables["TMPDIR"]).rglob("*")]
    checks(not temporary, "no temporary file is left", f"{len(temporary)}: {temporary[:3]}")
    alive = list(_marked(mark))
    checks(not alive, "no process is left", alive)
    for output in outputs:
        for place in (open_place(output), open_place(f"{output}/serving")):
            scratch = [name for name in place.names() if name.startswith((SCRATCH, ".tmp"))]
            checks(not scratch, f"{place.address} has no scratch left", scratch)
    cache = Path(machine.variables["SKIPSTREAM_CACHE"])
    partial = [path.name for path in cache.rglob(f"{SCRATCH}*")]
    checks(not partial, "no half copy is left in the cache", partial)


def _marked(mark: str) -> Iterator[str]:
    """Processes with the mark."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                yield (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:
            continue


if __name__ == "__main__":
    sys.exit(main())
