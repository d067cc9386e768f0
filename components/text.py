r"""THE tokeniser, in tf.strings ops: the Beam job, the evaluator and the SavedModel use this one.

`words` follows Unicode: a token is a run of letters and digits, with what Unicode's word boundaries
(Standard Annex 29) keep inside a word. Everything else separates.

- Combining marks stay with their letter.
- Apostrophes of all sorts between two of them become the plain one: `don’t`, Ukrainian `мʼята`,
  Uzbek `o‘zbek`. The letters ʼ and ʻ stay at the edge of a word, where an apostrophe is a quote.
- Hebrew's geresh and gershayim are one character each, however they were typed: `צה"ל` is `צה״ל`.
- A middle dot stays between letters: Catalan `col·lecció`.
- Joiners stay where they tell words apart: Persian `می‌خواهم`, and behind a virama. Other format
  characters (soft hyphens, marks of direction, word joiners, a byte order mark), variation
  selectors and Armenian's signs of intonation are left out; what they stand in stays one word.
- Tokens are in normal form C. Lower case makes İ an i, and a sigma at the end of a word ς.

Unlike there, each Han, Hiragana or Katakana character is a token of its own; `_`, `.`, `:` and `,`
separate, in numbers, too: 3.14 is two tokens; an apostrophe also joins a letter and a digit; and
the narrow no-break space separates. Scripts without spaces (Thai, Khmer) must be segmented before.

`whitespace` splits at Unicode white space, the zero width space and the byte order mark, and
changes nothing else: for text segmented before.

Invalid UTF-8 becomes U+FFFD, which no token of `words` holds.
"""

import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

import tensorflow as tf

from components.normal_form import change_others, character_class, nfc, unsettled
from components.phrases import DELIMITER

Tokenizer = Literal["words", "whitespace"]
LookUp = Callable[[tf.Tensor], tf.Tensor]

# Classes of RE2, less their brackets. Format characters are those of Annex 29, but for joiners and
# the zero width space, which separates. CGJ and variation selectors are as invisible.
_LETTERS = r"\pL\pN"
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
_POINT, _DOT = "\u2027", "·"
_RARE_INNER = rf"{_APOSTROPHES}{_GERSHAYIM}\x{{58A}}{_POINT}"
_INNER = rf"'{_RARE_INNER}"
_MODIFIERS = "ʼʻ"

# RE2 has no look-around, so a separator is spelled out: it starts at a character that cannot stand
# inside a word and swallows everything up to the next letter or digit. White space between two
# words is left as it is: most separators are that, and each replacement costs time. For the same
# reason, and because Hebrew keeps it, an apostrophe before white space waits for `finish`.
_SEPARATOR = (
    rf"[^{_LETTERS}{_ATTACHED}{_INNER}\s][^{_LETTERS}]*|\s[^{_LETTERS}]+|^[^{_LETTERS}]+"
    rf"|[{_INNER}][{_ATTACHED}]*[{_INNER}][^{_LETTERS}]*"
)
# The marks of repetition and length are of no script.
_KANA_MARKS = r"\x{3031}-\x{3035}\x{30FC}\x{FF70}"
_UNSEGMENTED = rf"([\p{{Han}}\p{{Hiragana}}\p{{Katakana}}{_KANA_MARKS}][\pM\x{{FF9E}}\x{{FF9F}}]*)"
_WHITE_SPACE = r"[\s\pZ\x{85}\x{200B}\x{FEFF}]+"

_VIRAMAS = character_class(c for c in range(0x20000) if unicodedata.combining(chr(c)) == 9)
_UNJOINED = r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}]\pM*"
_OTHER_LETTER = rf"[^{_INNER}{_MODIFIERS}{_ATTACHED}]"
_MODIFIED = rf"({_OTHER_LETTER}[{_ATTACHED}]*)[{_MODIFIERS}]({_OTHER_LETTER})"
# Of words, in this order. Where a pattern has a letter on both sides, once is every second place.
_REWRITES = (
    (rf"[{_INVISIBLE}{_INTONATION}]", ""),
    (rf"[{_RARE_INNER}][{_ATTACHED}]*$", ""),
    (rf"[{_APOSTROPHES}]", "'"),
    *2 * [(rf"([{_HEBREW}][{_ATTACHED}]*)['{_MODIFIERS}]", rf"\1{_GERESH}")],
    *2 * [(_MODIFIED, r"\1'\2")],
    (rf"'[{_ATTACHED}]*$", ""),
    *2 * [(rf"({_UNJOINED})[{_JOINERS}]+", r"\1")],
    (rf"([{_JOINERS}])[{_JOINERS}]+", r"\1"),
    (rf"([^{_VIRAMAS}])[{_JOINERS}]$", r"\1"),
    (_POINT, _DOT),
)
_REWRITTEN = rf"{_INVISIBLE}{_INTONATION}{_JOINERS}{_RARE_INNER}{_MODIFIERS}{_HEBREW}"
# Lower case sees a sigma's neighbours in the text, of which Σ.Α. shows more than the word.
_SIGMAS = ((r"(\pL.*)σ(\pM*)$", r"\1ς\2"), (r"^ς(\pM*)$", r"σ\1"))


def normalize(text: tf.Tensor, *, lowercase: bool) -> tf.Tensor:
    r"""Valid UTF-8 without NUL bytes, in lower case if asked.

    Args:
        text: string, any shape.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string, the shape of `text`; a NUL is a space, an invalid byte U+FFFD.

    >>> normalize(tf.constant(["ÉTÉ", b"A\x00B\xff"]), lowercase=True).numpy().tolist()
    [b'\xc3\xa9t\xc3\xa9', b'a b\xef\xbf\xbd']
    """
    # tf.strings.lower ends at the first NUL and drops the rest of the document.
    text = tf.strings.regex_replace(text, r"\x00", " ")
    if lowercase:  # ICU repairs invalid bytes on the way, as unicode_transcode does.
        text = tf.strings.regex_replace(text, "İ", "i")  # Else a dot stays above the i.
        return tf.strings.lower(text, encoding="utf-8")
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


def spell(text: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.Tensor:
    """`text` with the letters of its tokens, and whatever stands between them as it was.

    Args:
        text: string [texts].
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string [texts]. A token stays as it is.

    >>> spell(tf.constant(["Don’t!"]), tokenizer="words", lowercase=True).numpy().tolist()
    [b"don't!"]
    """
    text = normalize(text, lowercase=lowercase)
    if tokenizer == "words":
        text = _with_inner_signs(text)
    return finish(text, tokenizer=tokenizer, lowercase=lowercase)


def separate(text: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.Tensor:
    """The words of documents, with ASCII white space between them and perhaps around them.

    Args:
        text: string, any shape, UTF-8.
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string, the shape of `text`. `finish` makes tokens of the words.

    >>> separate(tf.constant("(Rock 'n' roll)"), tokenizer="words", lowercase=True).numpy()
    b" rock n' roll "
    """
    text = normalize(text, lowercase=lowercase)
    if tokenizer == "words":
        text = _with_inner_signs(text)
        text = tf.strings.regex_replace(text, _UNSEGMENTED, r" \1 ")
        return tf.strings.regex_replace(text, _SEPARATOR, " ")
    return tf.strings.regex_replace(text, _WHITE_SPACE, " ")


def _with_inner_signs(text: tf.Tensor) -> tf.Tensor:
    """Signs that are part of a word only between certain letters, as characters of `_INNER`."""
    for dot in ("\u0387", _POINT):
        text = tf.strings.regex_replace(text, dot, _DOT)
    before_letter = rf"{_DOT}([{_ATTACHED}]*\pL)"
    behind_number = (rf"(\pN[{_ATTACHED}]*){_POINT}", rf"\1{_DOT}")
    text = _where_found(text, before_letter, [(before_letter, rf"{_POINT}\1"), behind_number])
    for quote in '"”':
        before_hebrew = rf"{quote}([{_ATTACHED}]*[{_HEBREW}])"
        between = (rf"([{_HEBREW}][{_ATTACHED}]*){before_hebrew}", rf"\1{_GERSHAYIM}\2")
        text = _where_found(text, before_hebrew, 2 * [between])
    return text


def _where_found(text: tf.Tensor, sign: str, rewrites: Sequence[tuple[str, str]]) -> tf.Tensor:
    """`text` rewritten, if it matches `sign`; if none does, none is.

    A pattern that begins with one character takes a tenth of the time of another.
    """
    found = tf.strings.regex_replace(text, sign, "") != text

    def rewritten() -> tf.Tensor:
        new = text
        for pattern, replacement in rewrites:
            new = tf.strings.regex_replace(new, pattern, replacement)
        return new

    return tf.cond(tf.reduce_any(found), rewritten, lambda: text)


def finish(words: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.Tensor:
    """The tokens that words are: apostrophes, invisible characters and normal form.

    Each word stands for itself, so that a corpus needs it once for each type.

    Args:
        words: string [words], of `separate` with the same options.
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string [words], none empty.

    >>> words = tf.constant(["dogs'", "don’t", "co\u00adop"])
    >>> finish(words, tokenizer="words", lowercase=True).numpy().tolist()
    [b'dogs', b"don't", b'coop']
    """
    return words if tokenizer == "whitespace" else _finish(lowercase)(words)


@functools.cache
def _finish(lowercase: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """`finish` for the tokenizer `words`, traced once in a process for all graphs that call it."""
    rewrites = _REWRITES + (_SIGMAS if lowercase else ())
    odd = _REWRITTEN + ("σς" if lowercase else "")

    def rewritten(words: tf.Tensor) -> tf.Tensor:
        for pattern, replacement in rewrites:
            words = tf.strings.regex_replace(words, pattern, replacement)
        return words

    def changed(words: tf.Tensor) -> tf.Tensor:
        return nfc(change_others(words, _without(odd), rewritten), undotted=lowercase)

    # One look at most words: two would cost a tenth of all tokenising.
    settled = _without(odd + unsettled(undotted=lowercase))
    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda words: change_others(words, settled, changed),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    return function


def _without(odd: str) -> str:
    """A pattern of words without odd characters and apostrophes, but for those of English."""
    return rf"[^'{odd}]*(?:'[A-Za-z0-9][^'{odd}]*)*"


def tokenize(text: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.RaggedTensor:
    """Split documents into tokens.

    Args:
        text: string [documents], UTF-8.
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        Ragged string [documents, (tokens)], no token empty.

    >>> tokens = tokenize(tf.constant(["Don’t 'stop', 3 Cafés!", "東京 2020年"]),
    ...                   tokenizer="words", lowercase=True)
    >>> [[token.decode() for token in document] for document in tokens.to_list()]
    [["don't", 'stop', '3', 'cafés'], ['東', '京', '2020', '年']]
    """
    words = tf.strings.split(separate(text, tokenizer=tokenizer, lowercase=lowercase))
    return words.with_flat_values(
        finish(words.flat_values, tokenizer=tokenizer, lowercase=lowercase)
    )


def line_numbers(path: str | tf.Tensor, lines: int | None = None) -> tf.lookup.StaticHashTable:
    """A table from the first column of a tab-separated file to int64 line numbers, from 0; else -1.

    Args:
        path: The file. In a SavedModel it becomes an asset.
        lines: How many it must have; none: any number, but 0.
    """
    return tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            path,
            tf.string,
            0,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            vocab_size=lines,
            delimiter="\t",
        ),
        default_value=-1,
    )


def join_phrases(tokens: tf.RaggedTensor, look_up: LookUp, *, passes: int) -> tf.RaggedTensor:
    """Join the pairs that are phrases, from left to right, as `Phrases.join` does.

    Args:
        tokens: Ragged string [documents, (tokens)].
        look_up: From string [pairs] to int64 [pairs], -1 for what is no key of the phrases' file
            (`components.phrases`).
        passes: How often; the phrases of each pass are its own.

    Returns:
        Ragged string [documents, (tokens)].

    >>> tokens = tf.ragged.constant([["a", "new", "york"], ["new"], ["york"]])
    >>> numbers = lambda pairs: tf.where(pairs == "1 new york", 1, -1)
    >>> join_phrases(tokens, numbers, passes=1).to_list()
    [[b'a', b'new_york'], [b'new'], [b'york']]
    """
    for number in range(1, passes + 1):
        tokens = _join(tokens, look_up, str(number))
    return tokens


def _join(tokens: tf.RaggedTensor, look_up: LookUp, number: str) -> tf.RaggedTensor:
    flat, splits, documents = tokens.flat_values, tokens.row_splits, tokens.value_rowids()
    following = tf.roll(flat, -1, axis=0)
    found = look_up(tf.strings.join([number, flat, following], " ")) >= 0
    places = tf.range(tf.size(flat, tf.int64))
    found &= places + 1 < tf.gather(splits, documents + 1)  # not the last one of its document
    # No token is in two pairs: of a run of pairs that overlap, the first, third, fifth … are
    # joined, those at an odd distance from the last place without a pair.
    gaps = tf.concat([[-1], tf.reshape(tf.where(~found), [-1])], axis=0)
    distances = places - tf.gather(gaps, tf.cumsum(tf.cast(~found, tf.int64)))
    first = distances % 2 == 1
    second = tf.roll(first, 1, axis=0)
    flat = tf.where(first, tf.strings.join([flat, following], DELIMITER), flat)
    second_before = tf.cumsum(tf.pad(tf.cast(second, tf.int64), [[1, 0]]))
    return tf.RaggedTensor.from_row_splits(
        tf.boolean_mask(flat, ~second), splits - tf.gather(second_before, splits), validate=False
    )
