"""The drift report: against naive counts, and what a person reads of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import Model
from components.errors import SkipstreamError
from components.evaluator import drift
from components.evaluator.drift import Space, compare
from components.settings import TrainerSettings
from components.subwords import Buckets, Subwords, ngrams
from components.vocabulary import Vocabulary
from pipeline import cli, results

TOKENS = [f"w{i}" for i in range(80)]
SUBWORDS = Subwords(3, 4, buckets=200)


def vectors(words: int = 80, dimensions: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(words, dimensions)).astype(np.float32)


def turned(rows: np.ndarray, seed: int = 9) -> np.ndarray:
    size = rows.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=[size, size]))[0]
    return np.asarray(rows @ rotation, np.float32)


def buckets(seed: int = 0, dimensions: int = 5, trained: int = 20) -> Buckets:
    """Few enough that some words have no vector of their n-grams."""
    draw = np.random.default_rng(seed)
    ids = np.sort(draw.permutation(SUBWORDS.buckets)[:trained]).astype(np.int32)
    return Buckets(SUBWORDS, ids, vectors(trained, dimensions, seed))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


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

    def nearest(rows: dict[str, np.ndarray], word: str) -> list[str]:
        others = [other for other in shared if other != word]
        return sorted(others, key=lambda other: -cosine(rows[word], rows[other]))[:10]

    kept = {word: len({*nearest(rows, word)} & {*nearest(old_rows, word)}) for word in shared}
    assert report["neighbors"]["overlap"] == pytest.approx(np.mean(list(kept.values())) / 10)
    assert report["words"]["coverage"] == 60 / 80
    assert report["words"]["coverage_with_ngrams"] is None
    assert report["words"]["new"] == {"types": 2, "top": ["new1", "new2"], "composed": None}
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


def naive(space: Space, words: list[str], found: Buckets, turn: np.ndarray) -> dict[str, float]:
    """Cosines of words' vectors, turned, with what the n-grams of another space make of them."""
    rows = dict(zip(found.ids.tolist(), found.rows, strict=True))
    cosines = {}
    for word in words:
        numbers = ngrams([word], SUBWORDS).buckets.tolist()
        if any(number in rows for number in numbers):
            mean = sum(rows.get(number, np.zeros(5)) for number in numbers) / len(numbers)
            own = space.vectors[list(space.tokens).index(word)]
            cosines[word] = cosine(own @ turn, mean)
    return cosines


@pytest.mark.parametrize("seed", range(3))
def test_words_of_one_model_are_held_against_the_ngrams_of_the_other(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_BLOCK_ROWS", 7)
    before = Space(TOKENS, vectors(seed=seed), buckets(seed))
    words = ["</s>", *TOKENS[:50], *(f"new{i}" for i in range(40))]
    rows = vectors(len(words), seed=seed + 10)
    rows[1:51] = 0.1 * rows[1:51] + turned(before.vectors[:50])
    now = Space(words, rows, buckets(seed + 20))
    report = compare(now, before)
    found = drift.fit(rows[1:51], before.vectors[:50])
    assert found and now.buckets and before.buckets
    turns = {"as_they_are": np.eye(5), "turned": found.rotation}
    new, vanished = report["words"]["new"], report["words"]["vanished"]
    for how, turn in turns.items():
        for part, cosines in (
            (new, naive(now, [words[0], *words[51:]], before.buckets, turn)),
            (vanished, naive(before, TOKENS[50:], now.buckets, turn.T)),
        ):
            assert part["composed"]["types"] == len(cosines) < part["types"]
            for share, value in part["composed"]["self_cosine"][how].items():
                expected = np.quantile(list(cosines.values()), float(share))
                assert value == pytest.approx(expected, abs=1e-4)
    answered = (50 + vanished["composed"]["types"]) / 80
    assert report["words"]["coverage_with_ngrams"] == pytest.approx(answered)
    assert report["words"]["coverage"] == 50 / 80


def test_a_word_that_left_is_where_it_was_if_its_ngrams_are() -> None:
    trained = buckets(trained=SUBWORDS.buckets)
    before = Space(TOKENS, trained.compose(TOKENS))
    now = Space(
        TOKENS[:60], turned(before.vectors[:60]), replace(trained, rows=turned(trained.rows))
    )
    words = compare(now, before)["words"]
    assert words["vanished"]["composed"]["types"] == 20
    assert set(words["vanished"]["composed"]["self_cosine"]["turned"].values()) == {1}
    assert words["vanished"]["composed"]["self_cosine"]["as_they_are"]["0.5"] < 0.9
    assert (words["coverage"], words["coverage_with_ngrams"]) == (0.75, 1)
    assert words["new"]["composed"] is None  # The model of before has no n-grams.


def test_ngrams_of_other_dimensions_answer_for_words_and_are_not_compared() -> None:
    now = Space(TOKENS[:60], vectors(60, 8), buckets(dimensions=8, trained=200))
    report = compare(now, Space(TOKENS, vectors()))
    assert report["words"]["vanished"]["composed"] == {"types": 20, "self_cosine": None}
    assert "of them have a vector of n-grams" in results.drift(report)


def artifact(
    path: Path, tokens: list[str], rows: np.ndarray, trained: Buckets | None = None
) -> Path:
    path.mkdir()
    np.save(path / "vectors.npy", rows)
    Vocabulary(tuple(tokens), np.ones(len(tokens), np.int64)).save(path / "vocabulary.tsv")
    if not trained:
        return Model(path, path.name).finish(TrainerSettings()).path
    np.save(path / "buckets.npy", trained.rows)
    np.save(path / "bucket_ids.npy", trained.ids)
    shortest, longest, number = trained.subwords
    settings = TrainerSettings(min_ngram=shortest, max_ngram=longest, buckets=number)
    return Model(path, path.name).finish(settings).path


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


def test_the_command_says_what_ngrams_make_of_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = artifact(tmp_path / "old", TOKENS, vectors(), buckets(trained=200))
    new = artifact(tmp_path / "new", ["x", *TOKENS[:70]], vectors(71), buckets(1, trained=200))
    assert cli.run(["drift", str(old), str(new), "--json"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert words["vanished"]["composed"]["types"] == 10
    assert cli.run(["drift", str(old), str(new)]) == 0
    text = capsys.readouterr().out
    for kind, verb in (("new", "had"), ("vanished", "have")):
        composed = words[kind]["composed"]
        median = f"{composed['self_cosine']['turned']['0.5']:.3f}"
        said = f"of them {verb} a vector of n-grams (median cosine with their own, turned: {median}"
        assert f"{composed['types']}  {said})" in text


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="MODEL must be a SavedModel directory"):
        Space.load(tmp_path / "nothing")
