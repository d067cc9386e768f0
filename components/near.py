"""Words that somebody may have meant by one that is unknown."""

import difflib
import heapq
from collections.abc import Sequence

# What unknown words are compared with, most frequent first: 0.2 s a word.
_COMPARED = 100_000
_LONGEST = 60  # characters: longer ones are no words, and take seconds each
_CUTOFF = 0.75  # of the ratio of characters in common, see difflib
_MOST = 3


def near(word: str, words: Sequence[str]) -> list[str]:
    """Up to three words that are spelled nearly like `word`, the most likely first.

    Those that differ in case or by two letters in turn come before the others, which come by the
    share of characters in common; the more frequent word first where these are equal.

    Args:
        word: Is none of `words`. Nothing is near one of more than 60 characters.
        words: Most frequent first.

    >>> words = ["the", "King", "kings", "new_york"]
    >>> [near(word, words) for word in ("king", "teh", "kingz", "new york", "of")]
    [['King', 'kings'], ['the'], ['King', 'kings'], ['new_york'], []]
    """
    if len(word) > _LONGEST:
        return []
    folded = word.casefold()
    swapped = (
        f"{folded[:i]}{folded[i + 1]}{folded[i]}{folded[i + 2 :]}" for i in range(len(folded) - 1)
    )
    alike = {folded, *swapped}
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(folded)
    shortest, longest = len(folded) * _CUTOFF / (2 - _CUTOFF), len(folded) * (2 / _CUTOFF - 1)
    found = []
    for place, other in enumerate(words[:_COMPARED]):
        if not shortest <= len(other) <= min(longest, _LONGEST):
            continue
        if (lower := other.casefold()) in alike:
            found.append((-2.0, place, other))
            continue
        matcher.set_seq1(lower)
        if matcher.quick_ratio() >= _CUTOFF and (ratio := matcher.ratio()) >= _CUTOFF:
            found.append((-ratio, place, other))
    return [other for _, _, other in heapq.nsmallest(_MOST, found)]
