"""Scores against scipy and gensim, files of several kinds, and the gate."""

import functools
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from scipy.stats import spearmanr
from test_dataset import random_documents, write_examples

from components import trainer
from components.artifacts import (
    VOCABULARY,
    Evaluation,
    Examples,
    ExportedModel,
    Model,
    VersionBefore,
)
from components.evaluator import scores
from components.evaluator.evaluator import build, compose_by, find_ids, neighbors, probes
from components.exporter import ranking
from components.settings import (
    EvaluatorSettings,
    ExporterSettings,
    TrainerSettings,
    TransformSettings,
)
from components.subwords import Buckets, Subwords
from components.trainer import SkipGrams
from components.trainer.dataset import GROUP
from components.trainer.skipgrams import frequency_scores
from components.vocabulary import Vocabulary
from pipeline import results

WORDS = Vocabulary(("the", "cat", "café", "don't"), np.array([9, 5, 3, 1]))


def find(words: list[str]) -> np.ndarray:
    return find_ids(words, WORDS, TransformSettings())


def test_words_are_found_as_the_tokeniser_writes_them() -> None:
    assert find(["The", "CAFÉ", "don’t", "cats", "the cat", ""]).tolist() == [0, 2, 3, -1, -1, -1]


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_the_correlation_of_ranks_that_ties_share(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 6, [2, 40])
    ranks = [[(np.sum(x < v) + np.sum(x <= v)) / 2 for v in x] for x in (a, b)]
    assert scores.spearman(a, b) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-6)


def test_scores_equal_those_of_gensim(shared: Path) -> None:
    analogies = shared / "eval" / "questions-words.txt"
    words = sorted(
        {word.lower() for line in analogies.read_text().splitlines() for word in line.split()[-4:]}
    )[::2]
    vocabulary = Vocabulary(tuple(words), np.ones(len(words), np.int64))
    # Words of a line come to lie together, so that some answers are right.
    vectors = np.random.default_rng(0).normal(size=[len(words), 4]).astype(np.float32)
    theirs = KeyedVectors(4)
    theirs.add_vectors(words, vectors)
    unit = ranking.unit(vectors)

    def find(words: list[str]) -> np.ndarray:
        return find_ids(words, vocabulary, TransformSettings())

    score, sections = scores.analogy_accuracy(unit, find, analogies)
    accuracy, their_sections = theirs.evaluate_word_analogies(str(analogies))
    assert score.value == pytest.approx(accuracy, abs=1e-6)
    assert score.value > 0
    assert score.covered == sum(len(s["correct"] + s["incorrect"]) for s in their_sections[:-1])
    assert score.total == 19_544
    assert len(sections) == 14

    pairs = shared / "eval" / "men3000.tsv"
    similarity = scores.word_similarity(unit, find, pairs)
    _, spearman, missing = theirs.evaluate_word_pairs(str(pairs))
    assert similarity.value == pytest.approx(spearman.statistic, abs=1e-5)
    assert 100 * (1 - similarity.covered / similarity.total) == pytest.approx(missing)


def buckets(dimensions: int = 8, trained: int = 60, seed: int = 0) -> Buckets:
    draw = np.random.default_rng(seed)
    ids = np.sort(draw.permutation(100)[:trained]).astype(np.int32)
    rows = draw.normal(size=(trained, dimensions)).astype(np.float32)
    return Buckets(Subwords(3, 6, buckets=100), ids, rows)


# Two are far behind the others, and no answers.
MANY = Vocabulary(tuple(f"w{i}" for i in range(40)), np.ones(40, np.int64))


@pytest.mark.parametrize("seed", range(3))
def test_with_ngrams_every_score_is_given_twice(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "ANALOGY_TYPES", 38)
    draw = np.random.default_rng(seed)
    unit = ranking.unit(draw.normal(size=(40, 3)).astype(np.float32))
    compose = compose_by(buckets(3, seed=seed), TransformSettings())

    def find(words: list[str]) -> np.ndarray:
        return find_ids(words, MANY, TransformSettings())

    @functools.cache
    def vector(word: str) -> np.ndarray:  # x, y and z have one n-gram each.
        word = word.lower()
        index = MANY.index.get(word)
        return unit[index] if index is not None else ranking.unit(compose([word]))[0]

    words = [*MANY.tokens, "New", "other", "unheard", "x", "y", "z"]
    couples = draw.permutation(list(combinations(words, 2)))[:200]
    pairs = [(str(a), str(b), float(draw.integers(9))) for a, b in couples]
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\t{s}\n" for a, b, s in pairs))
    score = scores.word_similarity(unit, find, tmp_path / "pairs.tsv", compose)
    known = [pair for pair in pairs if pair[0] in MANY.tokens and pair[1] in MANY.tokens]
    there = [pair for pair in pairs if vector(pair[0]).any() and vector(pair[1]).any()]
    assert len(known) < len(there)
    for some, value, covered in (
        (known, score.value, score.covered),
        (there, score.value_with_ngrams, score.covered_with_ngrams),
    ):
        assert covered == len(some)
        found = spearmanr([vector(a) @ vector(b) for a, b, _ in some], [s for *_, s in some])
        assert value == pytest.approx(found.statistic, abs=1e-5)
    assert score.total == 200

    questions = [list(draw.choice(words, 4)) for _ in range(300)]
    text = "\n".join(" ".join(question) for question in questions)
    (tmp_path / "analogies.txt").write_text(f": s\n{text}\n")

    def right(question: list[str]) -> bool:
        a, b, c, d = question
        target = vector(b) - vector(a) + vector(c)
        answers = [word for word in MANY.tokens[:38] if word not in (a, b, c)]
        return max(answers, key=lambda word: float(vector(word) @ target)) == d

    score, sections = scores.analogy_accuracy(unit, find, tmp_path / "analogies.txt", compose)
    answers = {*MANY.tokens[:38]}
    known = [question for question in questions if {*question} <= answers]
    there = [q for q in questions if q[3] in answers and all(vector(w).any() for w in q)]
    assert score.covered == len(known) < score.covered_with_ngrams == len(there)
    assert score.value == pytest.approx(np.mean([*map(right, known)]), abs=1e-6)
    assert score.value_with_ngrams == pytest.approx(np.mean([*map(right, there)]), abs=1e-6)
    assert sections == {"s": score}
    assert scores.analogy_accuracy(unit, find, tmp_path / "analogies.txt")[0] == replace(
        score, value_with_ngrams=None, covered_with_ngrams=None
    )


def test_neighbours_are_sorted_and_leave_the_word_out() -> None:
    unit = ranking.unit(np.array([[1, 0], [1, 1], [-1, 0], [1, 0.1]], np.float32))
    assert neighbors(unit, [1], WORDS) == {
        "cat": [("don't", 0.7740), ("the", 0.7071), ("café", -0.7071)]
    }


def test_probes_are_frequent_words_with_long_vectors() -> None:
    tokens = ("about", "42", "cat", *(f"word{chr(97 + i)}" for i in range(10)))
    vectors = np.ones([len(tokens), 3], np.float32)
    vectors[5:] *= 2
    vectors[7] *= 2
    chosen = probes(Vocabulary(tokens, np.arange(len(tokens), 0, -1)), vectors)
    assert chosen == [5, 6, 7, 8, 9, 10, 11, 12]
    assert probes(Vocabulary(("a", "1"), np.array([2, 1])), vectors[:2]) == []


def train(folder: Path, held_out: bool = True) -> tuple[Model, Examples]:
    """A model of words that were drawn one by one: there is nothing to learn."""
    documents = random_documents(0, 1000)
    examples = write_examples(folder / "examples", documents, types=50, held_out=held_out)
    settings = TrainerSettings(dimensions=8, epochs=1, sample=0)
    (folder / "model").mkdir()
    model = trainer.build(examples, settings=settings, out=Model(folder / "model", "model"))
    return model, examples


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Examples]:
    return train(tmp_path_factory.mktemp("trained"))


def evaluate(
    trained: tuple[Model, Examples],
    out: Path,
    served: ExporterSettings | None = None,
    **settings: object,
) -> Evaluation:
    exported = ExportedModel(out / "exported", "exported")
    exported.path.mkdir(exist_ok=True)
    exported.finish(served or ExporterSettings())
    return build(
        exported,
        *trained,
        settings=EvaluatorSettings(**settings),
        out=Evaluation(out, "evaluation"),
    )


def test_the_report_says_score_and_coverage(
    trained: tuple[Model, Examples], tmp_path: Path
) -> None:
    (tmp_path / "pairs.tsv").write_text("w1\tw2\t5\nw3\tw4\t2\nw5\tw6\t1\nw1\tunheard\t9\n")
    (tmp_path / "analogies.txt").write_text(": s\nw1 w2 w3 w4\nw1 w2 w3 unheard\n")
    report = evaluate(
        trained,
        tmp_path,
        word_pairs=[str(tmp_path / "*.tsv")],
        analogies=[str(tmp_path / "analogies.txt")],
        max_loss=5.0,
    ).report
    assert report["blessed"] is True
    assert report["held_out_loss"] == pytest.approx(trained[0].summary["held_out_loss"], rel=1e-6)
    pairs = report["word_pairs"]["pairs.tsv"]
    assert (pairs["covered"], pairs["total"]) == (3, 4)
    assert -1 <= pairs["spearman"] <= 1
    analogies = report["analogies"]["analogies.txt"]
    assert (analogies["covered"], analogies["total"]) == (1, 2)
    assert analogies["sections"].keys() == {"s"}


def test_words_of_files_go_through_the_tokeniser_of_the_text(
    trained: tuple[Model, Examples], tmp_path: Path
) -> None:
    (tmp_path / "pairs.tsv").write_text("W1\tW2\t5\nw3\tW4\t2\nw5\tw6\t1\nw7\tw8\t1\n")
    segmented = Examples(tmp_path / "examples", "segmented")
    shutil.copytree(trained[1].path, segmented.path)
    segmented.finish(TransformSettings(tokenizer="whitespace"))
    for examples, covered in ((trained[1], 4), (segmented, 2)):
        report = evaluate(
            (trained[0], examples), tmp_path, word_pairs=[str(tmp_path / "*.tsv")]
        ).report
        assert report["word_pairs"]["pairs.tsv"]["covered"] == covered


def test_a_model_that_learned_nothing_is_refused_in_words(
    trained: tuple[Model, Examples], tmp_path: Path
) -> None:
    report = evaluate(trained, tmp_path).report
    assert report["blessed"] is False
    (reason,) = report["reasons"]
    loss, guessing = (f"{report[name]:.3f}" for name in ("held_out_loss", "frequency_loss"))
    assert reason == (
        "the model must learn which words go together, and has not: its held-out loss is "
        f"{loss} nats a pair, guessing by frequency costs {guessing}, and the limit is "
        f"{report['frequency_loss'] - 0.02:.3f}; it saw 19,801 of 19,801 tokens in 1 epoch: "
        "the text is too small, word vectors begin to be of use at 20,000 tokens"
    )


def test_without_a_held_out_document_the_loss_of_the_training_is_judged(tmp_path: Path) -> None:
    model, examples = train(tmp_path, held_out=False)
    report = evaluate((model, examples), tmp_path).report
    assert report["held_out_loss"] is None
    assert report["loss"] == model.summary["loss"]
    assert "its training loss (no document is held out) is" in report["reasons"][0]


@pytest.mark.parametrize("seed", range(2))
def test_the_loss_of_frequencies_is_the_naive_one(tmp_path: Path, seed: int) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(seed, 40), types=50)
    settings = TrainerSettings(dimensions=8, sample=0.02, window=2)
    found = trainer.frequency_loss(examples, settings, "eval")
    counts = Vocabulary.load_counts(examples.path / "vocabulary.tsv")
    scores = frequency_scores(counts, 0.02, 0.75, 5).astype(float)
    data = SkipGrams(examples, settings, split="eval", seed=0)
    contexts, noise = naive_pairs(data, window=2)
    positive = np.logaddexp(0, -scores[contexts]).sum()
    negative = sum(5 * np.logaddexp(0, scores[group]).mean() * pairs for group, pairs in noise)
    assert found == pytest.approx((positive + negative) / len(contexts), rel=1e-6)


def naive_pairs(data: SkipGrams, window: int) -> tuple[list[int], list[tuple[np.ndarray, int]]]:
    """Contexts of all pairs, and for each group of targets its noise words and its pairs."""
    contexts, noise = [], []
    for step in data.rows(0):
        tokens, left, right, words = (part.numpy() for part in step)
        for row, lefts, rights in zip(tokens, left, right, strict=True):
            for place, (before, after) in enumerate(zip(lefts, rights, strict=True), window):
                around = range(place - before, place + after + 1)
                contexts += [row[other] for other in around if other != place]
        groups = words.reshape(-1, words.shape[1] * GROUP // data.length)
        pairs = (left + right).reshape(len(groups), -1).sum(axis=1)
        noise += list(zip(groups, pairs, strict=True))
    return contexts, noise


def test_a_limit_on_the_loss_withholds_the_blessing(
    trained: tuple[Model, Examples], tmp_path: Path
) -> None:
    report = evaluate(trained, tmp_path, max_loss=0.5).report
    assert report["blessed"] is False
    assert "must be below 0.500 nats a pair (evaluator.max_loss)" in report["reasons"][0]
    assert report["limits"]["max_loss"] == 0.5


def test_what_is_scored_is_what_is_served(trained: tuple[Model, Examples], tmp_path: Path) -> None:
    lines = [f"w{i}\tw{j}\t{i * j % 17}\n" for i in range(50) for j in range(i)]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    pairs = [str(tmp_path / "pairs.tsv")]
    whole = evaluate(trained, tmp_path, word_pairs=pairs).report
    rounded = evaluate(trained, tmp_path, ExporterSettings(storage="int8"), word_pairs=pairs).report
    assert rounded["held_out_loss"] == whole["held_out_loss"]
    found, exact = (report["word_pairs"]["pairs.tsv"]["spearman"] for report in (rounded, whole))
    assert found != exact
    assert found == pytest.approx(exact, abs=0.05)


def test_a_model_with_ngrams_says_what_they_answer_for(
    trained: tuple[Model, Examples], tmp_path: Path
) -> None:
    model, examples = trained
    with_ngrams = Model(tmp_path / "model", "with-ngrams")
    shutil.copytree(model.path, with_ngrams.path)
    found = buckets(trained=100)
    np.save(with_ngrams.path / "buckets.npy", found.rows)
    np.save(with_ngrams.path / "bucket_ids.npy", found.ids)
    changes = {"min_ngram": 3, "max_ngram": 6, "buckets": 100}
    with_ngrams.finish(model.settings.model_copy(update=changes), **model.summary)
    # The version before knew two words more. Its table stands in for its SavedModel.
    old = Model(tmp_path / "old", "old")
    shutil.copytree(with_ngrams.path, old.path)
    vectors = np.load(old.path / "vectors.npy")
    np.save(old.path / "vectors.npy", np.concatenate([vectors, vectors[:2]]))
    tokens = (*Vocabulary.load(examples / VOCABULARY).tokens, "gone", "lost")
    Vocabulary(tokens, np.ones(52, np.int64)).save(old.path / VOCABULARY)
    before = VersionBefore(1, "old", lambda: old.path, None, None)

    (tmp_path / "pairs.tsv").write_text("w1\tw2\t5\nw3\tw4\t2\nw5\tw6\t1\nw1\tunheard\t9\n")
    (tmp_path / "analogies.txt").write_text(": s\nw1 w2 w3 w4\nw1 w2 unheard w3\nw1 w2 w3 un\n")
    candidate = ExportedModel(tmp_path / "candidate", "candidate")
    candidate.path.mkdir()
    candidate.finish(ExporterSettings())
    out = Evaluation(tmp_path, "evaluation")
    settings = EvaluatorSettings(
        word_pairs=[str(tmp_path / "pairs.tsv")], analogies=[str(tmp_path / "analogies.txt")]
    )
    report = build(
        candidate, with_ngrams, examples, settings=settings, out=out, before=before
    ).report
    pairs, analogies = report["word_pairs"]["pairs.tsv"], report["analogies"]["analogies.txt"]
    assert (pairs["covered"], pairs["covered_with_ngrams"], pairs["total"]) == (3, 4, 4)
    assert report["before"]["word_pairs"]["pairs.tsv"]["covered_with_ngrams"] == 4
    counts = [analogies[name] for name in ("covered", "covered_with_ngrams", "total")]
    assert counts == [1, 2, 3]  # `un` can be no answer.
    moved = report["before"]["drift"]["words"]
    assert moved["vanished"]["composed"]["types"] == 2
    assert (moved["coverage"], moved["coverage_with_ngrams"]) == (round(50 / 52, 6), 1)
    assert out.summary["coverage_with_ngrams"] == 1
    assert out.summary["analogies"]["analogies.txt"]["covered_with_ngrams"] == 2
    text = results.summary(report)
    assert "3 of 4 pairs covered; " in text
    assert "96.2 % of the words (100.0 % with n-grams)" in text
