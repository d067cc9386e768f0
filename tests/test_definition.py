"""What the stages' fingerprints depend on."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import Examples, ExportedModel, Model
from components.defaults import Chosen, for_text
from components.settings import EvaluatorSettings, TrainerSettings
from pipeline.config import Settings
from pipeline.definition import Chain
from pipeline.runner import fingerprint_of


class Recorder:
    """A runner that builds nothing: what it is asked for has the fingerprint as its name."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def stage(self, name: Any, kind: Any, build: Any, **key: Any) -> Any:
        known = ("inputs", "settings", "identity", "neutral")
        return kind(Path(), fingerprint_of(name, **{part: key[part] for part in known}))

    def finished(self, *_: Any, **__: Any) -> None:
        return None


def fingerprint(output: Path, stage: str, settings: Settings) -> str:
    chain: Any = Chain(Recorder(output), settings)  # type: ignore[arg-type]
    training = Chosen(**{**settings.trainer.model_dump(), **for_text(1000, np.ones(9))})
    chain.__dict__ |= {"statistics": None, "before": None, "examples": Examples(Path(), "e")}
    chain.__dict__ |= {"training": training}
    if stage != "model":
        chain.__dict__ |= {"model": Model(Path(), "m"), "exported": ExportedModel(Path(), "x")}
    found: str = getattr(chain, stage).fingerprint
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "file.txt"
    path.parent.mkdir()
    path.write_text("one 2\nthree 4\n")
    return path


def test_start_vectors_count_by_their_content(tmp_path: Path, file: Path):
    def model(path: Path) -> str:
        settings = Settings(trainer=TrainerSettings(start_vectors=(str(path),), dimensions=1))
        return fingerprint(tmp_path, "model", settings)

    before = model(file)
    os.utime(file, (1, 1))
    assert model(file) == before
    moved = file.rename(tmp_path / "renamed.txt")
    assert model(moved) == before
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(moved.read_bytes()))
    assert model(packed) != before
    moved.write_text("one 2\nthree 5\n")
    assert model(moved) != before
    assert fingerprint(tmp_path, "model", Settings()) != before


@pytest.mark.parametrize(
    ("kind", "text"), [("word_pairs", "one two 3\n"), ("analogies", "one two three four\n")]
)
def test_files_of_scores_count_by_their_names_and_content(
    tmp_path: Path, file: Path, kind: str, text: str
):
    file.write_text(text)

    def evaluation(path: Path) -> str:
        settings = Settings(evaluator=EvaluatorSettings(**{kind: (str(path),)}))
        return fingerprint(tmp_path, "evaluation", settings)

    before = evaluation(file)
    os.utime(file, (1, 1))
    assert evaluation(file) == before
    moved = file.rename(tmp_path / file.name)
    assert evaluation(moved) == before
    moved.write_text(text.replace("one", "six"))
    assert evaluation(moved) != before
    moved.write_text(text)
    assert evaluation(moved) == before
    assert evaluation(moved.rename(tmp_path / "other.txt")) != before
