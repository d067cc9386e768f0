"""A process of its own, in which an export is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from components.infra_validator import probe

PROBE = Path(probe.__file__)


class FreshProcess:
    """Has TensorFlow and nothing of skipstream loaded, and waits until it is told what to ask.

    Loading TensorFlow takes seconds, so it is started while the stages before are still at work. It
    ends with this process, or with the `with` block.
    """

    def __init__(self) -> None:
        """Start it."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            # Neither the directory of the probe nor the caller's has modules for it.
            [sys.executable, "-P", PROBE],
            cwd=os.sep,
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=pipe,
        )

    def __enter__(self) -> Self:
        """It is started already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, whatever it does."""
        self.close()

    def ask(
        self, saved_model: Path, requests: Path, answers: Path, *, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Let it ask what `probe` says, once, and wait for its end.

        Args:
            saved_model: Directory of the export.
            requests: File of the requests.
            answers: Directory for the answers.
            timeout: Seconds.

        Raises:
            subprocess.TimeoutExpired: It takes longer.
        """
        told = json.dumps([*map(str, (saved_model, requests, answers))]).encode() + b"\n"
        _, said = self._process.communicate(told, timeout)
        return subprocess.CompletedProcess([], self._process.returncode, b"", said)

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()
