"""Zipf's law as a picture: counts by rank, both logarithmic."""

import logging
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from components.statistics_gen.counts import Counts

# It announces that it looks for fonts once a machine: nothing to act on.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
_POINTS = 2000


def zipf(now: Counts, before: Counts | None, path: Path) -> None:
    """Draw each token's share of the kept tokens by its rank, as a PNG.

    Args:
        now: The vocabulary.
        before: One to compare with.
        path: The file to write.
    """
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False}):
        figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
        axes = figure.subplots()
        axes.spines.right.set_visible(False)
        curves = {"this corpus": (now, "tab:blue")}
        if before is not None:
            curves = {"the one before": (before, "tab:orange")} | curves
        for label, (counts, color) in curves.items():
            ranks = _spread(len(counts.counts))
            axes.loglog(ranks, counts.shares[ranks - 1], color=color, label=label, linewidth=2)
        ranks = _spread(len(now.counts))
        axes.loglog(
            ranks, now.shares[0] / ranks, color="gray", linestyle="--", label="Zipf: 1 / rank"
        )
        axes.set_title("Token frequencies by rank")
        axes.set_xlabel("rank of the token")
        axes.set_ylabel("share of the kept tokens")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path)


def _spread(types: int) -> np.ndarray:
    """At most `_POINTS` ranks from 1 to `types`, evenly spread on a logarithmic axis.

    >>> _spread(3).tolist()
    [1, 2, 3]
    """
    return np.unique(np.geomspace(1, types, _POINTS).round().astype(np.int64))
