"""The tokeniser against an independent reading of its rule."""

import random
import unicodedata

import pytest
import tensorflow as tf

from components import text

APOSTROPHES = "'’"
ALPHABET = (
    "aZéß1²½Ως'’ \n\r\t\v\u00a0\u2028\u3000_-.,😀❤\ufe0f\u200d\u0301\u0327"
    "中文々〇ひらカター゙東한국ไทยनमस्ते\x00\ufeff\ufffd"
)


def naive_words(document: str) -> list[str]:
    """A token is letters, marks and digits with inner apostrophes; Han and kana stand alone."""

    def kind(character: str) -> str:
        name = unicodedata.name(character, "")
        if name.startswith(("CJK UNIFIED", "CJK COMPAT", "HIRAGANA LETTER", "KATAKANA LETTER")) or (
            character in "々〇"
        ):
            return "alone"
        major = unicodedata.category(character)[0]
        return {"L": "base", "N": "base", "M": "mark"}.get(major, "other")

    tokens: list[str] = []
    word, inside_alone = "", False
    characters = document.replace("’", "'")
    for place, character in enumerate(characters):
        what = kind(character)
        if what == "mark" and word:
            word += character
        elif what == "alone":
            tokens += [word] if word else []
            word, inside_alone = character, True
        elif what == "base":
            if inside_alone:
                tokens.append(word)
                word, inside_alone = "", False
            word += character
        elif (
            character == "'"
            and word
            and not inside_alone
            and kind(characters[place + 1 : place + 2] or " ") == "base"
        ):
            word += character
        else:
            tokens += [word] if word else []
            word, inside_alone = "", False
    return tokens + ([word] if word else [])


def tokens_of(documents: list[str | bytes], **options: object) -> list[list[str]]:
    settings = {"tokenizer": "words", "lowercase": True} | options
    ragged = text.tokenize(tf.constant(documents, tf.string), **settings)
    return [[token.decode() for token in document] for document in ragged.to_list()]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("The quick-brown fox.", ["the", "quick", "brown", "fox"]),
        ("Don’t 'quote' rock''n roll' 'tis", ["don't", "quote", "rock", "n", "roll", "tis"]),
        ("3.14 x² 10,000", ["3", "14", "x²", "10", "000"]),
        ("東京 is 東京, ラーメン", [*"東京", "is", *"東京", *"ラーメン"]),
        ("한국어 unsegmented ภาษาไทย", ["한국어", "unsegmented", "ภาษาไทย"]),
        ("I ❤️ you 👩‍👩‍👧", ["i", "you"]),
        ("cafe\u0301 CAFÉ", ["cafe\u0301", "café"]),
        ("a\x00b", ["a", "b"]),
        (b"a\xffb \xc3\x28", ["a", "b"]),
        ("\ufeffbom\r\n", ["bom"]),
        ("", []),
        (" \t\r\n…", []),
    ],
)
def test_words_follow_the_rule(document: str | bytes, expected: list[str]) -> None:
    assert tokens_of([document]) == [expected]


@pytest.mark.parametrize("seed", range(5))
def test_words_equal_a_naive_reader(seed: int) -> None:
    draw = random.Random(seed)
    documents = ["".join(draw.choices(ALPHABET, k=draw.randrange(12))) for _ in range(2000)]
    assert tokens_of(documents, lowercase=False) == [naive_words(text) for text in documents]


def test_case_can_be_kept() -> None:
    assert tokens_of(["Straße ÉTÉ"], lowercase=False) == [["Straße", "ÉTÉ"]]


def test_whitespace_only_splits() -> None:
    assert tokens_of(["我们 在\u3000北京。\u00a0C++ don’t\r\n"], tokenizer="whitespace") == [
        ["我们", "在", "北京。", "c++", "don’t"]
    ]


def test_batching_changes_nothing() -> None:
    documents = ["one two", "", "three"]
    assert tokens_of(documents) == [tokens_of([document])[0] for document in documents]


def test_tokens_are_what_the_tokeniser_makes_of_them() -> None:
    draw = random.Random(9)
    documents = ["".join(draw.choices(ALPHABET, k=30)) for _ in range(200)]
    tokens = [token for document in tokens_of(documents) for token in document]
    assert tokens_of(list(tokens)) == [[token] for token in tokens]
