"""Keras does without what only its wrappers and plots use; all others have it."""

import sys
from pathlib import Path

import pytest
from keras.src.wrappers import sklearn_wrapper

from components.lean_keras import SPARED


def test_keras_has_not_found_them() -> None:  # Installed by conftest, as by the command.
    assert sklearn_wrapper.sklearn is None


@pytest.mark.parametrize("name", SPARED)
def test_others_may_import_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}.py").write_text("here = True")  # It may not be installed.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
    with pytest.raises(ModuleNotFoundError, match=name):
        exec(f"import {name}", {"__name__": "keras.src.any"})
    exec(f"import {name}; assert {name}.here", {"__name__": "openTSNE.any"})
