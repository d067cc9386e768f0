"""The drift report: against naive counts, and what a person reads of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import Model
from components.errors import SkipstreamError
from components.evaluator import drift
from components.evaluator.drift import Space, compare
from components.vocabulary import Vocabulary
from pipeline import cli, results

TOKENS = [f"w{i}" for i in range(80)]


def vectors(words: int = 80, dimensions: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(words, dimensions)).astype(np.float32)


def turned(rows: np.ndarray, seed: int = 9) -> np.ndarray:
    size = rows.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=[size, size]))[0]
    return np.asarray(rows @ rotation, np.float32)


def test_a_space_that_was_only_turned_has_not_moved() -> None:
    before = vectors()
    report = compare(Space(TOKENS, turned(before)), Space(TOKENS, before))
    assert report["neighbors"]["overlap"] == 1
    assert report["neighbors"]["churned"]["words"] == 0
    assert report["procrustes"] == {"words": 80, "residual": pytest.approx(0, abs=1e-5)}
    assert set(report["self_cosine"]["turned"].values()) == {1}
    assert report["self_cosine"]["as_they_are"]["0.5"] < 0.9
    assert report["words"]["coverage"] == 1
    for fact in ("median_norm", "mean_cosine"):
        assert report["now"][fact] == pytest.approx(report["before"][fact], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_a_naive_count(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_ASKED_AT_ONCE", 7)
    monkeypatch.setattr(drift, "_BLOCK_ROWS", 7)
    draw = np.random.default_rng(seed)
    words = [TOKENS[i] for i in draw.permutation(80)[:60]] + ["new1", "new2"]
    before, now = vectors(seed=seed), vectors(62, seed=seed + 10)
    now[:60] = 0.5 * now[:60] + turned(before[[int(word[1:]) for word in words[:60]]])
    report = compare(Space(words, now), Space(TOKENS, before))

    shared = [word for word in words if word in TOKENS]
    rows = {word: now[words.index(word)] for word in shared}
    old_rows = {word: before[TOKENS.index(word)] for word in shared}

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def nearest(rows: dict[str, np.ndarray], word: str) -> list[str]:
        others = [other for other in shared if other != word]
        return sorted(others, key=lambda other: -cosine(rows[word], rows[other]))[:10]

    kept = {word: len({*nearest(rows, word)} & {*nearest(old_rows, word)}) for word in shared}
    assert report["neighbors"]["overlap"] == pytest.approx(np.mean(list(kept.values())) / 10)
    assert report["words"]["coverage"] == 60 / 80
    assert report["words"]["new"] == {"types": 2, "top": ["new1", "new2"]}
    assert report["words"]["vanished"]["types"] == 20
    assert report["words"]["vanished"]["top"] == [w for w in TOKENS if w not in words][:20]
    own = [cosine(rows[word], old_rows[word]) for word in shared]
    assert report["self_cosine"]["as_they_are"]["0.5"] == pytest.approx(np.median(own), abs=1e-4)
    moved = report["moved"][0]
    assert moved["before"] == nearest(old_rows, moved["token"])[:5]
    assert moved["now"] == nearest(rows, moved["token"])[:5]
    assert moved["kept"] == kept[moved["token"]]
    pairs = [cosine(now[i], now[j]) for i in range(62) for j in range(62) if i != j]
    assert report["now"]["mean_cosine"] == pytest.approx(np.mean(pairs), abs=1e-5)


def test_the_word_that_moved_comes_first() -> None:
    before = vectors()
    now = turned(before)
    now[7] = -now[7]
    report = compare(Space(TOKENS, now), Space(TOKENS, before))
    assert report["moved"][0]["token"] == "w7"
    assert report["moved"][0]["cosine"] < -0.8
    assert report["self_cosine"]["turned"]["0.05"] > 0.95


def test_spaces_of_other_dimensions_are_compared_by_their_neighbours() -> None:
    wide = np.concatenate([vectors(), np.zeros([80, 3], np.float32)], axis=1)
    report = compare(Space(TOKENS, wide), Space(TOKENS, vectors()))
    assert report["neighbors"]["overlap"] == 1
    assert report["procrustes"] is report["self_cosine"] is None
    assert "no score" in results.drift(report)


@pytest.mark.parametrize("words", [["other"], ["w1"], ["w1", "w2"]])
def test_spaces_that_share_hardly_a_word_are_compared(words: list[str]) -> None:
    report = compare(Space(words, vectors(len(words))), Space(TOKENS, vectors()))
    assert report["words"]["shared"] == len({*words} & {*TOKENS})
    assert report["procrustes"] is None
    json.dumps(report, allow_nan=False)
    assert "shared words" in results.drift(report)


def artifact(path: Path, tokens: list[str], rows: np.ndarray) -> Path:
    path.mkdir()
    np.save(path / "vectors.npy", rows)
    Vocabulary(tuple(tokens), np.ones(len(tokens), np.int64)).save(path / "vocabulary.tsv")
    return Model(path, path.name).finish().path


def test_the_command_compares_trainer_artifacts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = artifact(tmp_path / "old", TOKENS, vectors())
    new = artifact(tmp_path / "new", ["fresh", *TOKENS[:70]], turned(vectors(71, seed=1)))
    assert cli.run(["drift", str(old), str(new), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["before"]["types"] == 80 and report["now"]["types"] == 71
    assert cli.run(["drift", str(old), str(new)]) == 0
    text = capsys.readouterr().out
    assert "new words (fresh)" in text
    assert "vanished words (w70 w71" in text
    assert f"{100 * report['neighbors']['overlap']:.1f} %" in text
    assert f"{report['procrustes']['residual']:.4f}  Procrustes residual" in text


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="MODEL must be a SavedModel directory"):
        Space.load(tmp_path / "nothing")
