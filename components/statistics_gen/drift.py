"""What moved between the token distributions of two corpora.

A distribution is each word's share of the kept tokens: of what the model is trained on.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.statistics_gen.counts import Counts

_LISTED = 20  # Words of each kind in the report.

Shares = npt.NDArray[np.float64]


def compare(now: Counts, before: Counts) -> dict[str, Any]:
    """How far two distributions lie apart, and by which words.

    Args:
        now: The vocabulary in question.
        before: The one that it is compared with.

    Returns:
        `l_infinity`: the largest difference of a word's shares, and the word.
        `jensen_shannon`: the distance (the square root of the divergence in bits): 0 for the
        same distribution, 1 where no word is common.
        `new` and `vanished`: words that only one vocabulary holds, and the most frequent of
        them. A rare word may just have passed `transform.min_count`.
        `moved`: the words of both that add most to the divergence, which rates the doubling of
        a rare word above a ripple of a frequent one.

    >>> was = Counts(pa.array(["a", "b", "c"], pa.large_string()), np.array([2, 1, 1]))
    >>> now = Counts(pa.array(["b", "a", "d"], pa.large_string()), np.array([2, 1, 1]))
    >>> report = compare(now, was)
    >>> report["l_infinity"], report["jensen_shannon"]
    ({'distance': 0.25, 'token': 'b'}, 0.557923)
    >>> report["new"]
    {'types': 1, 'share': 0.25, 'top': [{'token': 'd', 'share': 0.25}]}
    >>> report["moved"][0]
    {'token': 'b', 'before': 0.25, 'now': 0.5}
    """
    # [types of now]: ids in `before`, -1 for those that it lacks.
    ids = pc.fill_null(pc.index_in(now.tokens, value_set=before.tokens), -1).to_numpy()
    p, old = now.shares, before.shares
    q = np.where(ids >= 0, old[ids], 0.0)
    vanished = np.ones(len(old), bool)
    vanished[ids[ids >= 0]] = False

    difference = np.abs(p - q)
    widest, token = float(difference.max()), now.tokens[int(difference.argmax())]
    if vanished.any() and old[vanished].max() > widest:
        place = int(np.flatnonzero(vanished)[0])  # The first is the most frequent.
        widest, token = float(old[place]), before.tokens[place]

    added = divergence(p, q)
    # A word that one side lacks adds half its share.
    total = float(added.sum() + old[vanished].sum() / 2)
    shared = np.flatnonzero(ids >= 0)
    most = shared[np.argsort(-added[shared], kind="stable")][:_LISTED]
    return {
        "l_infinity": {"distance": round(widest, 6), "token": token.as_py()},
        "jensen_shannon": round(float(np.sqrt(np.clip(total, 0, 1))), 6),
        "new": _summary(now.tokens, p, ids < 0),
        "vanished": _summary(before.tokens, old, vanished),
        "moved": [
            {
                "token": now.tokens[int(id_)].as_py(),
                "before": round(float(q[id_]), 9),
                "now": round(float(p[id_]), 9),
            }
            for id_ in most
            if added[id_] > 0
        ],
    }


def divergence(p: Shares, q: Shares) -> Shares:
    """What each word adds to the Jensen-Shannon divergence of `p` and `q`, in bits.

    >>> divergence(np.array([0.5, 0.5]), np.array([0.5, 0.0])).tolist()
    [0.0, 0.25]
    """
    from scipy.special import rel_entr

    mean = (p + q) / 2
    return np.asarray((rel_entr(p, mean) + rel_entr(q, mean)) / np.log(4))


def _summary(tokens: pa.Array, shares: Shares, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    top = np.flatnonzero(chosen)[:_LISTED]
    return {
        "types": int(chosen.sum()),
        "share": round(float(shares[chosen].sum()), 6),
        "top": [
            {"token": tokens[int(id_)].as_py(), "share": round(float(shares[id_]), 9)}
            for id_ in top
        ],
    }
