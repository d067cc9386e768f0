"""Words against the cases of Unicode's Standard Annex 29 (word_break_test.txt)."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import tensorflow as tf

from components import text

CASES = Path(__file__).with_name("word_break_test.txt")
INVISIBLE = "[\u00ad\u0308\u200d\u2060]*"  # of the cases, what Annex 29 looks through


def words_of(documents: list[str]) -> list[list[str]]:
    found = text.tokenize(tf.constant(documents), tokenizer="words", lowercase=False)
    return [[word.decode() for word in words] for words in found.to_list()]


def cases() -> list[list[str]]:
    """Texts as Annex 29 divides them."""
    lines = CASES.read_text(encoding="utf-8").splitlines()
    return [
        ["".join(chr(int(code, 16)) for code in part.split()) for part in line.split("÷")]
        for line in lines
        if line and not line.startswith("#")
    ]


def is_word(part: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in part)


def difference(words: list[str], found: list[str]) -> str:
    """Why the tokeniser finds other words than Annex 29, of the reasons that its module gives."""
    split = [part for word in words for part in re.split(f"[_.:,]{INVISIBLE}", word)]
    if spelled([part for part in split if is_word(part)]) == found:
        signs = {sign for word in words for sign in re.findall("[_.:,]", word)}
        return f"{' '.join(signs)} separates" if signs else "kana stand alone"
    if re.sub(f"'{INVISIBLE}", "", "".join(found)) == "".join(words):
        return "an apostrophe joins a letter and a digit"
    return "unknown"


def spelled(words: list[str]) -> list[str]:
    """Words less their invisible characters, as tokens are."""
    return [token for tokens in words_of(words) for token in tokens]


def test_words_are_those_of_annex_29_but_for_what_is_on_purpose() -> None:
    texts = cases()
    found = words_of(["".join(parts) for parts in texts])
    expected = [[part for part in parts if is_word(part)] for parts in texts]
    flat = [word for words in expected for word in words]
    # A word that the tokeniser would split stays as it is: it differs.
    tokens = [
        made[0] if len(made) == 1 else word for word, made in zip(flat, words_of(flat), strict=True)
    ]
    ends = iter(tokens)
    expected = [[next(ends) for _ in words] for words in expected]
    differing = [pair for pair in zip(expected, found, strict=True) if pair[0] != pair[1]]
    assert (len(texts), len(texts) - len(differing)) == (1823, 1676)
    assert Counter(difference(*pair) for pair in differing) == {
        "_ separates": 74,
        ": separates": 15,
        ". separates": 10,
        ", separates": 11,
        "an apostrophe joins a letter and a digit": 34,
        "kana stand alone": 3,
    }
