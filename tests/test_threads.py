"""How many threads there are."""

import os
from pathlib import Path

import pytest

from components import threads


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("400000 100000", 4),
        ("9900000 100000", 6),  # Not more than the process may run on.
        ("max 100000", 6),
        ("", 6),
        (None, 6),
    ],
)
def test_a_container_s_share_of_cpus_counts(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(threads, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert threads.cpus() == expected


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (3, {}, ("3", "1")),
        (None, {}, ("5", "1")),
        (3, {"TF_NUM_INTEROP_THREADS": "2"}, ("2", "1")),
        (None, {"TF_NUM_INTRAOP_THREADS": "4"}, ("5", "4")),
    ],
)
def test_what_the_environment_says_wins(
    given: int | None,
    variables: dict[str, str],
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "cpus", lambda: 5)
    names = ("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    threads.limit(given)
    assert tuple(os.environ[name] for name in names) == expected


def test_devices_stay_as_they_are_where_tensorflow_runs_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = threads.devices("CPU")  # It runs now.
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", str(len(before) + 3))
    threads.make_devices()
    assert threads.devices("CPU") == before
