"""Keras does without what only its wrappers and plots use; all others have it."""

import importlib.util
import sys

import pytest
from keras.src.wrappers import sklearn_wrapper

from components.lean_keras import SPARED


def test_keras_has_not_found_them() -> None:  # Installed by conftest, as by the command.
    assert sklearn_wrapper.sklearn is None


@pytest.mark.parametrize("name", SPARED)
def test_others_may_import_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=name):
        exec(f"import {name}", {"__name__": "keras.src.any"})
    if name == "sklearn":  # The one that is a dependency of ours.
        assert importlib.util.find_spec(name)
