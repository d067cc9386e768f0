"""The space that stays put: turned onto the one before, lengths and cosines as they are."""

from pathlib import Path

import numpy as np
import pytest
from stages import unlisted

from components.artifacts import Examples, ExportedModel, InfraBlessing, Model, VersionBefore
from components.errors import SkipstreamError
from components.exporter import alignment, exporter
from components.exporter.embeddings import Embeddings
from components.infra_validator import validator
from components.settings import ExporterSettings, TrainerSettings, TransformSettings
from components.vocabulary import Vocabulary

DIMENSIONS = 6
TOKENS = [f"w{i}" for i in range(60)]


def vectors(words: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(words, DIMENSIONS)).astype(np.float32)


def orthogonal(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[DIMENSIONS] * 2))[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_turned_space_is_turned_back(seed: int) -> None:
    before, turn = vectors(seed=seed), orthogonal(seed)
    now = (before @ turn).astype(np.float32)
    found = alignment.fit(now, before)
    assert found is not None
    np.testing.assert_allclose(found.rotation, turn.T, atol=1e-6)
    assert found.residual < 1e-6
    np.testing.assert_allclose(alignment.turn(now, found.rotation), before, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_rotation_fits_better(seed: int) -> None:
    now, before = vectors(seed=seed), vectors(seed=seed + 100)
    found = alignment.fit(now, before)
    assert found is not None
    unit, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (now, before))

    def residual(rotation: np.ndarray) -> float:
        return float(np.sqrt(((unit @ rotation - other) ** 2).sum(axis=1).mean()))

    assert found.residual == pytest.approx(residual(found.rotation), abs=1e-6)
    assert all(residual(orthogonal(other)) > found.residual for other in range(50))


def test_no_similarity_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_BLOCK_ROWS", 7)
    now = vectors()
    found = alignment.fit(now, vectors(seed=1))
    assert found is not None
    turned = alignment.turn(now, found.rotation)
    assert np.abs(turned - now).max() > 0.1
    np.testing.assert_allclose(turned @ turned.T, now @ now.T, atol=1e-5)


def test_a_space_is_not_turned_where_that_means_nothing() -> None:
    assert alignment.fit(vectors(DIMENSIONS - 1), vectors(DIMENSIONS - 1)) is None
    assert alignment.fit(vectors(), vectors()[:, 1:]) is None
    broken = np.full((60, DIMENSIONS), np.nan, np.float32)
    assert alignment.fit(broken, vectors()) is None


def run(root: Path, tokens: list[str], rows: np.ndarray) -> tuple[Model, Examples]:
    """A trained model."""
    root.mkdir()
    np.save(root / "vectors.npy", rows)
    examples = Examples(root / "examples", root.name)
    examples.path.mkdir()
    counts = np.arange(len(tokens), 0, -1)
    Vocabulary(tuple(tokens), counts).save(examples.path / "vocabulary.tsv")
    return Model(root, root.name).finish(TrainerSettings()), examples.finish(TransformSettings())


def export(
    trained: tuple[Model, Examples], path: Path, before: ExportedModel | None = None
) -> ExportedModel:
    path.mkdir()
    served = before and VersionBefore(3, before.fingerprint, lambda: before.saved_model, None, None)
    return exporter.build(
        *trained,
        settings=ExporterSettings(),
        out=ExportedModel(path, path.name),
        before=served,
    )


def validate(exported: ExportedModel, trained: tuple[Model, Examples], out: Path) -> InfraBlessing:
    out.mkdir()
    return validator.build(exported, *trained, out=InfraBlessing(out, "validation"))


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """Of TOKENS and `vectors()`."""
    path = tmp_path_factory.mktemp("yesterday")
    return export(run(path / "trained", TOKENS, vectors()), path / "exported")


@pytest.mark.parametrize(
    ("tokens", "rows", "why"),
    [
        (TOKENS, vectors()[:, 1:], "has 6 dimensions, not 5"),
        (["w1", "w2", "new"], vectors(3), "has 2 of the words, fewer than the 6 dimensions"),
    ],
)
def test_an_export_says_why_it_is_not_turned(
    yesterday: ExportedModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tokens: list[str],
    rows: np.ndarray,
    why: str,
) -> None:
    second = export(run(tmp_path / "today", tokens, rows), tmp_path / "exported", yesterday)
    assert second.summary["not_aligned"] == f"version 3 {why}"
    assert not (second.path / alignment.ROTATION).exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"the vectors are not turned: version 3 {why}"
    ]


def test_what_is_served_stays_where_it_was(yesterday: ExportedModel, tmp_path: Path) -> None:
    assert "alignment_residual" not in yesterday.summary
    # Today: turned, moved a little, in another order, without ten words and with three new ones.
    kept = np.random.default_rng(1).permutation(60)[:50]
    moved = vectors()[kept] + 0.01 * vectors(50, seed=2)
    today = np.concatenate([moved, vectors(3, seed=3)]) @ orthogonal(4).astype(np.float32)
    trained = run(tmp_path / "today", [*(TOKENS[i] for i in kept), "x", "y", "z"], today)
    second = export(trained, tmp_path / "exported", yesterday)
    served = Embeddings.load(second.saved_model)
    np.testing.assert_allclose(served.vectors[:50], vectors()[kept], atol=0.06)
    np.testing.assert_allclose(served.vectors @ served.vectors.T, today @ today.T, atol=1e-4)
    assert second.summary["aligned_to_version"] == 3
    assert second.summary["aligned_words"] == 50
    assert 0 < second.summary["alignment_residual"] < 0.03

    np.save(unlisted(second.path) / "rotation.npy", np.ones([DIMENSIONS] * 2, np.float32))
    with pytest.raises(SkipstreamError, match="must hold an orthogonal matrix of 6 dimensions"):
        validate(second, trained, tmp_path / "validation")
