"""A run's numbers as Prometheus' textfile collector takes them: OUT/metrics.prom.

Each metric is a gauge with the output directory as a label, so that one host can have several. The
numbers of a stage's summary are `skipstream_<stage>_<name>`; those by reason, or by file of scores,
have that as the label `name`.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

FILE = "metrics.prom"


def exposition(report: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    r"""The numbers of `report` in Prometheus' text format, each with `labels`.

    >>> print(exposition({
    ...     "run_id": "nightly", "started": "2026-01-01T00:00:00+00:00", "seconds": 9.5,
    ...     "exit_code": 0, "last_finished": None,
    ...     "stages": {
    ...         "trainer": {"seconds": 7.25, "reused": False, "loss": 2.5, "device": "cpu"},
    ...         "evaluator": {"seconds": 1.5, "reused": True,
    ...                       "word_pairs": {"ws353": {"spearman": 0.6, "covered": 340}}},
    ...     },
    ... }, {"output": 'a"b'}), end="")
    # HELP skipstream_run_info Which run the other numbers are of.
    # TYPE skipstream_run_info gauge
    skipstream_run_info{output="a\"b",run_id="nightly"} 1
    # HELP skipstream_run_start_timestamp_seconds When the run began, in seconds since 1970.
    # TYPE skipstream_run_start_timestamp_seconds gauge
    skipstream_run_start_timestamp_seconds{output="a\"b"} 1767225600.0
    # HELP skipstream_run_duration_seconds Seconds that the last command took.
    # TYPE skipstream_run_duration_seconds gauge
    skipstream_run_duration_seconds{output="a\"b"} 9.5
    # HELP skipstream_run_exit_code Of the last command: 0 done, 3 a gate refused, else failed.
    # TYPE skipstream_run_exit_code gauge
    skipstream_run_exit_code{output="a\"b"} 0
    # HELP skipstream_stage_duration_seconds Seconds that the stage took; 0: done before the run.
    # TYPE skipstream_stage_duration_seconds gauge
    skipstream_stage_duration_seconds{output="a\"b",stage="trainer"} 7.25
    skipstream_stage_duration_seconds{output="a\"b",stage="evaluator"} 1.5
    # HELP skipstream_stage_reused Whether the stage was finished before the run.
    # TYPE skipstream_stage_reused gauge
    skipstream_stage_reused{output="a\"b",stage="trainer"} 0
    skipstream_stage_reused{output="a\"b",stage="evaluator"} 1
    # HELP skipstream_trainer_loss The stage's loss, as in run.json.
    # TYPE skipstream_trainer_loss gauge
    skipstream_trainer_loss{output="a\"b"} 2.5
    # HELP skipstream_evaluator_word_pairs_spearman The stage's word_pairs_spearman, as in run.json.
    # TYPE skipstream_evaluator_word_pairs_spearman gauge
    skipstream_evaluator_word_pairs_spearman{output="a\"b",name="ws353"} 0.6
    # HELP skipstream_evaluator_word_pairs_covered The stage's word_pairs_covered, as in run.json.
    # TYPE skipstream_evaluator_word_pairs_covered gauge
    skipstream_evaluator_word_pairs_covered{output="a\"b",name="ws353"} 340
    """
    families: dict[str, list[str]] = {}

    def add(name: str, text: str, value: float, /, **more: str) -> None:
        full = f"skipstream_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}"
        head = [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
        pairs = ",".join(f'{k}="{_escape(v)}"' for k, v in {**labels, **more}.items())
        number = int(value) if isinstance(value, bool) else value
        families.setdefault(full, head).append(f"{full}{{{pairs}}} {number}")

    add("run_info", "Which run the other numbers are of.", 1, run_id=report["run_id"])
    start = "When the run began, in seconds since 1970."
    add("run_start_timestamp_seconds", start, _timestamp(report["started"]))
    if last := report["last_finished"]:
        text = "When a run last ended well, in seconds since 1970."
        add("last_success_timestamp_seconds", text, _timestamp(last))
    add("run_duration_seconds", "Seconds that the last command took.", report["seconds"])
    how = "Of the last command: 0 done, 3 a gate refused, else failed."
    add("run_exit_code", how, report["exit_code"])
    for stage, record in report["stages"].items():
        took = "Seconds that the stage took; 0: done before the run."
        add("stage_duration_seconds", took, record["seconds"], stage=stage)
        reused = "Whether the stage was finished before the run."
        add("stage_reused", reused, record["reused"], stage=stage)
        for name, number, more in _numbers(record):
            if name not in ("seconds", "reused"):
                add(f"{stage}_{name}", f"The stage's {name}, as in run.json.", number, **more)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Names, numbers and labels.

    >>> record = {"files": 2, "skipped": {"empty": 1}, "analogies": {"google": {"accuracy": 0.3}}}
    >>> for found in _numbers(record):
    ...     print(*found)
    files 2 {}
    skipped 1 {'name': 'empty'}
    analogies_accuracy 0.3 {'name': 'google'}
    """
    for name, value in record.items():
        if isinstance(value, int | float):
            yield name, value, {}
        elif isinstance(value, Mapping):
            for label, part in value.items():
                inner = part if isinstance(part, Mapping) else {"": part}
                named = {f"{name}_{key}" if key else name: number for key, number in inner.items()}
                yield from ((key, number, {"name": label}) for key, number, _ in _numbers(named))


def _timestamp(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
