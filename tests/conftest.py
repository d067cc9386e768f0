"""Data that is too large for the repository; the tests that want it skip loudly without it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `corpora/` and `eval/`: SKIPSTREAM_SHARED, or ../shared of the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("SKIPSTREAM_SHARED", default))
    if not (path / "corpora").is_dir():
        pytest.skip(f"no corpora in {path}: set SKIPSTREAM_SHARED to the folder that has them")
    return path
