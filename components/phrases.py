r"""Pairs of tokens that became one, on disk: lines of `pass first second<TAB>count<TAB>score`.

The first line names the columns. Tokens hold no white space, so `pass first second` is a key, and
the file is a lookup table for TensorFlow as it is (`text.line_numbers`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from components.errors import SkipstreamError

FILE = "phrases.tsv"
HEADER = b"pass first second\tcount\tscore\n"
DELIMITER = "_"
_PASSES = ("1", "2", "3", "4")  # As many as transform.phrase_passes may be.


@dataclass(frozen=True)
class Phrases:
    """Which pairs are joined.

    Attributes:
        passes: For each pass over the tokens, the pairs that it joins. A later one sees the tokens
            that those before it have made.
    """

    passes: tuple[frozenset[tuple[str, str]], ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Those of FILE in a transform artifact, which has none if no pass was asked for.

        Raises:
            SkipstreamError: The file is damaged.
        """
        if not path.exists():
            return cls(())
        try:
            return cls.parse(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SkipstreamError(
                f"{path} must hold lines of pass first second<TAB>count<TAB>score ({error}): "
                f"delete {path.parent} and run transform again"
            ) from error

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The phrases of a file.

        Raises:
            ValueError: It is none.
        """
        if not content.startswith(HEADER) or not content.endswith(b"\n"):
            raise ValueError("cut off")
        passes: list[set[tuple[str, str]]] = []
        for line in content.decode().split("\n")[1:-1]:
            number, first, second = line.partition("\t")[0].split(" ")
            if number not in _PASSES:
                raise ValueError(f"the pass {number[:20]}")
            while len(passes) < int(number):
                passes.append(set())
            passes[int(number) - 1].add((first, second))
        return cls(tuple(map(frozenset, passes)))

    def __len__(self) -> int:
        """Number of pairs, of all passes: one less than lines in the file."""
        return sum(map(len, self.passes))

    def join(self, tokens: Iterable[str]) -> list[str]:
        """The tokens of one document, pairs joined from left to right.

        A token that was just made is no half of a pair in the same pass.

        >>> both = Phrases((frozenset({("new", "york"), ("york", "times")}),
        ...                 frozenset({("new_york", "times")})))
        >>> both.join("the new york times of york times square".split())
        ['the', 'new_york_times', 'of', 'york_times', 'square']
        """
        joined = list(tokens)
        for pairs in self.passes:
            tokens, joined, made = joined, [], True
            for token in tokens:
                made = not made and (joined[-1], token) in pairs
                if made:
                    joined[-1] += DELIMITER + token
                else:
                    joined.append(token)
        return joined
