"""The tokeniser against an independent reading of its rule."""

import random
import time
import unicodedata

import pytest
import tensorflow as tf

from components import text

ALPHABET = (
    "aZéß1²½Ωs'’ʼ \n\r\t\v\u00a0\u2028\u3000_-.,😀❤\ufe0f\u0301\u0327\u0307"
    '\u00ad\u200b\u200c\u200d\u200e\u094d·"צל׳״֊˥中文々〇ひらカター゙東한국ไทยनमस्ते\x00\ufeff\ufffd'
)
INVISIBLE, JOINERS, HEBREW = "\u00ad\u200e\ufeff\ufe0f", "\u200c\u200d", "צל"
WITHOUT_JOINERS = "aZéßΩs׳״֊" + HEBREW


def kind(character: str) -> str:
    """How a character takes part in words."""
    if character in {*INVISIBLE, *JOINERS, "׳", "˥"}:
        return "attached"
    if character in {*"'’״֊\u2027"}:
        return "inner"
    name = unicodedata.name(character, "")
    if (
        name.startswith(("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER"))
        or character in "々〇ー"
    ):
        return "alone"
    major = unicodedata.category(character)[0]
    return {"L": "letter", "N": "letter", "M": "attached"}.get(major, "other")


def last_letter(text: str) -> str:
    return next((character for character in reversed(text) if kind(character) != "attached"), "")


def naive_words(document: str) -> list[str]:
    """A character at a time; a sign inside a word waits for the letter behind it."""
    words: list[str] = []
    word, waiting = "", ""

    def close(drop: bool = False) -> None:
        nonlocal word, waiting
        words.extend([naive_token(word if drop else word + waiting)] if word else [])
        word, waiting = "", ""

    for place, character in enumerate(document):
        what = kind(character)
        before, behind = last_letter(document[:place]), last_letter(document[:place:-1])
        if character == "·" and before.isalpha() and behind.isalpha():
            what, character = "inner", "\u2027"
        if character == '"' and {before, behind} <= {*HEBREW}:
            what, character = "inner", "״"
        is_alone = bool(word) and kind(word[0]) == "alone"
        if what == "attached" and word and waiting:
            waiting += character
        elif (
            what == "attached"
            and word
            and not (is_alone and unicodedata.category(character)[0] != "M")
        ):
            word += character
        elif what == "letter":
            if is_alone:
                close()
            word, waiting = word + waiting + character, ""
        elif what == "inner" and word and not waiting and not is_alone:
            waiting = character
        else:
            close(drop=what == "inner")
            word = character if what == "alone" else ""
    close()
    return words


def naive_token(word: str) -> str:
    """What is typed in several ways in one, the rest of Unicode's equivalences by Python."""
    word = "".join(character for character in word if character not in INVISIBLE)
    token = ""
    for place, character in enumerate(word):
        rest = word[place + 1 :]
        in_hebrew = last_letter(token) in HEBREW and bool(token)
        is_last = all(kind(following) == "attached" for following in rest)
        if character in "'ʼ" and in_hebrew:
            character = "׳"
        elif kind(character) == "inner" and is_last:
            break
        elif character == "’":
            character = "׳" if in_hebrew else "'"
        elif character == "ʼ":
            around = last_letter(word[:place]), rest[:1]
            if all(letter and letter != "ʼ" and kind(letter) == "letter" for letter in around):
                character = "'"
        elif character in JOINERS and (token[-1] in JOINERS or joiner_is_idle(token)):
            continue
        token += character
    if token[-1] in JOINERS and token[-2] != "\u094d":
        token = token[:-1]
    return unicodedata.normalize("NFC", token.replace("\u2027", "·"))


def joiner_is_idle(before: str) -> bool:
    marks = "".join(c for c in ALPHABET if unicodedata.category(c) in ("Mn", "Mc"))
    return before.rstrip(marks)[-1:] in {*WITHOUT_JOINERS}


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
        ("cafe\u0301 CAFÉ", ["café", "café"]),
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


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # Joiners stay where they tell words apart, or show which form a virama takes.
        ("می\u200cخواهم، می\u200c\u200cخواهم می\u200c", ["می\u200cخواهم"] * 2 + ["می"]),
        ("ന്\u200d അവന്\u200d", ["ന്\u200d", "അവന്\u200d"]),
        ("ശ്രീ ශ්\u200dරී हिन्दी", ["ശ്രീ", "ශ්\u200dරී", "हिन्दी"]),
        ("Auf\u200cla\u200dge", ["auflage"]),
        ("ᠬᠠᠷ\u180eᠠ", ["ᠬᠠᠷ\u180eᠠ"]),
        # Others never split and are left out.
        ("co\u00adop \u200fcoop\u200e, wo\u2060rd b\ufeffom", ["coop", "coop", "word", "bom"]),
        ("don\u00ad’\u2060t", ["don't"]),
        ("葛\U000e0100城 a\ufe0fb", ["葛", "城", "ab"]),
        ("Ինչո՞ւ ինչու", ["ինչու", "ինչու"]),
        # Apostrophes, and letters that look like one.
        ("м'ята м’ята мʼята м‘ята м＇ята", ["м'ята"] * 5),
        ("‘tis the dogs’ don‘t", ["tis", "the", "dogs", "don't"]),
        ("ʼashkii yáʼátʼééh ʻokina Hawaiʻi", ["ʼashkii", "yá'át'ééh", "ʻokina", "hawai'i"]),
        ("o‘zbek oʻzbek o'zbek", ["o'zbek"] * 3),
        # Geresh and gershayim, however they are typed; quotes are none.
        ('צה"ל צה״ל צה”ל "צהל" 5"', ["צה״ל"] * 3 + ["צהל", "5"]),
        ("ג' (ג׳), צ'יפס צ’יפס", ["ג׳", "ג׳", "צ׳יפס", "צ׳יפס"]),
        ('x"צ צ"x', ["x", "צ", "צ", "x"]),
        ("שָׁלוֹם مُحَمَّد", ["שָׁלוֹם", "مُحَمَّد"]),
        # The middle dot joins letters, not numbers.
        ("col·lecció l·l·l 2·3 x·5 5·x a · b", ["col·lecció", "l·l·l", *"23x55xab"]),
        ("col\u0387lecció col\u2027lecció", ["col·lecció"] * 2),
        # Numbers and names are split as before.
        ("1,000.5 snake_case a.b:c", ["1", "000", "5", "snake", "case", "a", "b", "c"]),
        ("a\u200bb\u2029c\u0085d\u00a0e\u3000f\u202fg", [*"abcdefg"]),
        # Lower case.
        ("İstanbul I\u0307STANBUL istanbul ISPARTA", [*["istanbul"] * 3, "isparta"]),
        ("ΟΔΟΣ οδος ΟΔΟΣ.Α Σ.Α. Α.Σ.", ["οδος", "οδος", "οδος", "α", "σ", "α", "α", "σ"]),
    ],
)
def test_words_of_many_scripts(document: str, expected: list[str]) -> None:
    assert tokens_of([document]) == [expected]


@pytest.mark.parametrize(
    "document",
    [
        "Đường phố Việt Nam, tiếng Việt",
        "한국어는 교착어에 속한다",
        "ἐν ἀρχῇ ἦν ὁ λόγος ᾧ ΑΙ\u0345",
        "ढ़ क़ानून हिन्दी ক্ষুদ্র য়ে কো",
        "がぎぐ パピプ ガ",
        "Ångström \u212bngstrom \u212a Å",
        "שָׁלוֹם ﬡ שׁ",
        "豈更車 \U0002f800",
        "İi̇ į̇ ṩ ṩ",
        "සො බෝ மொழி ಕೋ",
    ],
)
def test_equivalent_texts_have_the_same_tokens(document: str) -> None:
    composed, apart = (unicodedata.normalize(form, document) for form in ("NFC", "NFD"))
    (expected,) = tokens_of([composed])
    assert tokens_of([document, apart]) == [expected, expected]
    assert expected == [unicodedata.normalize("NFC", token) for token in expected]


def test_voiced_kana_are_one_token() -> None:
    assert tokens_of(["か\u3099き は\u309a ｶﾞ"]) == [["が", "き", "ぱ", "ｶﾞ"]]


def test_case_can_be_kept() -> None:
    assert tokens_of(["Straße ÉTÉ"], lowercase=False) == [["Straße", "ÉTÉ"]]


def test_whitespace_only_splits() -> None:
    document = "我们 在\u3000北京。\u00a0C++ don’t\u200bCafe\u0301 co\u00adop\u2028İ\ufeffaBcD9\r\n"
    tokens = ["我们", "在", "北京。", "C++", "don’t", "Cafe\u0301", "co\u00adop", "İ", "aBcD9"]
    assert tokens_of([document], tokenizer="whitespace", lowercase=False) == [tokens]
    assert tokens_of(["İ aBcD9"], tokenizer="whitespace", lowercase=True) == [["i", "abcd9"]]


@pytest.mark.parametrize(
    ("tokenizer", "expected"), [("words", "צה״ל, don't!"), ("whitespace", 'צה"ל, don’t!')]
)
def test_words_are_spelled_as_their_tokeniser_spells_them(tokenizer: str, expected: str) -> None:
    given = tf.constant(['צה"ל, Don’t!'])
    spelled = text.spell(given, tokenizer=tokenizer, lowercase=True).numpy()
    assert [word.decode() for word in spelled] == [expected]


def test_batching_changes_nothing() -> None:
    documents = ["one two", "", "three"]
    assert tokens_of(documents) == [tokens_of([document])[0] for document in documents]


@pytest.mark.parametrize("lowercase", [True, False])
def test_tokens_are_in_one_form_and_what_the_tokeniser_makes_of_them(lowercase: bool) -> None:
    draw = random.Random(9)
    letters = ALPHABET.replace("\ufffd", "") + 2 * (
        "İIiΣσς\u0307\u0323\u0328\u212a\u212b\u0387\u2027ᄀ\u1161\u11a8가각\uf900がか\u3099ｶﾞ\u0958\u093cक"
        "\u09c7\u09beΑάᾳ\u0345ʼʻ‘՚＇՞\u180e'’"
    )
    documents = ["".join(draw.choices(letters, k=draw.randrange(9))) for _ in range(3000)]
    split = tokens_of(documents, lowercase=lowercase)
    for form in ("NFC", "NFD"):
        equivalent = [unicodedata.normalize(form, document) for document in documents]
        assert tokens_of(equivalent, lowercase=lowercase) == split
    tokens = [token for document in split for token in document]
    assert tokens_of(list(tokens), lowercase=lowercase) == [[token] for token in tokens]


def test_a_long_token_does_not_hurt() -> None:
    """Neither in time: each step of 10,000 characters takes some 10 ms."""
    document = "ń" * 5000 + "n\u0301" * 5000 + "·a" * 5000 + "’a" * 5000
    expected = "ń" * 10000 + "·a" * 5000 + "'a" * 5000
    started = time.perf_counter()
    assert tokens_of([document]) == [[expected]]
    assert time.perf_counter() - started < 2
