"""Processes that start with everything imported, which takes seconds in a process of its own."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(  # It cannot find modules of tests.
    ["components.trainer.cluster.hand", "components.transform.transform", "pipeline.cli"]
)


def start(log: Path, work: Callable[..., Any], *arguments: object) -> BaseProcess:
    """A process that calls `work`, forked from one in which TensorFlow has run nothing yet.

    Args:
        log: Receives what it says.
        work: A function of a module.
        arguments: Of `work`.
    """
    process = _SERVER.Process(target=_call, args=(log, work, arguments))
    process.start()
    return process


def _call(log: Path, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    for name in [name for name in os.environ if name.startswith("TF_NUM")]:
        del os.environ[name]  # How many threads there are is for `work` to say.
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    work(*arguments)
