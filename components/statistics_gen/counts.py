"""The vocabulary as Arrow arrays: some 30 bytes a type, where Python's strings take 300."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fontTools import unicodedata

from components import vocabulary
from components.artifacts import VOCABULARY, Examples


@dataclass(frozen=True, eq=False)
class Counts:
    """What the vocabulary holds, by token id.

    Attributes:
        tokens: large_string [types].
        counts: int64 [types], occurrences in the corpus, largest first.
    """

    tokens: pa.Array
    counts: npt.NDArray[np.int64]

    @classmethod
    def load(cls, examples: Examples) -> Self:
        """Read the vocabulary of `examples`.

        Raises:
            SkipstreamError: It is missing or damaged.
        """
        table = vocabulary.read(examples / VOCABULARY).combine_chunks()
        return cls(table["token"].chunk(0), table["count"].to_numpy())

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """float64 [types]: what share of all kept tokens each type is."""
        shares: npt.NDArray[np.float64] = self.counts / self.counts.sum()
        return shares

    def top(self, size: int) -> list[tuple[str, int]]:
        """The most frequent tokens with their counts."""
        return list(zip(self.tokens[:size].to_pylist(), self.counts[:size].tolist(), strict=True))


def scripts(counts: Counts) -> list[dict[str, Any]]:
    """Tokens and types of each Unicode script, that with most tokens first.

    A token's script is that of its first letter; without a letter (digits, signs) it has none.

    >>> tokens = pa.array(["the", "東", "3", "'tis"], pa.large_string())
    >>> groups = scripts(Counts(tokens, np.array([9, 3, 2, 1])))
    >>> [(group["script"], group["tokens"], group["types"]) for group in groups]
    [('Latin', 10, 2), ('Han', 3, 1), (None, 2, 1)]
    """
    letter = pc.struct_field(pc.extract_regex(counts.tokens, r"(?P<letter>\pL)"), "letter")
    by_letter = (
        pa.table({"letter": letter, "count": counts.counts})
        .group_by("letter")
        .aggregate([("count", "sum"), ("count", "count")])
    )
    tokens: dict[str | None, int] = {}
    types: dict[str | None, int] = {}
    for group in by_letter.to_pylist():
        script = None
        if group["letter"] is not None:
            script = unicodedata.script_name(unicodedata.script(group["letter"])).replace("_", " ")
        tokens[script] = tokens.get(script, 0) + group["count_sum"]
        types[script] = types.get(script, 0) + group["count_count"]
    total = int(counts.counts.sum())
    return [
        {
            "script": script,
            "tokens": tokens[script],
            "share": round(tokens[script] / total, 6),
            "types": types[script],
        }
        for script in sorted(tokens, key=lambda script: (-tokens[script], script or ""))
    ]
