"""Stages that stand in for the real ones, and a chain of them that takes no time."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore

from components.artifacts import (
    VOCABULARY,
    Artifact,
    Evaluation,
    Examples,
    ExportedModel,
    Model,
    Statistics,
    write_json,
)
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.pusher import pusher
from components.vocabulary import Vocabulary
from pipeline import ahead, runner
from pipeline.config import Settings
from pipeline.definition import Chain
from pipeline.runner import Runner
from pipeline.store import Step, Store

STAGES = [
    "example_gen",
    "transform",
    "statistics_gen",
    "trainer",
    "exporter",
    "evaluator",
    "infra_validator",
    "pusher",
]
URL = "s3://bucket/output"


def unlisted(path: Path) -> Path:
    """An artifact whose manifest has no digests, as an earlier release's: a test changes files."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("files", "digest"):
        manifest.pop(name)
    write_json(path / "manifest.json", manifest)
    return path


def build(*, out: Any, work: Callable[[Any], Any], **_: Any) -> Any:
    """A stage that does what its step was given."""
    return work(out)


def step(kind: type[Artifact], work: Callable[[Any], Any], **options: Any) -> Step[Any]:
    """One of that stage."""
    given = {"work": work, **options.pop("given", {})}
    return Step(kind, "stages", given=given, **options)


def fill(out: Any) -> Any:
    """What a stage does that writes two files, one in a directory."""
    (out.path / "deep").mkdir()
    (out.path / "deep" / "data").write_text("123")
    (out.path / "text").write_text("the cat")
    return out.finish(documents=3)


def forbidden(out: Any) -> Any:
    """What a stage does that must not run."""
    raise AssertionError("the stage runs again")


def run(store: Store, made: Step[Any], run_id: str = "night", **options: Any) -> Any:
    """The artifact of a step, by a run of its own."""
    with Runner(store, Settings(), run_id=run_id) as runner:
        return runner.do(made, **options)


def _quick(*, out: Any, settings: Any = None, **_: Any) -> Any:
    """Write what the chain, the pusher and the commands read of an artifact."""
    summary: dict[str, Any] = {}
    if isinstance(out, Examples | Model):
        Vocabulary(("the", "cat"), np.array([30, 10])).save(out.path / VOCABULARY)
    if isinstance(out, Examples):
        split = {"documents": 2, "tokens": 40, "kept_tokens": 40, "files": {}}
        statistics = {"documents": 4, "splits": {"train": split, "eval": split}}
        write_json(out.path / "statistics.json", statistics)
    elif isinstance(out, Statistics):
        summary = {"accepted": True}
    elif isinstance(out, ExportedModel):
        (out.path / "saved_model").mkdir()
        (out.path / "saved_model" / "saved_model.pb").write_text(out.fingerprint)
    elif isinstance(out, Evaluation):
        report = {"blessed": True, "reasons": [], "held_out_loss": 2.5}
        write_json(out.path / "evaluation.json", report)
    return out.finish(settings, **summary)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all stages but the pusher take no time."""

    def module(name: str) -> Any:
        return pusher if name == pusher.__name__ else SimpleNamespace(build=_quick)

    for importing in (runner, ahead):
        monkeypatch.setattr(importing, "import_module", module)


def run_chain(store: Store, settings: Settings, command: str = "push") -> dict[str, Any]:
    """Run the chain up to a command; what run.json says of each stage then."""
    with Runner(store, settings) as run:
        Chain(run, settings).run(command)
    stages: dict[str, Any] = json.loads(store.place.read("run.json") or b"")["stages"]
    return stages


def place(kind: str, path: Path) -> Directory | Bucket:
    """An empty directory, or a bucket in memory."""
    return Directory(path) if kind == "directory" else Bucket(MemoryStore(), URL)
