"""What the sections of the page say, as plain values for the template."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from components.artifacts import Model, by_reason
from components.names import cut, shown
from components.settings import StageSettings
from pipeline.config import Settings
from pipeline.report import checks, text
from pipeline.report.facts import Facts, Stage
from pipeline.store import SERVING

_POINTS = 160  # Of a curve of Zipf's law.
_TOP_TOKENS = 40
_SCRIPTS = 8


def verdict(facts: Facts) -> dict[str, Any]:
    """Whether the model is served, and why: `state` is good, bad or open."""
    statistics, evaluation = facts.statistics, facts.evaluation
    rows: list[checks.Check] = []
    if statistics:
        limits = facts.stages["statistics_gen"].manifest["made_of"]["settings"]
        rows += checks.of_corpus(statistics, limits)
    if evaluation:
        rows += checks.of_model(evaluation)
    if calls := facts.stages.get("infra_validator"):
        answered = calls.manifest.get("summary", {}).get("calls")
        rows.append(
            checks.Check(
                "Requests that a fresh process answers as trained",
                "not all" if answered is None else f"{answered:,} of {answered:,}",
                "all",
                "",
                answered is not None,
            )
        )
    return _state(facts) | {"rows": rows}


def _state(facts: Facts) -> dict[str, Any]:
    if facts.statistics and not facts.statistics["accepted"]:
        reasons = facts.statistics["reasons"]
        return _said("bad", "Refused", "The corpus was not trained on.", reasons)
    refused = facts.evaluation["reasons"] if facts.evaluation else []
    if pushed := facts.pushed:
        version = f"Version {pushed.version} is what is served."
        if pushed.summary["forced"]:
            return _said("bad", "Pushed by force", version, refused)
        return _said("good", "Blessed", version, [])
    failed = next((stage for stage in facts.stages.values() if stage.use.error), None)
    if refused:
        return _said("bad", "Refused", "The model is not served.", refused)
    if failed:
        error = [failed.use.error]
        if failed.name in ("infra_validator", "pusher"):
            return _said("bad", "Refused", "The model is not served.", error)
        return _said("bad", "Failed", f"The run ended in {failed.name}.", error)
    *_, last = facts.stages
    blessed = facts.evaluation is not None
    return _said("open", "Blessed" if blessed else "Unfinished", f"The run came to {last}.", [])


def _said(state: str, word: str, sentence: str, reasons: Sequence[Any]) -> dict[str, Any]:
    return {"state": state, "word": word, "sentence": sentence, "reasons": list(reasons)}


def made(facts: Facts, words: Iterable[str]) -> dict[str, Any]:
    """What was made, and how to use it. `words`: to ask for, the best first."""
    statistics = facts.examples.statistics if facts.examples else {}
    stages = facts.stages.values()
    times = [stage.use.took for stage in stages]
    finished = max((stage.manifest.get("finished", "") for stage in stages), default="")
    pushed = facts.pushed
    place, model = "", ""
    if pushed:
        destinations = facts.destinations
        place = f"{destinations[-1] if destinations else SERVING}/{pushed.version}"
        place = facts.at(place)
        model = facts.address
    elif facts.exported:
        place = model = f"{facts.exported.address}/saved_model"
    word = next(filter(_can_be_asked, words), "WORD")
    evaluation = facts.evaluation or {}
    return {
        "words": statistics.get("vocabulary"),
        "documents": statistics.get("documents"),
        "tokens": statistics.get("tokens"),
        "dimensions": facts.model.dimensions if facts.model else None,
        "files": facts.stages["example_gen"].manifest["summary"]["files"],
        "bytes": facts.stages["example_gen"].manifest["summary"]["bytes"],
        "took": sum(time for time in times if time is not None) if None not in times else None,
        "loss": evaluation.get("loss"),
        "loss_of": evaluation.get("loss_of"),
        "frequency_loss": evaluation.get("frequency_loss"),
        "finished": finished,
        "place": place,
        "ask": shlex.join(["skipstream", "neighbors", model, word]) if model else "",
        "export": shlex.join(["skipstream", "export", model, "--format", "word2vec-text"])
        + " --output vectors.vec"
        if model
        else "",
    }


def _can_be_asked(word: str) -> bool:
    r"""Whether it stands in a command line as it is, where it is no option.

    >>> [_can_be_asked(word) for word in ("it's", "--help", "a" * 2000, "a\x1b")]
    [True, False, False, False]
    """
    return not word.startswith("-") and cut(word) == word and word.isprintable()


def learning(facts: Facts) -> dict[str, Any] | None:
    """The losses of each epoch."""
    if not (stage := facts.stages.get(Model.STAGE)) or not stage.artifact:
        return None
    history = stage.manifest["summary"]["history"]
    evaluation = facts.evaluation
    # Only where the gate judged by it is it the loss of pairs like those of the curve.
    frequency = evaluation["frequency_loss"] if evaluation else None
    return {
        "history": history,
        "summary": stage.manifest["summary"],
        "scores": list(_scores(evaluation)) if evaluation else [],
        "chart": {
            "training": [[one["epoch"], one["loss"]] for one in history],
            "held_out": [
                [one["epoch"], one["held_out_loss"]]
                for one in history
                if one.get("held_out_loss") is not None
            ],
            "frequency": frequency,
        },
    }


def _scores(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, int, int]]:
    """Name, score, questions of which all words are known, and all questions, of each file."""
    for kind, score, name in (
        ("word_pairs", "spearman", "Spearman"),
        ("analogies", "accuracy", "right"),
    ):
        for file, found in evaluation[kind].items():
            said = "no score" if found[score] is None else f"{found[score]:.3f} {name}"
            yield shown(file), said, found["covered"], found["total"]


def corpus(facts: Facts) -> dict[str, Any] | None:
    """The text in numbers."""
    if not facts.statistics:
        return None
    found = facts.statistics["corpus"]
    documents = {one["up_to"]: one["documents"] for one in found["document_lengths"]}
    bounds = []
    bound = min(documents, default=1)
    while bound <= max(documents, default=0):
        bounds.append(bound)
        bound *= 2
    scripts = [
        (one["script"] or "no letter", one["share"], one["types"])
        for one in found["scripts"][:_SCRIPTS]
    ]
    if rest := found["scripts"][_SCRIPTS:]:
        share, types = (sum(one[key] for one in rest) for key in ("share", "types"))
        scripts.append((f"{len(rest)} more", share, types))
    now, *before = facts.counts()
    files = [(shown(one["path"]), one["size"]) for one in facts.corpus["files"]]
    return {
        "facts": found,
        "lengths": [(_bounds(bound), documents.get(bound, 0)) for bound in bounds],
        "scripts": scripts,
        "drops": [
            (text.phrase(name), text.phrase(reason), count)
            for name, reasons in by_reason(found).items()
            for reason, count in reasons.items()
            if count
        ],
        "top": [(one["token"], one["count"]) for one in found["top_tokens"][:_TOP_TOKENS]],
        "files": files[:20],
        "more_files": max(0, len(files) - 20),
        "charts": {
            "zipf": {
                "now": _zipf(now),
                "before": _zipf(before[0]) if before else None,
                "ideal": [[rank, _digits(now[0] / sum(now) / rank)] for rank in (1, len(now))],
            },
            "lengths": {
                "labels": [_bounds(bound) for bound in bounds],
                "documents": [documents.get(bound, 0) for bound in bounds],
            },
        },
    }


def _bounds(bound: int) -> str:
    first = bound // 2 + 1
    return f"{bound:,}" if first >= bound else f"{first:,}–{bound:,}"


def _zipf(counts: Sequence[int]) -> list[list[float]]:
    """Shares at ranks that are evenly spread on a logarithmic axis.

    >>> _zipf([6, 3, 1])
    [[1, 0.6], [2, 0.3], [3, 0.1]]
    """
    total = sum(counts)
    ranks = np.unique(np.geomspace(1, len(counts), _POINTS).round().astype(int)).tolist()
    return [[rank, _digits(counts[rank - 1] / total)] for rank in ranks]


def _digits(share: float) -> float:
    return float(f"{share:.4g}")


def moved(facts: Facts) -> dict[str, Any] | None:
    """What is new since the version before: of the model, and of the text."""
    model = facts.evaluation["before"] if facts.evaluation else None
    drift = facts.statistics["drift"] if facts.statistics else None
    if not model and not drift:
        return None
    return {"model": model, "corpus": drift}


def costs(facts: Facts) -> dict[str, Any]:
    """Time and memory of each stage."""
    most = max((stage.use.took or 0 for stage in facts.stages.values()), default=0)
    rows = []
    for stage in facts.stages.values():
        took = stage.use.took
        part = 100 * took / most if took and most else 0
        rows.append((stage.name, took, part, stage.use.peak_memory_bytes, _how(stage)))
    known = [row[1] for row in rows]
    return {"rows": rows, "total": sum(known) if None not in known else None}


def _how(stage: Stage) -> str:
    if stage.use.error:
        return "failed"
    if not stage.artifact:
        return "not finished"
    return "reused" if stage.use.reused else "made"


def settings(facts: Facts) -> list[tuple[str, str, str, str]]:
    """Name, value, default and meaning of the settings that are not the defaults."""
    found = []
    for name, stage in facts.stages.items():
        values = (stage.manifest.get("made_of") or {}).get("settings")
        table = getattr(Settings(), name, None)
        if values and isinstance(table, StageSettings):
            defaults = table.model_dump(mode="json")
            for field, definition in type(table).model_fields.items():
                if field in values and values[field] != defaults[field]:
                    unset = defaults[field] is None
                    default = "unset: chosen by the run" if unset else text.value(defaults[field])
                    meaning = definition.description or ""
                    found.append((f"{name}.{field}", text.value(values[field]), default, meaning))
    return found


def origin(facts: Facts) -> Iterator[dict[str, Any]]:
    """What each artifact was made of, from its manifest."""
    for stage in facts.stages.values():
        if stage.artifact:
            made_of = stage.manifest["made_of"]
            yield {
                "stage": stage.name,
                "address": stage.artifact.address,
                "fingerprint": stage.artifact.fingerprint,
                "finished": stage.manifest.get("finished"),
                "run": stage.manifest.get("run"),
                "inputs": [
                    (name, f"{one['stage']}/{one['fingerprint']}")
                    for name, one in made_of.get("inputs", {}).items()
                ],
                "settings": [
                    (name, text.value(one)) for name, one in (made_of["settings"] or {}).items()
                ],
                "content": text.value(made_of["content"]) if made_of.get("content") else "",
                "code": made_of.get("code", ""),
                "libraries": list(made_of.get("libraries", {}).items()),
            }


def probes(evaluation: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[str, float]]]]:
    """A few words with their nearest: what the page shows on paper and without scripts."""
    found = evaluation["neighbors"] if evaluation else {}
    return [(word, [(other, cosine) for other, cosine in near]) for word, near in found.items()]
