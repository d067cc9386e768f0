"""The command in a process of its own, and a corpus for it."""

import contextlib
import gzip
import os
import random
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

TOPICS = {
    "sea": ["ship", "sail", "wave", "harbour", "captain", "anchor", "tide", "sailor", "deck"],
    "kitchen": ["bread", "oven", "flour", "butter", "knife", "recipe", "soup", "salt", "spoon"],
}
FILLERS = ["the", "a", "of", "and", "in", "to", "it", "was", "for", "on"]
SETTINGS = ["--set", "trainer.dimensions=24", "trainer.epochs=2", "trainer.sample=0.01"]


# What the fixture `command` is.
Command = Callable[..., subprocess.CompletedProcess[str]]


def write_corpus(path: Path, lines: int = 4000) -> Path:
    draw = random.Random(0)
    with gzip.open(path / "corpus.txt.gz", "wt", encoding="utf-8") as file:
        for _ in range(lines):
            words = draw.choices(draw.choice(list(TOPICS.values())), k=10) + draw.choices(
                FILLERS, k=6
            )
            draw.shuffle(words)
            file.write(" ".join(words).capitalize() + ".\n")
    return path / "corpus.txt.gz"


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    # Whoever sets TF_CPP_MIN_LOG_LEVEL gets all of TensorFlow's messages. Threads: its own choice.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_CPP", "TF_NUM"))
    }
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=environment, **options)


def skipstream(*arguments: object) -> subprocess.CompletedProcess[str]:
    with start(*arguments) as process:
        out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


@lru_cache(maxsize=2)
def _loaded(load: Callable[[str], Any], path: str, written: int) -> Any:
    return load(path)


def loaded(load: Callable[[str], Any], saved_model: str) -> Any:
    """What TensorFlow's `load` gives; the last two models stay, for others who ask them here."""
    path = Path(saved_model).resolve()
    return _loaded(load, str(path), (path / "saved_model.pb").stat().st_mtime_ns)


def probe_in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Run the InfraValidator's probe in this process, as long as `patch` lasts."""
    from tensorflow.saved_model import load

    from components.infra_validator import probe, process, validator

    class Here(contextlib.AbstractContextManager["Here"]):
        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, *arguments: Path, timeout: float) -> subprocess.CompletedProcess[bytes]:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr("tensorflow.saved_model.load", partial(loaded, load))
                try:
                    probe.main(*map(str, arguments))
                except Exception:  # It would end the probe's process.
                    return subprocess.CompletedProcess([], 1, b"", traceback.format_exc().encode())
            return subprocess.CompletedProcess([], 0)

    for module in (process, validator):
        patch.setattr(module, "FreshProcess", Here)
