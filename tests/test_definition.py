"""What the stages' fingerprints depend on."""

import os
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import Examples, ExportedModel, Model
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
    chain.__dict__ |= {"statistics": None, "before": None, "examples": Examples(Path(), "e")}
    if stage != "model":
        chain.__dict__ |= {"model": Model(Path(), "m"), "exported": ExportedModel(Path(), "x")}
    found: str = getattr(chain, stage).fingerprint
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "file.txt"
    path.parent.mkdir()
    path.write_text("one two 3\n")
    return path


def test_start_vectors_count_by_their_content(tmp_path: Path, file: Path):
    def model(path: Path) -> str:
        settings = Settings(trainer=TrainerSettings(start_vectors=(str(path),)))
        return fingerprint(tmp_path, "model", settings)

    before = model(file)
    os.utime(file, (1, 1))
    assert model(file) == before
    moved = file.rename(tmp_path / "renamed.txt")
    assert model(moved) == before
    assert model(moved.rename(tmp_path / "renamed.gz")) != before  # It would be unpacked.
    (tmp_path / "renamed.gz").rename(moved).write_text("one two 4\n")
    assert model(moved) != before
    assert fingerprint(tmp_path, "model", Settings()) != before


@pytest.mark.parametrize("kind", ["word_pairs", "analogies"])
def test_files_of_scores_count_by_their_names_and_content(tmp_path: Path, file: Path, kind: str):
    def evaluation(path: Path) -> str:
        settings = Settings(evaluator=EvaluatorSettings(**{kind: (str(path),)}))
        return fingerprint(tmp_path, "evaluation", settings)

    before = evaluation(file)
    os.utime(file, (1, 1))
    assert evaluation(file) == before
    moved = file.rename(tmp_path / file.name)
    assert evaluation(moved) == before
    moved.write_text("one two 4\n")
    assert evaluation(moved) != before
    moved.write_text("one two 3\n")
    assert evaluation(moved) == before
    assert evaluation(moved.rename(tmp_path / "other.txt")) != before
