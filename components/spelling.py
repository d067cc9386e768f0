r"""What a token is: the patterns of `components.text`, and the same tokeniser without TensorFlow.

A look-up of one word must not wait for TensorFlow. Arrow brings the same regular expressions
(RE2), Python the same normal form. Lower case is Python's here and ICU's there. A test compares
the two tokenisers, for all code points.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Tokenizer = Literal["words", "whitespace"]
Rewrites = Sequence[tuple[str, str]]


def character_class(codes: Iterable[int]) -> str:
    r"""Code points as a class for RE2, less its brackets.

    >>> character_class([0x61, 0x62, 0x63, 0xE9])
    '\\x{61}-\\x{63}\\x{e9}'
    """
    ranges: list[tuple[int, int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], code
        else:
            ranges.append((code, code))
    return "".join(
        rf"\x{{{first:x}}}" + (rf"-\x{{{last:x}}}" if last > first else "")
        for first, last in ranges
    )


# Classes of RE2, less their brackets. Format characters are those of Annex 29, but for joiners and
# the zero width space, which separates. CGJ and variation selectors are as invisible.
# Han of Unicode 15.1 is letters to Arrow's RE2 and, so far, unassigned to TensorFlow 2.21's.
_NEW_HAN = r"\x{2EBF0}-\x{2EE5D}"
_LETTER = rf"\pL{_NEW_HAN}"
_LETTERS = rf"{_LETTER}\pN"
_INVISIBLE = (
    r"\x{AD}\x{34F}\x{61C}\x{70F}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}"
    r"\x{2066}-\x{206F}\x{FE00}-\x{FE0F}\x{FEFF}\x{FFF9}-\x{FFFB}\x{13430}-\x{1343F}"
    r"\x{1BCA0}-\x{1BCA3}\x{1D173}-\x{1D17A}\x{E0001}\x{E0020}-\x{E007F}\x{E0100}-\x{E01EF}"
)
_INTONATION = r"\x{55B}\x{55C}\x{55E}\x{55F}"  # Armenian's ! and ? stand behind a vowel.
_JOINERS = r"\x{180E}\x{200C}\x{200D}"
_GERESH, _GERSHAYIM = "\u05f3", "\u05f4"
_HEBREW = r"\x{5D0}-\x{5EA}\x{5EF}-\x{5F2}\x{FB1D}\x{FB1F}-\x{FB28}\x{FB2A}-\x{FB4F}"
# Modifiers that are no letters to RE2: tones, mostly.
_TONES = (
    r"\x{2C2}-\x{2C5}\x{2D2}-\x{2D7}\x{2DE}\x{2DF}\x{2E5}-\x{2EB}\x{2ED}\x{2EF}-\x{2FF}"
    r"\x{A708}-\x{A716}\x{A720}\x{A721}\x{A789}\x{A78A}\x{AB5B}"
)
# What stays with the letter before it.
_ATTACHED = rf"\pM{_INVISIBLE}{_INTONATION}{_JOINERS}{_GERESH}{_TONES}"
# What stays between two letters, alone: apostrophes, gershayim, Armenian's hyphen, the hyphenation
# point. The last stands for all middle dots between letters.
_APOSTROPHES = "’‘＇՚"
_POINT, DOT = "\u2027", "·"
_RARE_INNER = rf"{_APOSTROPHES}{_GERSHAYIM}\x{{58A}}{_POINT}"
_INNER = rf"'{_RARE_INNER}"
_MODIFIERS = "ʼʻ"

# RE2 has no look-around, so a separator is spelled out: it starts at a character that cannot stand
# inside a word and swallows everything up to the next letter or digit. White space between two
# words is left as it is: most separators are that, and each replacement costs time. For the same
# reason, and because Hebrew keeps it, an apostrophe before white space waits for `finish`.
SEPARATOR = (
    rf"[^{_LETTERS}{_ATTACHED}{_INNER}\s][^{_LETTERS}]*|\s[^{_LETTERS}]+|^[^{_LETTERS}]+"
    rf"|[{_INNER}][{_ATTACHED}]*[{_INNER}][^{_LETTERS}]*"
)
# The marks of repetition and length are of no script.
_KANA_MARKS = r"\x{3031}-\x{3035}\x{30FC}\x{FF70}"
UNSEGMENTED = (
    rf"([\p{{Han}}{_NEW_HAN}\p{{Hiragana}}\p{{Katakana}}{_KANA_MARKS}][\pM\x{{FF9E}}\x{{FF9F}}]*)"
)
WHITE_SPACE = r"[\s\pZ\x{85}\x{200B}\x{FEFF}]+"

_VIRAMAS = character_class(c for c in range(0x20000) if unicodedata.combining(chr(c)) == 9)
_UNJOINED = r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}]\pM*"
_OTHER_LETTER = rf"[^{_INNER}{_MODIFIERS}{_ATTACHED}]"
_MODIFIED = rf"({_OTHER_LETTER}[{_ATTACHED}]*)[{_MODIFIERS}]({_OTHER_LETTER})"
# Of words, in this order. Where a pattern has a letter on both sides, once is every second place.
REWRITES = (
    (rf"[{_INVISIBLE}{_INTONATION}]", ""),
    (rf"[{_RARE_INNER}][{_ATTACHED}]*$", ""),
    (rf"[{_APOSTROPHES}]", "'"),
    *2 * [(rf"([{_HEBREW}][{_ATTACHED}]*)['{_MODIFIERS}]", rf"\1{_GERESH}")],
    *2 * [(_MODIFIED, r"\1'\2")],
    (rf"'[{_ATTACHED}]*$", ""),
    *2 * [(rf"({_UNJOINED})[{_JOINERS}]+", r"\1")],
    (rf"([{_JOINERS}])[{_JOINERS}]+", r"\1"),
    (rf"([^{_VIRAMAS}])[{_JOINERS}]$", r"\1"),
    (_POINT, DOT),
)
REWRITTEN = rf"{_INVISIBLE}{_INTONATION}{_JOINERS}{_RARE_INNER}{_MODIFIERS}{_HEBREW}"
# Lower case sees a sigma's neighbours in the text, of which Σ.Α. shows more than the word.
SIGMAS = ((rf"([{_LETTER}].*)σ(\pM*)$", r"\1ς\2"), (r"^ς(\pM*)$", r"σ\1"))
# Signs that are part of a word only between certain letters: what finds one, and the rewrites to a
# character of `_INNER`.
DOTS = ("\u0387", _POINT)  # They become DOT first.
_BEFORE_LETTER = rf"{DOT}([{_ATTACHED}]*[{_LETTER}])"
_BEHIND_NUMBER = (rf"(\pN[{_ATTACHED}]*){_POINT}", rf"\1{DOT}")


def _gershayim(quote: str) -> tuple[str, Rewrites]:
    before_hebrew = rf"{quote}([{_ATTACHED}]*[{_HEBREW}])"
    between = (rf"([{_HEBREW}][{_ATTACHED}]*){before_hebrew}", rf"\1{_GERSHAYIM}\2")
    return before_hebrew, 2 * [between]


INNER_SIGNS: Sequence[tuple[str, Rewrites]] = (
    (_BEFORE_LETTER, [(_BEFORE_LETTER, rf"{_POINT}\1"), _BEHIND_NUMBER]),
    *map(_gershayim, '"”'),
)

# What lower case makes of the Turkish capital, typed as two characters: see `normal_form.nfc`.
_DOT_ABOVE = "\u0307"
_BELOW = "".join(chr(c) for c in range(0x20000) if 0 < unicodedata.combining(chr(c)) < 230)
_DOTTED = re.compile(f"(i[{_BELOW}]*){_DOT_ABOVE}+")
# All but the capitals of Unicode 14, which the ICU of TensorFlow 2.21 (Unicode 13) leaves.
_LOWERED = re.compile("[^\u2c2f\ua7c0\ua7d0\ua7d6\ua7d8\U00010570-\U00010595]+")
_WHITE = " \t\n\v\f\r"  # Of ASCII: what TensorFlow strips, and splits at.
_PLAIN = re.compile(r"[^']*(?:'[A-Za-z0-9][^']*)*", re.ASCII)


def spell(texts: Sequence[str], *, tokenizer: Tokenizer, lowercase: bool) -> list[str]:
    r"""What `components.text.spell` makes of texts, white space around them aside.

    Args:
        texts: Surrogates stand for bytes that are no UTF-8, as the command line has them.
        tokenizer: "words" or "whitespace".
        lowercase: Whether "A" and "a" are one letter.

    >>> spell(["Don’t!", " King\n"], tokenizer="words", lowercase=True)
    ["don't!", 'king']
    """
    normal = [_normalized(text.strip(_WHITE), lowercase) for text in texts]
    if tokenizer == "whitespace" or all(map(_is_plain, normal)):
        return normal
    return _finished(_with_inner_signs(pa.array(normal, pa.string())), lowercase)


def tokenize(texts: Sequence[str], *, tokenizer: Tokenizer, lowercase: bool) -> list[list[str]]:
    """The tokens of texts, those that `components.text.tokenize` makes.

    Args:
        texts: As `spell` takes them.
        tokenizer: "words" or "whitespace".
        lowercase: Whether "A" and "a" are one letter.

    >>> tokenize(["Don’t 'stop', 3 Cafés!", "東京 2020年"], tokenizer="words", lowercase=True)
    [["don't", 'stop', '3', 'cafés'], ['東', '京', '2020', '年']]
    """
    text = pa.array([_normalized(text, lowercase) for text in texts], pa.string())
    if tokenizer == "whitespace":
        text = _replaced(text, [(WHITE_SPACE, " ")])
        return [_ascii_split(line) for line in text.to_pylist()]
    text = _with_inner_signs(text)
    text = _replaced(text, [(UNSEGMENTED, r" \1 "), (SEPARATOR, " ")])
    words = [_ascii_split(line) for line in text.to_pylist()]
    types = list({word: None for line in words for word in line})
    tokens = dict(zip(types, _finished(pa.array(types, pa.string()), lowercase), strict=True))
    return [[tokens[word] for word in line] for line in words]


def _ascii_split(line: str) -> list[str]:
    return [word for word in re.split(f"[{_WHITE}]+", line) if word]


def _normalized(text: str, lowercase: bool) -> str:
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    valid = valid.replace("\0", " ")
    if not lowercase or valid.isascii():
        return valid.lower() if lowercase else valid
    return _LOWERED.sub(lambda found: found[0].lower(), valid.replace("İ", "i"))


def _is_plain(text: str) -> bool:
    """Whether neither signs nor normal form could change it."""
    return text.isascii() and _PLAIN.fullmatch(text) is not None


def _replaced(texts: pa.Array, rewrites: Rewrites) -> pa.Array:
    for pattern, replacement in rewrites:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    return texts


def _with_inner_signs(texts: pa.Array) -> pa.Array:
    texts = _replaced(texts, [(dot, DOT) for dot in DOTS])
    for _, rewrites in INNER_SIGNS:
        texts = _replaced(texts, rewrites)
    return texts


def _finished(words: pa.Array, lowercase: bool) -> list[str]:
    rewritten = _replaced(words, [*REWRITES, *(SIGMAS if lowercase else ())]).to_pylist()
    return [_nfc(word, undotted=lowercase) for word in rewritten]


def _nfc(word: str, *, undotted: bool) -> str:
    if undotted and _DOT_ABOVE in (apart := unicodedata.normalize("NFD", word)):
        word = _DOTTED.sub(r"\1", apart)
    return unicodedata.normalize("NFC", word)
