"""Runs stages: reuses what is finished, resumes what can be, and keeps run.json.

Under the output directory lie `<stage>/<fingerprint>/`, an artifact each, and `run.json`, the
report of the last run, which `metrics.prom` has for Prometheus. Commands with one run ID are one
run: stages that a scheduler runs one by one. A fingerprint stands for everything an artifact
depends on: the stage's settings, the artifacts it reads, our code and the versions of the libraries
that compute. `digests/` remembers what the given files hold (see `components.contents`).
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar

from components.artifacts import Artifact, write_json
from components.errors import SettingsError, SkipstreamError
from components.identity import code_identity
from components.names import encodable
from components.settings import StageSettings
from pipeline import config, failures, interrupts, logs, metrics

A = TypeVar("A", bound=Artifact)

# The directories that `skipstream gc` looks through.
Stage = Literal[
    "example_gen",
    "transform",
    "statistics_gen",
    "trainer",
    "exporter",
    "evaluator",
    "infra_validator",
    "pusher",
]
REPORT = "run.json"


class MissingStageError(SkipstreamError):
    """A single stage was asked for, and one before it is not finished."""


class Runner:
    """One run in one output directory, which it locks as a context manager.

    Attributes:
        output: The output directory, absolute.
        report: What run.json holds.
    """

    def __init__(
        self,
        output: Path,
        settings: StageSettings,
        *,
        command: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Nothing is touched before the `with` statement.

        Args:
            output: The output directory; made if it does not exist.
            settings: All settings of the run, for run.json.
            command: The command whose stages may be built; those of others have to be finished.
                None: every stage may be built.
            run_id: What logs, run.json and the record of a push name the run by; None: the time
                and four random digits.
        """
        self.output = Path(os.path.abspath(output))
        self.report: dict[str, Any] = {}
        self._settings = settings.model_dump(mode="json")
        self._command = command
        self._run_id = run_id
        self._lock: IO[str] | None = None
        self._start = 0.0

    def __enter__(self) -> Self:
        """Lock the output directory.

        Raises:
            SettingsError: Its name is not UTF-8, which TensorFlow cannot write to.
            SkipstreamError: It cannot be written, or another run holds it.
        """
        if encodable(str(self.output)) != str(self.output):
            raise SettingsError(
                f"--output must have a name in UTF-8, got {self.output}: name another directory"
            )
        self._lock = lock(self.output)
        self._start = time.monotonic()
        now = datetime.now(UTC)
        last = _last_report(self.output)
        run_id = self._run_id or f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        # What a command reports is kept by the next one of the same run.
        before = last.get("stages", {})
        stages = before if last.get("run_id") == run_id else {}
        self.report = {
            "run_id": run_id,
            "started": now.isoformat(timespec="seconds"),
            "seconds": 0.0,
            "settings": self._settings,
            "stages": stages,
            # `gc` spares what the last run wrote that came to a stage which this one does not.
            "earlier": {**last.get("earlier", {}), **_fingerprints(before)},
            "saved_model": None,
            # All that were ever pushed to, the last one last: `gc` spares what they serve.
            "destinations": last.get("destinations", []),
            "last_finished": last.get("last_finished"),
        }
        logs.bind(run_id=self.report["run_id"])
        logs.detail("run started", event="run_started", output=str(self.output))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say in run.json and metrics.prom how the run ended, and release the lock."""
        end = "failed" if error else "finished"
        self.report[end] = datetime.now(UTC).isoformat(timespec="seconds")
        if not error and self._command in (None, "push"):  # The others push nothing.
            self.report["last_finished"] = self.report[end]
        explained = failures.explain(error) if error else ("", 0)
        self.report["exit_code"] = explained[1] if explained else 1
        try:
            # A run that could not begin leaves the report of the one before.
            if not isinstance(error, MissingStageError):
                self._write_report()
                metrics.write(self.output, self.report)
            code, seconds = self.report["exit_code"], self.report["seconds"]
            logs.detail(f"run {end}", event="run_ended", exit_code=code, seconds=seconds)
        except OSError:
            if not error:  # Else the error under way explains more than this one.
                raise
        finally:
            if self._lock:
                self._lock.close()

    def stage(
        self,
        name: Stage,
        kind: type[A],
        build: Callable[[A], A],
        *,
        command: str | None,
        inputs: Sequence[Artifact] = (),
        settings: StageSettings | None = None,
        identity: Any = None,
        neutral: Collection[str] = (),
        resumable: bool = False,
        intact: Callable[[A], bool] = lambda artifact: True,
    ) -> A:
        """The artifact of a stage: the finished one where there is one, else a new one.

        Args:
            name: The stage's name, and its directory's.
            kind: The artifact's class.
            build: Fills the directory it is handed, and finishes the artifact.
            command: The command that builds this stage alone; None: a stage so quick that any
                command builds it that needs it.
            inputs: The artifacts that `build` reads.
            settings: The settings that `build` reads.
            identity: Whatever else the content depends on, as JSON.
            neutral: Settings that leave the content as it is.
            resumable: Whether `build` goes on with what an interrupted run left.
            intact: Whether a finished artifact is still good.

        Raises:
            SkipstreamError: The stage is not to be built by this run, and is not finished.
        """
        interrupts.check()
        fingerprint = fingerprint_of(
            name, inputs=inputs, settings=settings, identity=identity, neutral=neutral
        )
        path = self.output / name / fingerprint
        record: dict[str, Any] = {"seconds": 0.0, "reused": True}
        record |= {"artifact": str(path), "fingerprint": fingerprint}
        before = self.report["stages"].pop(name, {})  # The last one listed is under way.
        self.report["stages"][name] = record
        artifact = kind.load(path)
        reused = artifact is not None and intact(artifact)
        if artifact is None or not reused:
            if command and self._command not in (None, command):
                raise MissingStageError(self._missing(command))
            record["reused"] = False
            self._write_report()
            logs.say(f"{name:<15}  running", event="stage_started", stage=name)
            if path.exists() and not (resumable and artifact is None):
                shutil.rmtree(path)
            path.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            try:
                artifact = build(kind(path, fingerprint))
            except BaseException as error:
                record["error"] = " ".join(str(error).split()) or type(error).__name__
                raise
            finally:
                record["seconds"] = round(time.monotonic() - start, 3)
            interrupts.check()  # TensorFlow may have swallowed it while it traced a graph.
        self.report["stages"][name] = artifact.summary | record
        if reused and before.get("fingerprint") == fingerprint:
            self.report["stages"][name] |= {key: before[key] for key in ("seconds", "reused")}
        if not reused:
            self._write_report()
        took = "reused" if reused else f"{record['seconds']:.1f} s"
        logs.say(
            f"{name:<15} {took:>8}  {_counts(artifact.summary)}",
            event="stage_finished",
            stage=name,
            **record,
            summary=artifact.summary,
        )
        return artifact

    def finished(self, name: Stage, kind: type[A], **key: Any) -> A | None:
        """The finished artifact of a stage; None if `stage` would have to build it.

        Args:
            name: The stage's name.
            kind: The artifact's class.
            key: The arguments of `fingerprint_of`.
        """
        return kind.load(self.output / name / fingerprint_of(name, **key))

    def _write_report(self) -> None:
        self.report["seconds"] = round(time.monotonic() - self._start, 3)
        write_json(self.output / REPORT, self.report)

    def _missing(self, command: str) -> str:
        message = (
            f"{self.output} has no finished {command} for these settings: "
            f"run 'skipstream {command}' with the same settings first"
        )
        before = _last_report(self.output).get("settings")
        if not before:
            return message
        relevant = {stage: self._settings.get(stage, {}) for stage in self.report["stages"]}
        changed = config.differences(before, relevant)
        return (
            f"{message} (changed since the last run: {', '.join(changed)})" if changed else message
        )


def fingerprint_of(
    name: Stage,
    *,
    inputs: Sequence[Artifact] = (),
    settings: StageSettings | None = None,
    identity: Any = None,
    neutral: Collection[str] = (),
) -> str:
    """The fingerprint of a stage's artifact; the arguments are those of `Runner.stage`."""
    key = {
        "stage": name,
        "settings": settings.model_dump(mode="json", exclude=set(neutral)) if settings else None,
        "inputs": [artifact.fingerprint for artifact in inputs],
        "identity": identity,
        "code": code_identity(),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def lock(output: Path) -> IO[str]:
    """The lock of an output directory, which is made if it does not exist; closing releases it.

    Raises:
        SkipstreamError: It cannot be written, or another process holds it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise SkipstreamError(
            f"output directory {output} cannot be written ({error.strerror}): "
            "choose another with --output"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise SkipstreamError(
            f"output directory {output} is in use by process {holder}: "
            "wait for it, or choose another with --output"
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _last_report(output: Path) -> dict[str, Any]:
    """run.json; empty where there is none to be read: what it is asked for are hints."""
    try:
        report = json.loads((output / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _fingerprints(stages: Any) -> dict[str, Any]:
    """Of the records of a report, whatever else it may hold."""
    records = stages.items() if isinstance(stages, dict) else ()
    return {
        name: record["fingerprint"]
        for name, record in records
        if isinstance(record, dict) and "fingerprint" in record
    }


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
