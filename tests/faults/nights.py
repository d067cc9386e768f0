"""Nights of a retraining, each run by `skipstream` in an environment of its own."""

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from topics import natural

from faults.forked import CHECKOUT

SETTINGS = (
    "trainer.dimensions=16",
    "trainer.sample=0.01",
    "trainer.epochs=2",
    "trainer.warm_start=latest",
    "trainer.warm_epochs=1",
    "trainer.warm_learning_rate=0.05",
    "trainer.checkpoint_minutes=0.003",
    "pusher.keep=2",
)
LIMIT = 600  # Seconds. A run that takes longer hangs.
# A directory of the corpus begins a unit of its own, if the one before has 2 MiB; blanks make it so
# large, and cost next to nothing.
DAY_BYTES = 2_200_000


class Checks:
    """Counts what held and what did not, and says each."""

    def __init__(self) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._start = time.monotonic()

    def __call__(self, holds: object, what: str, detail: object = "") -> bool:
        """Note a check; `detail` is shown if it failed."""
        self.made += 1
        if not holds:
            self.failed.append(what)
        self.say(f"{'ok  ' if holds else 'FAIL'} {what}" + (f": {detail}" if not holds else ""))
        return bool(holds)

    def say(self, text: str) -> None:
        """A line of the protocol, with the seconds since the beginning."""
        print(f"{time.monotonic() - self._start:7.1f} {text}", flush=True)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text that grows by a directory a night, and text that is no good."""

    root: Path

    @classmethod
    def write(cls, root: Path, nights: int = 3) -> "Corpus":
        """Sizes are such that the nights pass the default limits and shuffled words do not."""
        documents = [natural(night, 300 if night else 2000) for night in range(nights)]
        for night, day in enumerate(documents):
            _write(root / f"day{night + 1}" / "text.txt", day)
        tokens = np.array([token for day in documents for text in day for token in text])
        shuffled = np.random.default_rng(0).permutation(tokens).reshape(-1, 18)
        _write(root / "poison" / "text.txt", shuffled.tolist())
        return cls(root)

    def night(self, number: int) -> list[Path]:
        """The files of a night, from 1."""
        return [self.root / f"day{day}" / "text.txt" for day in range(1, number + 1)]

    @property
    def poison(self) -> list[Path]:
        """As many words as on the last night, shuffled."""
        return [self.root / "poison" / "text.txt"]


def _write(path: Path, documents: list[list[str]]) -> None:
    path.parent.mkdir(parents=True)
    width = -(-DAY_BYTES // len(documents))
    path.write_text("".join(" ".join(words).ljust(width) + "\n" for words in documents))


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code; negative: the signal.
    """

    code: int
    out: str
    errors: str
    seconds: float

    @property
    def is_one_line(self) -> bool:
        """Whether the error is one line, after what every run says, and no traceback."""
        said = [line for line in self.errors.splitlines() if line.startswith("skipstream: ")]
        return len(said) == 1 and "Traceback" not in self.errors and "Traceback" not in self.out

    @property
    def error(self) -> str:
        """The line with the error, or else the end of what was said."""
        lines = self.errors.splitlines()
        said = [line for line in lines if line.startswith("skipstream: ")]
        return said[-1] if said else " | ".join(lines[-3:])


class Environment:
    """A machine that has nothing but the program and what leads to a bucket."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """New and empty.

        Args:
            variables: What leads to the bucket.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="environment-")
        self.root = Path(self._directory.name)
        for name in ("home", "work", "tmp"):
            (self.root / name).mkdir()
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "SKIPSTREAM_CACHE": str(self.root / "cache"),
            **(variables or {}),
        }

    def __enter__(self) -> "Environment":
        return self

    def __exit__(self, *error: object) -> None:
        self._directory.cleanup()

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """`skipstream ARGUMENTS`, in a process group of its own."""
        command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(
            command,
            cwd=self.root / "work",
            env=self.variables,
            text=True,
            start_new_session=True,
            **options,
        )

    def run(self, *arguments: object, stdin: str = "") -> Ended:
        """`skipstream ARGUMENTS` to its end."""
        start = time.monotonic()
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            try:
                out, errors = process.communicate(stdin, timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Ended(process.returncode, out, errors, time.monotonic() - start)


def arguments(files: list[Path], output: object, command: str = "run") -> list[object]:
    """Of the command of a night."""
    return [command, "--input", *files, "--output", output, "--set", *SETTINGS]


def version_in(text: str) -> int:
    """The number of the version that a command names in its last line."""
    match = re.search(r"/(\d+)\s*$", text)
    return int(match[1]) if match else 0
