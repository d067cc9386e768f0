r"""THE tokeniser, in tf.strings ops: the Beam job, the evaluator and the SavedModel use this one.

`words` follows Unicode: a token is a run of letters and digits with their combining marks;
apostrophes inside it stay (`don't`, whose typographic form becomes the plain one); each Han,
Hiragana or Katakana character is a token of its own. Everything else separates.
`whitespace` splits at Unicode white space and changes nothing else: for text segmented before.

Invalid UTF-8 becomes U+FFFD, which no token of `words` holds.
"""

from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from components.phrases import DELIMITER

Tokenizer = Literal["words", "whitespace"]
LookUp = Callable[[tf.Tensor], tf.Tensor]

# RE2 has no look-around, so a separator is spelled out: it starts at a character that cannot stand
# inside a word and swallows everything up to the next letter or digit. A mark directly behind a
# letter never starts one; a mark behind an emoji (U+FE0F) is swallowed with it. White space between
# two words is left as it is: most separators are that, and each replacement costs time.
_SEPARATOR = r"[^\pL\pM\pN'\s][^\pL\pN]*|['\s][^\pL\pN]+|^[^\pL\pN]+|'$"
_UNSEGMENTED = r"([\p{Han}\p{Hiragana}\p{Katakana}]\pM*)"
_WHITE_SPACE = r"[\s\pZ\x{85}\x{FEFF}]+"


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
        return tf.strings.lower(text, encoding="utf-8")
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


def spell(text: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.Tensor:
    """`text` with the letters of its tokens, and whatever stands between them as it was.

    Args:
        text: string, any shape.
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string, the shape of `text`. A token stays as it is.

    >>> spell(tf.constant("Don’t!"), tokenizer="words", lowercase=True).numpy()
    b"don't!"
    """
    text = normalize(text, lowercase=lowercase)
    return tf.strings.regex_replace(text, "’", "'") if tokenizer == "words" else text


def separate(text: tf.Tensor, *, tokenizer: Tokenizer, lowercase: bool) -> tf.Tensor:
    """The tokens of documents, with ASCII white space between them and perhaps around them.

    Args:
        text: string, any shape, UTF-8.
        tokenizer: "words" or "whitespace", see the module.
        lowercase: Whether "A" and "a" are one letter.

    Returns:
        string, the shape of `text`.

    >>> separate(tf.constant("(Rock 'n' roll)"), tokenizer="words", lowercase=True).numpy()
    b' rock n roll '
    """
    text = spell(text, tokenizer=tokenizer, lowercase=lowercase)
    if tokenizer == "words":
        text = tf.strings.regex_replace(text, _UNSEGMENTED, r" \1 ")
        return tf.strings.regex_replace(text, _SEPARATOR, " ")
    return tf.strings.regex_replace(text, _WHITE_SPACE, " ")


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
    return tf.strings.split(separate(text, tokenizer=tokenizer, lowercase=lowercase))


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
