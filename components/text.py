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
from collections.abc import Callable

import tensorflow as tf

from components.normal_form import change_others, nfc, unsettled
from components.phrases import DELIMITER
from components.spelling import (
    DOT,
    DOTS,
    INNER_SIGNS,
    REWRITES,
    REWRITTEN,
    SEPARATOR,
    SIGMAS,
    UNSEGMENTED,
    WHITE_SPACE,
    Rewrites,
)
from components.spelling import Tokenizer as Tokenizer

LookUp = Callable[[tf.Tensor], tf.Tensor]


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
        text = tf.strings.regex_replace(text, UNSEGMENTED, r" \1 ")
        return tf.strings.regex_replace(text, SEPARATOR, " ")
    return tf.strings.regex_replace(text, WHITE_SPACE, " ")


def _with_inner_signs(text: tf.Tensor) -> tf.Tensor:
    """Signs that are part of a word only between certain letters, as characters that stay there."""
    for dot in DOTS:
        text = tf.strings.regex_replace(text, dot, DOT)
    for sign, rewrites in INNER_SIGNS:
        text = _where_found(text, sign, rewrites)
    return text


def _where_found(text: tf.Tensor, sign: str, rewrites: Rewrites) -> tf.Tensor:
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
    rewrites = REWRITES + (SIGMAS if lowercase else ())
    odd = REWRITTEN + ("σς" if lowercase else "")

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
