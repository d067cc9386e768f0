"""The last look before a push: an export that answers wrongly is refused by name."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from stages import unlisted

from components.artifacts import Examples, ExportedModel, InfraBlessing, Model
from components.errors import NotBlessedError, SkipstreamError
from components.exporter import exporter
from components.infra_validator import validator
from components.infra_validator.process import PROBE
from components.settings import ExporterSettings, TrainerSettings, TransformSettings
from components.text import Tokenizer
from components.vocabulary import Vocabulary

TYPES, DIMENSIONS = 200, 8


@dataclass(frozen=True)
class Run:
    """The artifacts of one small run."""

    root: Path
    tokenizer: Tokenizer = "words"

    def train(self, tokens: tuple[str, ...], vectors: np.ndarray) -> "Run":
        for name in ("model", "examples", "validation"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        np.save(self.root / "model" / "vectors.npy", vectors)
        Vocabulary(tokens, np.arange(len(tokens), 0, -1)).save(
            self.root / "examples" / "vocabulary.tsv"
        )
        self.model.finish(TrainerSettings())
        self.examples.finish(TransformSettings(tokenizer=self.tokenizer, lowercase=True))
        return self

    def export(self) -> ExportedModel:
        out = ExportedModel(self.root / "exported", "3")
        out.path.mkdir()
        return exporter.build(self.model, self.examples, settings=ExporterSettings(), out=out)

    @property
    def model(self) -> Model:
        return Model(self.root / "model", "1")

    @property
    def examples(self) -> Examples:
        return Examples(self.root / "examples", "2")

    def validate(self, exported: ExportedModel) -> InfraBlessing:
        return validator.build(
            exported,
            self.model,
            self.examples,
            out=InfraBlessing(self.root / "validation", "4"),
        )

    @property
    def report(self) -> dict:
        return json.loads((self.root / "validation" / "validation.json").read_text("utf-8"))


def tokens(number: int = TYPES) -> tuple[str, ...]:
    return ("the", "don't", "東", "zzzznotaword", *(f"w{i}" for i in range(number)))[:number]


def vectors(number: int = TYPES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, DIMENSIONS)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ExportedModel]:
    run = Run(tmp_path_factory.mktemp("run")).train(tokens(), vectors())
    return run, run.export()


@pytest.mark.usefixtures("probe_here")
def test_a_true_export_is_blessed_and_the_report_counts_every_signature(
    trained: tuple[Run, ExportedModel],
) -> None:
    run, exported = trained
    blessing = run.validate(exported)
    assert blessing.summary["calls"] == 18
    report = run.report
    assert {name: len(seconds) for name, seconds in report.pop("calls").items()} == {
        "serving_default": 7,
        "embed_text": 3,
        "nearest": 5,
        "analogy": 3,
    }
    assert report.pop("load_seconds") > 0
    assert report == {
        "blessed": True,
        "tensorflow": tf.__version__,
        "model_server": shutil.which("tensorflow_model_server"),
        "differences": [],
    }


@pytest.mark.usefixtures("probe_here")
@pytest.mark.parametrize("number", [1, 4])
def test_a_vocabulary_smaller_than_the_questions_is_blessed(tmp_path: Path, number: int) -> None:
    table = vectors(number)
    table[-1] = 0
    run = Run(tmp_path, "whitespace").train(('"', "a,b", "c'", "e\u0301")[:number], table)
    run.validate(run.export())
    assert run.report["differences"] == []


@pytest.mark.usefixtures("probe_here")
def test_one_bit_of_one_vector_is_found(trained: tuple[Run, ExportedModel], tmp_path: Path) -> None:
    table = vectors()
    table[7, 3] = np.nextafter(table[7, 3], np.float32(9))
    with pytest.raises(NotBlessedError) as caught:
        Run(tmp_path).train(tokens(), table).validate(trained[1])
    assert (
        "serving_default of 200 tokens: embedding[7, 3] must be "
        f"{table[7, 3]}, got {vectors()[7, 3]} (1 of 1600 differ): export again"
    ) in str(caught.value)
    assert InfraBlessing.load(tmp_path / "validation") is None
    assert Run(tmp_path).report["blessed"] is False


@pytest.mark.usefixtures("probe_here")
def test_vectors_of_another_training_are_found_in_every_signature(
    trained: tuple[Run, ExportedModel], tmp_path: Path
) -> None:
    run = Run(tmp_path).train(tokens(), vectors(seed=1))
    with pytest.raises(NotBlessedError, match=r"serving_default of .*; .*; .* \(and \d+ more\): "):
        run.validate(trained[1])
    found = {difference.split(" of ")[0] for difference in run.report["differences"]}
    assert found == {"serving_default", "embed_text", "nearest", "analogy"}


@pytest.mark.usefixtures("probe_here")
def test_two_tokens_that_changed_places_are_found(
    trained: tuple[Run, ExportedModel], tmp_path: Path
) -> None:
    swapped = tokens()[:-2] + tokens()[:-3:-1]
    run = Run(tmp_path).train(swapped, vectors())
    with pytest.raises(NotBlessedError, match=r"embedding\[198, 0\] must be"):
        run.validate(trained[1])


@pytest.mark.usefixtures("probe_here")
def test_a_tokeniser_that_drifted_is_found_in_embed_text(
    trained: tuple[Run, ExportedModel], tmp_path: Path
) -> None:
    run = Run(tmp_path, "whitespace").train(tokens(), vectors())
    with pytest.raises(NotBlessedError, match="embed_text of texts: "):
        run.validate(trained[1])


def test_an_export_that_does_not_load_is_refused_in_one_line(
    trained: tuple[Run, ExportedModel], tmp_path: Path
) -> None:
    run = Run(tmp_path).train(tokens(), vectors())
    exported = ExportedModel(tmp_path / "exported", "3")
    shutil.copytree(trained[1].path, exported.path)
    unlisted(exported.path)
    next((exported.saved_model / "variables").glob("*.data*")).unlink()
    with pytest.raises(NotBlessedError, match="in a process of its own.* ended with code 1") as e:
        run.validate(exported)
    assert "\n" not in str(e.value)


def test_a_process_that_is_told_nothing_ends() -> None:
    done = subprocess.run(
        [sys.executable, PROBE], stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 1


@pytest.mark.usefixtures("probe_here")
def test_a_missing_signature_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path).train(tokens(), vectors())
    bare = ExportedModel(tmp_path / "bare", "3")
    tf.saved_model.save(tf.Module(), str(bare.saved_model))
    bare.finish(ExporterSettings())
    with pytest.raises(NotBlessedError, match="serving_default"):
        run.validate(bare)


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (subprocess.CompletedProcess([], -9, b"", b""), "killed by signal 9"),
        (subprocess.TimeoutExpired([], 1800), "within 1800 seconds"),
    ],
)
def test_a_machine_at_fault_refuses_nothing(
    trained: tuple[Run, ExportedModel], monkeypatch: pytest.MonkeyPatch, ended: object, said: str
) -> None:
    def run(*_: object, **__: object) -> object:
        if isinstance(ended, Exception):
            raise ended
        return ended

    monkeypatch.setattr(validator.FreshProcess, "ask", run)
    with pytest.raises(SkipstreamError, match=f"{said}.*validate again") as caught:
        trained[0].validate(trained[1])
    assert caught.value.exit_code == 1
