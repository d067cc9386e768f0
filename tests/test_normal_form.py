"""NFC in TensorFlow ops against Python's."""

import random
import time
import unicodedata

import pytest
import tensorflow as tf

from components import normal_form

# Letters and marks that interact: stacked, blocked, excluded from composition, singletons, Hangul.
HARD = (
    "aeiouAE\u0131i\u00df\u1e69\u1ed9\u01d5"
    "\u0301\u0302\u0307\u0323\u0327\u0328\u0308\u0304\u0338\u0345\u0313\u0314\u0342\u0344\u0340"
    "\u1f82\u03b1\u03c9\u2126\u212a\u212b\u0387"
    "\u1100\u1161\u11a7\u11a8\u11c2\uac00\uac01\u1112\u1175"
    "\u0928\u093c\u0929\u0958\u09c7\u09be\u09d7\u0dd9\u0dcf\u0dca\u0ddd\u0cc6\u0cc2\u0cd5"
    "\u304b\u3099\u304c\uf900\U0002f800\u2adc\ufb1d\u05b4\u05d9\u0f73\u0f71\u0f72\U0001d15f "
)


def nfc(texts: list[str], undotted: bool = False) -> list[str]:
    made = normal_form.nfc(tf.constant(texts, tf.string), undotted=undotted)
    return [text.decode() for text in made.numpy()]


def test_every_character_is_as_in_python() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert nfc(characters) == [unicodedata.normalize("NFC", c) for c in characters]
    apart = [unicodedata.normalize("NFD", c) for c in characters]
    chosen = [c for c, parts in zip(characters, apart, strict=True) if c != parts]
    apart = [parts for c, parts in zip(characters, apart, strict=True) if c != parts]
    assert nfc(apart) == [unicodedata.normalize("NFC", c) for c in chosen]


@pytest.mark.parametrize("seed", range(5))
def test_hard_cases_are_as_in_python(seed: int) -> None:
    draw = random.Random(seed)
    texts = ["".join(draw.choices(HARD, k=draw.randrange(9))) for _ in range(5000)]
    assert nfc(texts) == [unicodedata.normalize("NFC", text) for text in texts]


def test_no_letter_both_takes_and_is_taken() -> None:
    """`_composed` looks at all letters at once; a chain of such pairs would need a round each."""
    tables = normal_form._tables(False)
    first, second = tables.pairs >> 21, tables.pairs & 0x1FFFFF
    assert not set(first.tolist()) & {
        c for c in second.tolist() if not unicodedata.combining(chr(c))
    }


def test_a_dot_above_i_can_be_left_out() -> None:
    texts = [
        "i\u0307",
        "i\u0327\u0307",
        "i\u0307\u0301",
        "i\u0301\u0307",
        "\u012f\u0307",
        "j\u0307",
    ]
    assert nfc(texts, undotted=True) == ["i", "i\u0327", "í", "í\u0307", "\u012f", "j\u0307"]
    assert nfc(texts) == [unicodedata.normalize("NFC", text) for text in texts]


def test_text_in_normal_form_is_not_decoded() -> None:
    settled = "Straße ελλάδα İstanbul tiếng Việt 한국어 日本語 がぎ हिन"
    assert unicodedata.is_normalized("NFC", settled)
    assert tf.strings.regex_full_match(settled, f"[^{normal_form._tables(True).unsettled}]*")


def test_long_texts_do_not_hurt() -> None:
    text = "e\u0301\u0323" * 5000 + "a" + "\u0301\u0327" * 5000
    nfc(["e\u0301"])
    started = time.perf_counter()
    assert nfc([text]) == [unicodedata.normalize("NFC", text)]
    assert time.perf_counter() - started < 1  # some 20 ms; it must not be quadratic
