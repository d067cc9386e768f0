"""Runs stages: reuses what is finished, resumes what can be, and reports in run.json.

run.json is for people and monitors, metrics.prom has it for Prometheus, and nothing here reads them
back. Commands with one run ID are one run: stages that a scheduler runs one by one.
"""

import gc
import json
import resource
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar

from components import threads
from components.artifacts import Artifact
from components.errors import SkipstreamError
from components.settings import StageSettings
from pipeline import config, failures, interrupts, logs, metrics
from pipeline.ahead import Imports
from pipeline.store import KINDS, Step, Store, Use

A = TypeVar("A", bound=Artifact)
C = TypeVar("C")

REPORT = "run.json"
_COSTS = ("seconds", "peak_memory_bytes")
# The command that makes a stage's artifact; what no command is named for, any makes.
_COMMANDS = {
    "example_gen": "transform",
    "transform": "transform",
    "trainer": "train",
    "exporter": "train",
    "evaluator": "evaluate",
    "infra_validator": "validate",
    "pusher": "push",
}


class MissingStageError(SkipstreamError):
    """A single stage was asked for, and one before it is not finished."""


class Runner:
    """One run in one store, which it holds as a context manager.

    Attributes:
        store: Where artifacts lie.
        run_id: What logs, run.json, manifests and the record of a push name the run by.
        report: What run.json will hold.
    """

    def __init__(
        self,
        store: Store,
        settings: StageSettings,
        *,
        command: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Nothing is touched before the `with` statement.

        Args:
            store: Where artifacts lie.
            settings: All settings of the run, for run.json.
            command: The command whose stages may run; those of others have to be finished. None:
                every stage may run.
            run_id: None: the time and four random digits.
        """
        now = datetime.now(UTC)
        self.store = store
        self.run_id = run_id or f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        self.report: dict[str, Any] = {}
        self._settings = settings.model_dump(mode="json")
        self._command = command
        self._started = now
        self._start = time.monotonic()
        self._stack = ExitStack()
        self._imports = Imports()

    def __enter__(self) -> Self:
        """Hold the store.

        Raises:
            SkipstreamError: It cannot be written, another run holds it, or it is of another
                release.
        """
        self._stack.enter_context(self.store.hold(self.run_id))
        with ExitStack() as undo:
            undo.push(self._stack)
            self.report = {
                "run_id": self.run_id,
                "started": self._started.isoformat(timespec="seconds"),
                "seconds": 0.0,
                "settings": self._settings,
                "stages": self._stages_before(),
                "saved_model": None,
                "last_finished": self.store.ledger.last_finished,
            }
            undo.pop_all()
        logs.bind(run_id=self.run_id)
        logs.detail("run started", event="run_started", output=self.store.address)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say in run.json and metrics.prom how the run ended, and let go of the store."""
        with self._stack:
            end = "failed" if error else "finished"
            self.report[end] = datetime.now(UTC).isoformat(timespec="seconds")
            if not error and self._command in (None, "push"):  # The others push nothing.
                self.report["last_finished"] = self.report[end]
                self.store.ledger.last_finished = self.report[end]
            explained = failures.explain(error) if error else ("", 0)
            self.report["exit_code"] = explained[1] if explained else 1
            try:
                # A run that could not begin leaves the report of the one before.
                silent = error is not None and self.store.place.silent
                if not isinstance(error, MissingStageError) and not silent:
                    self._write_report()
                    content = metrics.exposition(self.report, {"output": self.store.address})
                    self.store.place.write(metrics.FILE, content)
                code, seconds = self.report["exit_code"], self.report["seconds"]
                logs.detail(f"run {end}", event="run_ended", exit_code=code, seconds=seconds)
            except (OSError, SkipstreamError):
                if not error:  # Else the error under way explains more than this one.
                    raise

    def enter(self, context: AbstractContextManager[C]) -> C:
        """Enter what is to be left when the run ends."""
        return self._stack.enter_context(context)

    def import_ahead(self, module: str) -> None:
        """Import a module beside the stage that runs now; the next one waits for that."""
        self._imports.begin(module)

    def do(
        self,
        step: Step[A],
        *,
        resumable: bool = False,
        again: bool = False,
        beside: Callable[[], None] | None = None,
    ) -> A:
        """The artifact of a stage: the finished one where there is one, else a new one.

        Args:
            step: The stage.
            resumable: Whether the stage goes on from what an interrupted run has left; else that
                is removed first.
            again: Whether to run it though it is finished.
            beside: Called if it has to run, when it has been imported: begins what a later stage
                needs.

        Raises:
            MissingStageError: It is not finished, and the command is not the one that runs it.
            SkipstreamError: The store cannot be read or written.
        """
        name = step.kind.STAGE
        finished = None if again else self.finished(step)
        if not finished and self._command not in (None, _COMMANDS.get(name, self._command)):
            raise MissingStageError(self._missing(step))
        record: dict[str, Any] = {"seconds": 0.0, "reused": finished is not None}
        before = self.report["stages"].pop(name, {})  # The last one listed is under way.
        self.report["stages"][name] = record
        record |= {
            "artifact": self.store.place.at(f"{name}/{step.fingerprint}"),
            "fingerprint": step.fingerprint,
        }
        if finished and before.get("fingerprint") == step.fingerprint:
            record |= {key: before[key] for key in (*_COSTS, "reused") if key in before}
        self._note(step)
        artifact = finished or self._run(step, record, resumable, again, beside)
        self.report["stages"][name] = artifact.summary | record
        if not finished:
            self._note(step)
            self._write_report()
        took = "reused" if finished else f"{record['seconds']:.1f} s"
        logs.say(
            f"{name:<15} {took:>8}  {_counts(artifact.summary)}",
            event="stage_finished",
            stage=name,
            **record,
            summary=artifact.summary,
        )
        return artifact

    def finished(self, step: Step[A]) -> A | None:
        """The finished artifact of a stage; None if `do` would have to run it."""
        if found := self.store.find(step.kind, step.fingerprint):
            return found
        made = self.store.unpublished(step)
        return made and self.store.publish(made)

    def _run(
        self,
        step: Step[A],
        record: dict[str, Any],
        resumable: bool,
        again: bool,
        beside: Callable[[], None] | None,
    ) -> A:
        name = step.kind.STAGE
        self._write_report()
        logs.say(f"{name:<15}  running", event="stage_started", stage=name)
        settings = {"settings": step.settings} if step.settings else {}
        start = time.monotonic()
        try:
            out = self.store.begin(step, self.run_id, resumable=resumable, again=again)
            try:
                self._imports.wait()
                build = import_module(step.module).build
                if "tensorflow" in sys.modules:
                    _keep_what_is_imported()
                threads.make_devices()  # What the stage imported has run nothing yet.
                if beside:  # Last: what it imports is seen half until it is there.
                    beside()
                made: A = build(**step.inputs, **settings, **step.given, out=out)
                interrupts.check()  # TensorFlow may have swallowed it while it traced a graph.
                return self.store.publish(made)
            finally:
                self.store.abandon(out)
        except BaseException as error:
            record["error"] = " ".join(str(error).split()) or type(error).__name__
            raise
        finally:
            record["seconds"] = round(time.monotonic() - start, 3)
            record["peak_memory_bytes"] = _peak_memory()
            self._note(step)

    def _note(self, step: Step[A]) -> None:
        """Remember in the store's ledger what this run uses, and what that took to make."""
        record = self.report["stages"][step.kind.STAGE]
        uses = self.store.ledger.uses
        before = uses.get(step.kind.STAGE)
        took, peak = record["seconds"], record.get("peak_memory_bytes")
        if record["reused"]:
            known = before if before and before.fingerprint == step.fingerprint else None
            took, peak = (known.took, known.peak_memory_bytes) if known else (None, None)
        uses[step.kind.STAGE] = Use(
            fingerprint=step.fingerprint,
            run=self.run_id,
            seconds=record["seconds"],
            reused=record["reused"],
            took=took,
            peak_memory_bytes=peak,
            error=record.get("error"),
        )

    def _stages_before(self) -> dict[str, Any]:
        """What earlier commands of this run reported of their stages."""
        found = {}
        for kind in KINDS:
            use = self.store.ledger.uses.get(kind.STAGE)
            if use and use.run == self.run_id and (artifact := self.store.last(kind)):
                found[kind.STAGE] = artifact.summary | {
                    "seconds": use.seconds,
                    "reused": use.reused,
                    "peak_memory_bytes": use.peak_memory_bytes,
                    "artifact": artifact.address,
                    "fingerprint": use.fingerprint,
                }
        return found

    def _write_report(self) -> None:
        self.store.check()
        self.report["seconds"] = round(time.monotonic() - self._start, 3)
        self.store.save_ledger()
        text = json.dumps(self.report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Names of files may hold any bytes.
        self.store.place.write(REPORT, text.encode("utf-8", "backslashreplace"))

    def _missing(self, step: Step[A]) -> str:
        stage, now = step.kind.STAGE, step.made_of["settings"]
        command = _COMMANDS[stage]
        message = (
            f"{self.store.address} has no finished {command} for these settings: "
            f"run 'skipstream {command}' with the same settings first"
        )
        last = self.store.last(step.kind)
        before = last and last.manifest["made_of"]["settings"]
        changed = config.differences({stage: before}, {stage: now}) if before and now else []
        return (
            f"{message} (changed since the last run: {', '.join(changed)})" if changed else message
        )


def _peak_memory() -> int:
    """Most bytes that this process, or one that it started and that ended, ever held."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return 1024 * max(resource.getrusage(one).ru_maxrss for one in who)  # Linux counts KiB.


@cache
def _keep_what_is_imported() -> None:
    """Once: to look for garbage in a million objects that stay takes 0.6 s each time."""
    gc.freeze()


def _counts(summary: dict[str, Any]) -> str:
    """The numbers of a summary, for a reader.

    >>> _counts({"documents": 12345, "loss": 1.23456, "seconds": 1.5, "skipped": {}})
    'documents 12,345, loss 1.235'
    """
    texts = []
    for name, value in summary.items():
        if isinstance(value, bool) or name == "seconds":
            continue
        if isinstance(value, int):
            texts.append(f"{name} {value:,}")
        elif isinstance(value, float):
            texts.append(f"{name} {value:,.0f}" if abs(value) >= 1000 else f"{name} {value:.4g}")
    return ", ".join(texts)
