"""The last look before a push: does the export answer as the trained tables say, on its own?"""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from components.artifacts import (
    VOCABULARY,
    Examples,
    ExportedModel,
    InfraBlessing,
    Model,
    write_json,
)
from components.errors import NotBlessedError, SkipstreamError
from components.exporter.alignment import served_buckets, served_vectors
from components.infra_validator import model_server
from components.infra_validator.cases import Answer, Case, cases
from components.infra_validator.process import FreshProcess
from components.infra_validator.tables import Tables
from components.phrases import FILE as PHRASES
from components.phrases import Phrases
from components.vocabulary import Vocabulary

TIMEOUT_SECONDS = 1800
_MOST_NAMED = 3  # Differences, in a message.


def build(
    exported: ExportedModel,
    model: Model,
    examples: Examples,
    *,
    process: FreshProcess | None = None,
    out: InfraBlessing,
) -> InfraBlessing:
    """Call every signature in a fresh process and compare the answers with the trained tables.

    Where `tensorflow_model_server` is on the PATH, it is asked, too.

    Writes validation.json: versions, seconds, calls and, of a candidate that is refused, every
    difference.

    Args:
        exported: The candidate.
        model: The tables that it was exported from.
        examples: Their vocabulary and phrases, and how the text was tokenised.
        process: The fresh process, if it has been started already.
        out: Where to write.

    Raises:
        NotBlessedError: The export does not load, a signature fails, or an answer differs.
        SkipstreamError: This machine kills what is asked, or is too slow.
    """
    types = Vocabulary.load(examples / VOCABULARY)
    vectors = served_vectors(exported, model)
    phrases = Phrases.load(examples / PHRASES)
    text = examples.settings
    tables = Tables(
        vectors,
        types,
        phrases,
        tokenizer=text.tokenizer,
        lowercase=text.lowered,
        buckets=served_buckets(exported, model),
    )
    asked = cases(tables)
    with process or FreshProcess() as fresh, TemporaryDirectory() as scratch:
        answers = _ask(fresh, exported, asked, Path(scratch))
        found = _differences(asked, _read(answers, Path(scratch)))
    server = model_server.find()
    if server and not found:
        with TemporaryDirectory() as scratch:
            answered = model_server.ask(server, exported.saved_model, asked, Path(scratch))
            found = [f"{server.name}: {text}" for text in _differences(asked, answered)]
    report = {
        "blessed": not found,
        "tensorflow": answers["tensorflow"],
        "model_server": str(server) if server else None,
        "load_seconds": round(answers["load_seconds"], 3),
        "calls": _seconds_by_signature(asked, answers),
        "differences": found,
    }
    write_json(out.path / "validation.json", report)
    if found:
        named, others = "; ".join(found[:_MOST_NAMED]), len(found) - _MOST_NAMED
        raise NotBlessedError(
            f"the export must answer as the trained tables say, but {named}"
            f"{f' (and {others} more)' if others > 0 else ''}: export again"
        )
    return out.finish(calls=len(asked), load_seconds=report["load_seconds"])


def _differences(asked: list[Case], answers: Iterable[Answer]) -> list[str]:
    return [
        f"{case.signature} of {case.name}: {difference}"
        for case, answer in zip(asked, answers, strict=True)
        for difference in case.differences(answer)
    ]


def _ask(
    process: FreshProcess, exported: ExportedModel, asked: list[Case], scratch: Path
) -> dict[str, Any]:
    requests = scratch / "requests.json"
    requests.write_text(
        json.dumps([{"signature": case.signature, "inputs": case.inputs} for case in asked]),
        encoding="utf-8",
    )
    saved_model, address = exported.saved_model.resolve(), f"{exported.address}/saved_model"
    try:
        done = process.ask(saved_model, requests, scratch, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise SkipstreamError(
            f"the export must answer within {TIMEOUT_SECONDS} seconds, {address} did not: "
            "look at the load of this machine and validate again"
        ) from error
    if done.returncode < 0:
        raise SkipstreamError(
            f"the export must answer in a process of its own, that of {address} was killed by "
            f"signal {-done.returncode}: look at the memory of this machine and validate again"
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise NotBlessedError(
            f"the export must load and answer in a process of its own, {address} ended with "
            f"code {done.returncode} ({lines[-1]}): export again"
        )
    answers: dict[str, Any] = json.loads((scratch / "answers.json").read_text(encoding="utf-8"))
    return answers


def _read(answers: dict[str, Any], scratch: Path) -> Iterator[Answer]:
    for number, answered in enumerate(answers["requests"]):
        numbers = {
            file.name.split(".")[1]: np.load(file) for file in scratch.glob(f"{number}.*.npy")
        }
        yield {**numbers, **answered["strings"]}


def _seconds_by_signature(asked: list[Case], answers: dict[str, Any]) -> dict[str, list[float]]:
    seconds = defaultdict(list)
    for case, answered in zip(asked, answers["requests"], strict=True):
        seconds[case.signature].append(round(answered["seconds"], 6))
    return dict(seconds)
