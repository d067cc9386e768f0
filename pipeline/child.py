"""Runs the command in a process of its own, and shows how far it is.

The caller's process (a notebook's kernel, mostly) keeps its memory and its TensorFlow for itself.
Ctrl-C is passed on: the command ends so that it can go on, and the caller has a KeyboardInterrupt.
If the caller dies, the command notices by its stdin, and ends in the same way.
"""

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from components.errors import NotBlessedError, SettingsError, SkipstreamError

# How much of a run each stage is, in percent, of some minutes' training.
_SHARES = {
    "example_gen": 1,
    "transform": 29,
    "statistics_gen": 3,
    "trainer": 45,
    "exporter": 6,
    "evaluator": 6,
    "infra_validator": 9,
    "pusher": 1,
}
_SECONDS = 1.0  # between two looks at the clock
_ERRORS = {2: SettingsError, 3: NotBlessedError}  # by exit code


def run(arguments: Sequence[str], *, progress: bool) -> str:
    """Run `skipstream` with `arguments`, which begin with `run` or a stage.

    Args:
        arguments: The command line.
        progress: Whether to show stages and a bar.

    Returns:
        The last line that it prints: what it has made.

    Raises:
        SkipstreamError: It failed; with the message that the command line shows.
        KeyboardInterrupt: It was interrupted, and can go on.
    """
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            # -P: what lies in the caller's directory may have our names.
            [sys.executable, "-P", "-m", "pipeline.child", *arguments, "--log-format", "json"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # A terminal's Ctrl-C reaches the caller alone.
        )
        with process, _Display(progress) as display:
            try:
                _follow(process, display)
            except BaseException:
                _end(process, display)
                raise
            code = process.wait()
        out.seek(0)
        printed = out.read().decode("utf-8", "surrogateescape").splitlines()
    if code == 0 and printed:
        return printed[-1]
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    message = display.failure or f"the run ended with code {code}: {display.last or 'no message'}"
    raise _ERRORS.get(code, SkipstreamError)(message)


def _follow(process: "subprocess.Popen[bytes]", display: "_Display") -> None:
    """Show what the process says until it says no more."""
    for line in _lines(process):
        display.show(line)


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Those of its stderr; and b"" as often as there is none."""
    assert process.stderr is not None
    text = b""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stderr, selectors.EVENT_READ)
        while True:
            if not ready.select(_SECONDS):
                yield b""
                continue
            chunk = os.read(process.stderr.fileno(), 1 << 16)
            *lines, text = (text + chunk).split(b"\n")
            yield from filter(None, lines)
            if not chunk:
                return


def _end(process: "subprocess.Popen[bytes]", display: "_Display") -> None:
    """End it so that it can go on; at a second Ctrl-C, at once."""
    process.send_signal(signal.SIGINT)
    try:
        _follow(process, display)
        process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


class _Display:
    """Lines for stages, and one bar below them. A context manager.

    Attributes:
        failure: The message that the command ended with, if it failed.
        last: The last line that was no record.
    """

    def __init__(self, shown: bool) -> None:
        self.failure: str | None = None
        self.last = ""
        self._shown = shown
        self._bar: Any = None
        self._done = 0.0

    def __enter__(self) -> "_Display":
        if self._shown:
            bar, in_notebook = _bar()
            self._bar = bar(
                total=100,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                disable=False if in_notebook else None,  # None: unless it is a terminal.
                leave=False,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, line: bytes) -> None:
        """Show a line of the command's stderr; b"": the time alone."""
        record = _record(line)
        event, stage = record.get("event"), record.get("stage", "")
        if record.get("severity") == "ERROR" and "exit_code" in record:
            self.failure = record["message"]
        elif not record and line:
            self.last = line.decode("utf-8", "replace")
            self.failure = self.failure or self.last.partition("skipstream: error: ")[2] or None
        if self._bar is None:
            return
        if event == "stage_started":
            self._bar.set_description_str(stage, refresh=False)
        elif event == "stage_finished":
            self._say(f"{stage:<15} {record['message'].removeprefix(stage).strip()}")
            self._done += _SHARES.get(stage, 0)
            self._bar.set_postfix_str("", refresh=False)
            self._move(0)
        elif event == "epoch_progress":
            rate = f"{record['message']}, loss {record['loss']:.3f}"
            self._bar.set_postfix_str(rate, refresh=False)
            self._move(record["share"] * _SHARES["trainer"])
        elif event == "transform_progress":
            self._move(record["tokenised"] / max(1, record["units"]) * _SHARES["transform"] / 2)
        elif event in ("notice", "chosen", "cut", "cold_start", "not_aligned"):
            self._say(record["message"])
        self._bar.refresh()

    def _move(self, within: float) -> None:
        self._bar.n = min(99.0, round(self._done + within, 1))

    def _say(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)


def _bar() -> tuple[Any, bool]:
    """The class of a progress bar, and whether this is a notebook."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Without ipywidgets it is a line of text.
        from tqdm.auto import tqdm
    return tqdm, "ipykernel" in sys.modules


def _record(line: bytes) -> dict[str, Any]:
    if line.startswith(b"{"):
        try:
            record = json.loads(line)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}
    return {}


def _end_with_caller() -> None:
    """Interrupt this process when its stdin ends: nobody waits for it any more."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> NoReturn:
    """The process that `run` starts."""
    from pipeline import cli, logs

    logs.level = logging.DEBUG  # Progress within an epoch.
    threading.Thread(target=_end_with_caller, daemon=True).start()
    cli.main()


if __name__ == "__main__":
    main()
