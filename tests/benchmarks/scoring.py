"""What the benchmarks of training ask of vectors, and the tables of the answers.

Questions of word pairs and analogies are scored over those whose words are all in the vocabulary,
and, of systems that compose vectors of n-grams, over all. An analogy is then answered by a word of
the vocabulary or of the files of questions.

How near a composed vector is to a trained one is asked of words that are left out of a second
training. The two trainings have no axes in common, so each word is described by what it is near to:
its cosines to words that both trainings know.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.artifacts import Examples
from components.evaluator import scores
from components.evaluator.score_files import read_analogies, read_word_pairs
from components.exporter import ranking
from components.settings import TransformSettings
from components.vocabulary import Vocabulary

Result = dict[str, Any]
Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

LEFT_OUT_RANKS = 2_000, 20_000  # Well trained, and yet not words that a user's text would not lack.
LANDMARKS = 2_000  # The most frequent words, cosines to which describe a word.
CANDIDATES, NEAREST = 50_000, 10  # The nearest words are sought among the most frequent ones.
_BLOCK_WORDS = 256


def is_analogies(file: Path) -> bool:
    """Whether a file is in the format of questions-words.txt, else it is one of word pairs."""
    return file.read_text(encoding="utf-8").lstrip().startswith(":")


def unknown_words(examples: Examples, files: Sequence[Path]) -> list[str]:
    """The words of questions that are not in the vocabulary, as the tokeniser spells them."""
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    words: list[str] = []
    for file in files:
        if is_analogies(file):
            questions = (four for section in read_analogies(file).values() for four in section)
            words += [word for four in questions for word in four]
        else:
            first, second, _ = read_word_pairs(file)
            words += first + second
    words = list(dict.fromkeys(words))
    found = _find_known(words, vocabulary)
    return list(dict.fromkeys(_spelled([words[at] for at in np.flatnonzero(found < 0)])))


def score(
    examples: Examples, vectors: Vectors, files: list[Path], unknown: Sequence[str] = ()
) -> Result:
    """Spearman or accuracy by file, and the share of its pairs or questions that is covered.

    Args:
        examples: With the vocabulary.
        vectors: float32 [types + unknown words, dimensions].
        files: Of pairs and analogies.
        unknown: Words that have the last vectors: a second score, "all", counts their questions.
    """
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    unit = ranking.unit(vectors)
    places = {word: len(vocabulary) + place for place, word in enumerate(unknown)}

    def find_known(words: list[str]) -> Ids:
        return _find_known(words, vocabulary)

    def find_any(words: list[str]) -> Ids:
        others = [places.get(word, -1) for word in _spelled(words)]
        found = _find_known(words, vocabulary)
        return np.where(found < 0, np.array(others, np.int64), found)

    def ask(file: Path, unit: Vectors, find: scores.FindId) -> scores.Score:
        if is_analogies(file):
            return scores.analogy_accuracy(unit, find, file)[0]
        return scores.word_similarity(unit, find, file)

    found: Result = {}
    for file in files:
        result = ask(file, unit[: len(vocabulary)], find_known)
        found[file.stem] = result.value
        found[f"{file.stem} covered"] = result.covered / result.total
        if unknown:
            found[f"{file.stem}, all"] = ask(file, unit, find_any).value
    return found


def _find_known(words: list[str], vocabulary: Vocabulary) -> Ids:
    from components.evaluator.evaluator import find_ids

    return find_ids(words, vocabulary, TransformSettings())


def _spelled(words: Sequence[str]) -> list[str]:
    import tensorflow as tf

    from components import text

    settings = TransformSettings()
    given = tf.strings.strip(tf.constant(list(words), tf.string))
    spelled = text.spell(given, tokenizer=settings.tokenizer, lowercase=settings.lowered)
    return [word.decode() for word in spelled.numpy()]


def choose(tokens: Sequence[str], count: int) -> tuple[Ids, Ids]:
    """Words to leave out, and as many of the same ranks that stay, to compare with.

    Both are spread evenly over LEFT_OUT_RANKS, and hold letters only: of a number, n-grams can say
    no more than that it is one.

    Args:
        tokens: The vocabulary, frequent ones first.
        count: How many of each.

    Returns:
        int64 ids [count] of either, fewer where there are no more.

    >>> [ids.tolist() for ids in choose(["a"] * 2000 + ["b", "1", "c", "d", "e"], 2)]
    [[2000, 2003], [2002, 2004]]
    """
    first, last = LEFT_OUT_RANKS
    ids = np.array([i for i in range(first, min(last, len(tokens))) if tokens[i].isalpha()], int)
    places = np.linspace(0, len(ids) - 1, min(2 * count, len(ids))).round().astype(np.int64)
    return ids[places[::2]], ids[places[1::2]]


def compare_trainings(trained: Vectors, without: Vectors, left_out: Ids, stayed: Ids) -> Result:
    """How near the vectors of words in a training without them are to those of one with them.

    Args:
        trained: float32 [types, dimensions], of the training that has all words.
        without: The same of the other one; composed where a word was left out, zeros where it had
            no text either for another reason.
        left_out: int64 ids.
        stayed: Those of words that both trainings have: what two trainings agree on at best.

    Returns:
        For each of the two lists, means over its words: the correlation of ranks (Spearman) of the
        cosines to the LANDMARKS most frequent words, less those that words have on average (after
        little training all vectors point to one side, and any two words are alike); the share of
        the trained vector's NEAREST words that are among the other's; and the median rank there of
        those words.
    """
    there = np.any(without != 0, axis=1)
    there[left_out] = there[stayed] = False
    common = np.flatnonzero(there)[:CANDIDATES]
    units = [ranking.unit(vectors) for vectors in (trained, without)]
    found: Result = {}
    for name, ids in {"left out": left_out, "stayed": stayed}.items():
        likeness: list[float] = []
        places: list[list[int]] = []
        for block in np.split(ids, range(_BLOCK_WORDS, len(ids), _BLOCK_WORDS)):
            ours, theirs = cosines = [unit[block] @ unit[common].T for unit in units]
            means = [unit[common[:LANDMARKS]] @ unit[common].mean(axis=0) for unit in units]
            likeness += _correlations(
                *(row[:, :LANDMARKS] - mean for row, mean in zip(cosines, means, strict=True))
            )
            nearest = np.argpartition(-ours, NEAREST, axis=1)[:, :NEAREST]
            for row, chosen in zip(theirs, nearest, strict=True):
                places.append([1 + np.count_nonzero(row > row[word]) for word in chosen])
        found[f"{name}: cosines alike"] = float(np.mean(likeness))
        found[f"{name}: {NEAREST} nearest kept"] = float(np.mean(np.array(places) <= NEAREST))
        found[f"{name}: their rank"] = float(np.median(places))
    return found


def _correlations(a: Vectors, b: Vectors) -> list[float]:
    """Spearman's, row by row."""
    ranks = [rows.argsort(axis=1).argsort(axis=1).astype(np.float64) for rows in (a, b)]
    x, y = (rows - rows.mean(axis=1, keepdims=True) for rows in ranks)
    found: list[float] = (
        (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    ).tolist()
    return found


def score_left_out(
    examples: Examples, trained: Vectors, without: Vectors, left_out: Ids, files: list[Path]
) -> Result:
    """Scores of the pairs that hold a word that was left out; arguments: see compare_trainings."""
    vocabulary = Vocabulary.load(examples.path / "vocabulary.tsv")
    found: Result = {}
    for file in files:
        if is_analogies(file):
            continue
        first, second, given = read_word_pairs(file)
        pairs = np.stack([_find_known(words, vocabulary) for words in (first, second)], axis=1)
        asked = (pairs >= 0).all(axis=1) & np.isin(pairs, left_out).any(axis=1)
        for name, vectors in {"trained": trained, "composed": without}.items():
            unit = ranking.unit(vectors)
            cosines = np.einsum("pd,pd->p", *unit[pairs[asked].T])
            column = f"{file.stem}, {asked.sum()} pairs: {name}"
            found[column] = scores.spearman(cosines, np.array(given)[asked])
    return found


def table(rows: list[Result]) -> str:
    """Means over the seeds, as a Markdown table."""
    systems = list(dict.fromkeys(row["system"] for row in rows))
    columns = [key for key in rows[0] if key not in ("system", "seed")]
    timed = "seconds" in columns
    heads = [""] + [f"{systems[0]} is faster by"] * timed + columns
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]

    def mean(system: str, column: str) -> float | None:
        chosen = [row for row in rows if row["system"] == system]
        values = [row[column] for row in chosen if row.get(column) is not None]
        return float(np.mean(values)) if values else None

    for system in systems:
        numbers = {column: mean(system, column) for column in columns}
        cells = [system]
        if timed:
            ratio = (numbers["seconds"] or 0) / (mean(systems[0], "seconds") or 1)
            cells.append(f"{ratio:.1f}")
        cells += [
            "" if value is None else f"{value:,.0f}" if value > 20 else f"{value:.3f}"
            for value in numbers.values()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
