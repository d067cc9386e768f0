"""Benchmarks and campaigns, which the suite does not run, still find all that they import."""

import runpy
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPTS = [
    TESTS / "campaigns" / "buckets.py",
    TESTS / "campaigns" / "load.py",
    TESTS / "faults" / "__main__.py",
    *sorted((TESTS / "benchmarks").glob("*.py")),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    runpy.run_path(str(script), run_name="imported")
