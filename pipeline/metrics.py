"""A run's numbers as Prometheus' textfile collector takes them: OUT/metrics.prom.

Each metric is a gauge with the output directory as a label, so that one host can have several. The
numbers of a stage's summary are `skipstream_<stage>_<name>`; those by reason, or by file of scores,
have that as the label `name`.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

FILE = "metrics.prom"


def exposition(report: Mapping[str, Any], labels: Mapping[str, str]) -> bytes:
    r"""The numbers of `report`, the content of run.json, in Prometheus' text format.

    Args:
        report: Numbers of the run, and of each stage's summary.
        labels: What each sample carries.

    >>> text = exposition({
    ...     "run_id": "nightly", "started": "2026-01-01T00:00:00+00:00", "seconds": 9.5,
    ...     "exit_code": 0, "last_finished": None,
    ...     "stages": {
    ...         "trainer": {"seconds": 7.25, "reused": False, "loss": 2.5, "device": "cpu"},
    ...         "evaluator": {"seconds": 1.5, "reused": True, "word_pairs": {"ws353": {"of": 3}}},
    ...     },
    ... }, {"output": 'a"b'}).decode()
    >>> print(*(line for line in text.splitlines() if line[0] != "#"), sep="\n")
    skipstream_run_info{output="a\"b",run_id="nightly"} 1.0
    skipstream_run_start_timestamp_seconds{output="a\"b"} 1.7672256e+09
    skipstream_run_duration_seconds{output="a\"b"} 9.5
    skipstream_run_exit_code{output="a\"b"} 0.0
    skipstream_stage_duration_seconds{output="a\"b",stage="trainer"} 7.25
    skipstream_stage_duration_seconds{output="a\"b",stage="evaluator"} 1.5
    skipstream_stage_reused{output="a\"b",stage="trainer"} 0.0
    skipstream_stage_reused{output="a\"b",stage="evaluator"} 1.0
    skipstream_trainer_loss{output="a\"b"} 2.5
    skipstream_evaluator_word_pairs_of{name="ws353",output="a\"b"} 3.0
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}

    def add(name: str, text: str, value: float, /, **more: str) -> None:
        full = f"skipstream_{name}"
        if full not in gauges:
            gauges[full] = Gauge(full, text, [*labels, *more], registry=registry)
        gauges[full].labels(**labels, **more).set(value)

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
    return generate_latest(registry)


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
