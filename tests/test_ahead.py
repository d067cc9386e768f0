"""Modules that are imported beside a stage."""

import sys
from pathlib import Path

import pytest

from pipeline.ahead import Imports


def test_a_module_is_there_when_it_was_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.1)\ndone = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    imports = Imports()
    imports.begin("slow_module")
    imports.wait()
    assert sys.modules["slow_module"].done


def test_a_module_that_fails_fails_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text("raise RuntimeError('no such library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    imports = Imports()
    imports.begin("failing_module")
    imports.wait()
    with pytest.raises(RuntimeError, match="no such library"):
        __import__("failing_module")
