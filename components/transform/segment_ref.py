"""A segment on its way through the job: where it is, not what it holds."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.transform import joins, segments
from components.transform.segments import Segment


@dataclass(frozen=True)
class SegmentRef:
    """A segment on its way from the first pass to the second: where it is, not what it holds.

    Attributes:
        unit: Of the corpus, from 0.
        number: Its place in the unit.
        path: The file of the unit's segments.
        reused: Whether that was there before this job.
        duplicates: bool [documents], which of them have been seen before; none: nobody looked.
        phrases: The file of those that are joined; none: no tokens are.
    """

    unit: int
    number: int
    path: str
    reused: bool
    duplicates: npt.NDArray[np.bool_] | None = None
    phrases: str | None = None

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads: a line of JSON, and the duplicates, eight in a byte.

        No pickle: what travels through a job may lie in a runner's files, and a pickle runs code.
        """
        facts = [self.unit, self.number, self.path, self.reused, self.phrases]
        if self.duplicates is None:
            return json.dumps([*facts, None]).encode()
        bits = np.packbits(self.duplicates).tobytes()
        return json.dumps([*facts, len(self.duplicates)]).encode() + b"\n" + bits

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave, in this job."""
        head, _, bits = content.partition(b"\n")
        unit, number, path, reused, phrases, count = json.loads(head)
        packed = np.frombuffer(bits, np.uint8)
        duplicates = None if count is None else np.unpackbits(packed, count=count).astype(np.bool_)
        return cls(unit, number, path, reused, duplicates, phrases)

    def load(self) -> Segment:
        """Its documents, without the duplicates, phrases joined."""
        segment = segments.load(self.path, self.number)
        if self.duplicates is not None:
            segment = segment.without(self.duplicates, "duplicate")
        return joins.join(segment, joins.load(self.phrases)) if self.phrases else segment

    def types(self) -> tuple[pa.Array, pa.Array]:
        """The types (binary) and how often they occur (int64)."""
        if self.duplicates is None and not self.phrases:
            return segments.load_counts(self.path, self.number)
        segment = self.load()
        return segment.types, pa.array(segment.counts())
