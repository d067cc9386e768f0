r"""Unicode's normal form C in plain TensorFlow ops; tensorflow_text would need ops of its own.

`é` is one code point or two, and a reader sees no difference. NFC writes both alike: it takes
characters apart, brings the marks of a letter into one order, and composes what can be composed
(Unicode Standard Annex 15). The tables are those of Python's `unicodedata`, and become constants
of the graph: a SavedModel keeps those that it was trained with.
"""

import functools
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.spelling import character_class

_LAST = 0x2FFFF  # No character behind this one has a decomposition or a combining class.
_BITS = 21  # of a code point
# Hangul syllables are computed: a lead and a vowel, then perhaps a tail.
_SYLLABLES = range(0xAC00, 0xD7A4)
_LEADS, _VOWELS, _TAILS = range(0x1100, 0x1113), range(0x1161, 0x1176), range(0x11A8, 0x11C3)
_DOT_ABOVE = "\u0307"


@dataclass(frozen=True, eq=False)
class _Tables:
    """What NFC knows of each character.

    Attributes:
        unsettled: See `unsettled`.
        marks: int32 [marks], characters with a combining class, ascending.
        classes: int32 [marks], that class.
        characters: int32 [decomposable], ascending.
        starts: int32 [decomposable + 1], where the parts of each begin in `parts`.
        parts: int32 [parts], code points in canonical order.
        pairs: int64 [pairs], first << _BITS | second, of those that compose, ascending.
        composed: int32 [pairs], what they become.
        rounds: Most characters that compose with one letter, one after the other.
    """

    unsettled: str
    marks: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    characters: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    parts: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    composed: npt.NDArray[np.int32]
    rounds: int

    def constants(self) -> Self:
        """The same as tensors, so that a graph holds each but once."""
        arrays = {name: value for name, value in vars(self).items() if hasattr(value, "dtype")}
        return replace(self, **{name: tf.constant(value) for name, value in arrays.items()})


@functools.cache
def _tables(undotted: bool) -> _Tables:
    characters = [chr(code) for code in range(_LAST + 1) if code not in _SYLLABLES]
    marks = [character for character in characters if unicodedata.combining(character)]
    apart = {c: nfd for c in characters if (nfd := unicodedata.normalize("NFD", c)) != c}
    # What NFC leaves as it is it also makes, of the two characters of its decomposition.
    made = [c for c in apart if unicodedata.is_normalized("NFC", c)]
    pairs = {_halves(character): character for character in made}
    if undotted:  # i, and what it has become with the marks that come before the dot, such as į
        dot = unicodedata.combining(_DOT_ABOVE)
        letters = [
            c for c in made if apart[c][0] == "i" and unicodedata.combining(apart[c][-1]) < dot
        ]
        pairs |= {(c, _DOT_ABOVE): c for c in ["i", *letters]}
    unsettled = {*marks, *apart} - {*made} | {second for _, second in pairs}
    ordered = sorted((_code(*pair), ord(character)) for pair, character in pairs.items())
    return _Tables(
        unsettled=character_class({*map(ord, unsettled), *_VOWELS, *_TAILS}),
        marks=np.array([*map(ord, marks)], np.int32),
        classes=np.array([*map(unicodedata.combining, marks)], np.int32),
        characters=np.array([*map(ord, apart)], np.int32),
        starts=np.cumsum([0, *map(len, apart.values())], dtype=np.int32),
        parts=np.array([*map(ord, "".join(apart.values()))], np.int32),
        pairs=np.array([code for code, _ in ordered], np.int64),
        composed=np.array([character for _, character in ordered], np.int32),
        rounds=max(len(apart[character]) for character in made) - 1,
    )


def _halves(character: str) -> tuple[str, str]:
    first, second = unicodedata.decomposition(character).split()
    return chr(int(first, 16)), chr(int(second, 16))


def _code(first: str, second: str) -> int:
    return ord(first) << _BITS | ord(second)


def change_others(
    texts: tf.Tensor, settled: str, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`texts`, those changed that are not settled.

    Args:
        texts: string [texts], valid UTF-8.
        settled: A regular expression.
        change: From string [some] to string [some]. Nothing of it is computed for none.

    >>> change_others(tf.constant(["one", "Two"]), "[a-z]+", tf.strings.upper).numpy().tolist()
    [b'one', b'TWO']
    """
    others = ~tf.strings.regex_full_match(texts, settled)

    def changed() -> tf.Tensor:
        new = change(tf.boolean_mask(texts, others))
        return tf.tensor_scatter_nd_update(texts, tf.where(others), new)

    return tf.cond(tf.reduce_any(others), changed, lambda: texts)


def nfc(texts: tf.Tensor, *, undotted: bool = False) -> tf.Tensor:
    r"""Texts in normal form C.

    A cheap look at each finds those that may not be in it; only they are decoded. Memory is some
    100 bytes for each of their characters.

    Args:
        texts: string [texts], valid UTF-8.
        undotted: Whether i and a dot above are i: what lower case makes of the Turkish capital.

    Returns:
        string [texts].

    >>> nfc(tf.constant(["cafe\u0301", "한", "\u212b"])).numpy().tolist() == [
    ...     "café".encode(), "한".encode(), "Å".encode()]
    True
    >>> nfc(tf.constant(["i\u0307zmir"]), undotted=True).numpy().tolist()
    [b'izmir']
    """
    settled = f"[^{_tables(undotted).unsettled}]*"
    return change_others(texts, settled, _graph(undotted))


def unsettled(*, undotted: bool = False) -> str:
    """A class for RE2, less its brackets: what has none of its characters is in NFC."""
    return _tables(undotted).unsettled


@functools.cache
def _graph(undotted: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """`_nfc`, traced once in a process, in a second, for all the graphs that call it."""
    tables = _tables(undotted)
    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda texts: _nfc(texts, tables.constants()),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    return function


def _nfc(texts: tf.Tensor, tables: _Tables) -> tf.Tensor:
    decoded = tf.strings.unicode_decode(texts, "UTF-8")
    codes, rows = _ordered(
        *_decomposed(decoded.flat_values, decoded.value_rowids(), tables), tables
    )
    codes, rows = tf.while_loop(
        lambda *_: True,
        lambda codes, rows: _composed(codes, rows, tables),
        (codes, rows),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None])),
        maximum_iterations=tables.rounds,
    )
    ends = _search(rows, tf.range(tf.size(texts, tf.int64) + 1))
    made = tf.RaggedTensor.from_row_splits(codes, ends, validate=False)
    return tf.strings.unicode_encode(made, "UTF-8")


# These three in place of tf.searchsorted and tf.boolean_mask, which take any shape and make a graph
# of half as many nodes again: it is traced and loaded at the start of each Beam job.
def _search(among: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """int32 [values], how many of `among`, which ascends, are below each value."""
    rows = {"sorted_inputs": tf.expand_dims(among, 0), "values": tf.expand_dims(values, 0)}
    return tf.squeeze(tf.raw_ops.LowerBound(**rows), 0)


def _places(chosen: tf.Tensor) -> tf.Tensor:
    """int32, where `chosen`, bool [any], is true."""
    return tf.cast(tf.squeeze(tf.where(chosen), 1), tf.int32)


def _find(values: tf.Tensor, among: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where `values` are in `among`, which ascends, and whether they are."""
    places = tf.minimum(_search(among, values), among.shape[0] - 1)
    return places, tf.gather(among, places) == values


def _decomposed(codes: tf.Tensor, rows: tf.Tensor, tables: _Tables) -> tuple[tf.Tensor, tf.Tensor]:
    """Characters as what they consist of. Hangul syllables are left: they compose as they are."""
    places, found = _find(codes, tables.characters)
    starts = tf.gather(tables.starts, places)
    lengths = tf.where(found, tf.gather(tables.starts, places + 1) - starts, 1)
    sources = tf.repeat(tf.range(tf.size(codes)), lengths)
    within = tf.range(tf.size(sources)) - tf.gather(tf.cumsum(lengths, exclusive=True), sources)
    # Of a character that is no whole, `starts` is another's: any place in `parts`.
    parts = tf.gather(tables.parts, tf.gather(starts, sources) + within)
    taken = tf.where(tf.gather(found, sources), parts, tf.gather(codes, sources))
    return taken, tf.gather(rows, sources)


def _classes(codes: tf.Tensor, tables: _Tables) -> tf.Tensor:
    places, found = _find(codes, tables.marks)
    return tf.where(found, tf.gather(tables.classes, places), 0)


def _ordered(codes: tf.Tensor, rows: tf.Tensor, tables: _Tables) -> tuple[tf.Tensor, tf.Tensor]:
    """The marks behind each letter by their class; marks of one class keep their order."""
    classes = _classes(codes, tables)
    begins = (classes == 0) | (rows != tf.roll(rows, 1, axis=0))
    runs = tf.cumsum(tf.cast(begins, tf.int64))
    order = tf.argsort(runs * 256 + tf.cast(classes, tf.int64), stable=True)
    return tf.gather(codes, order), rows  # No run is in two rows.


def _composed(codes: tf.Tensor, rows: tf.Tensor, tables: _Tables) -> tuple[tf.Tensor, tf.Tensor]:
    """Each letter with the first character behind it that it composes with.

    Nothing may stand between the two but marks of a lower class.
    """
    size = tf.size(codes)
    places = tf.range(size)
    classes = _classes(codes, tables)
    is_letter = classes == 0
    before = tf.maximum(places - 1, 0)
    # A letter composes with the letter before it, a mark with the letter that it belongs to.
    letters = tf.concat([[0], _places(is_letter)], axis=0)
    own = tf.gather(letters, tf.cumsum(tf.cast(is_letter, tf.int32)))
    letter = tf.where(is_letter, before, own)
    free = (letter == before) | (tf.gather(classes, before) < classes)
    made, found = _pairs(tf.gather(codes, letter), codes, tables)
    found &= free & tf.gather(is_letter, letter) & (places > 0)
    found &= tf.gather(rows, letter) == rows
    first = tf.math.unsorted_segment_min(tf.where(found, places, size), letter, size)
    found &= places == tf.gather(first, letter)
    found &= ~tf.gather(is_letter & found, letter)  # What is taken itself takes nothing.
    taken, left = _places(found), _places(~found)
    targets = tf.expand_dims(tf.gather(letter, taken), 1)
    codes = tf.tensor_scatter_nd_update(codes, targets, tf.gather(made, taken))
    return tf.gather(codes, left), tf.gather(rows, left)


def _pairs(first: tf.Tensor, second: tf.Tensor, tables: _Tables) -> tuple[tf.Tensor, tf.Tensor]:
    """What two characters become, and whether they become one."""
    pair = tf.bitwise.left_shift(tf.cast(first, tf.int64), tf.constant(_BITS, tf.int64))
    places, found = _find(pair + tf.cast(second, tf.int64), tables.pairs)
    made = tf.gather(tables.composed, places)
    syllable = first - _SYLLABLES.start
    tails = len(_TAILS) + 1  # none among them
    has_no_tail = _within(first, _SYLLABLES) & (syllable % tails == 0)
    with_tail = has_no_tail & _within(second, _TAILS)
    made = tf.where(with_tail, first + second - _TAILS.start + 1, made)
    with_vowel = _within(first, _LEADS) & _within(second, _VOWELS)
    number = (first - _LEADS.start) * len(_VOWELS) + second - _VOWELS.start
    made = tf.where(with_vowel, _SYLLABLES.start + number * tails, made)
    return made, found | with_tail | with_vowel


def _within(codes: tf.Tensor, block: range) -> tf.Tensor:
    return (codes >= block.start) & (codes < block.stop)
