"""The job of the transform without Beam, where a job takes seconds whatever the text is.

For tests of what is done around the job, and in each of its units; test_transform_bucket shows that
both write the same bytes.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from components.beam_options import runner_and_options
from components.example_gen.units import Listing, plan
from components.settings import TransformSettings
from components.transform import job, preprocessing, records
from components.transform.duplicates import MarkDuplicates
from components.transform.segment_ref import SegmentRef
from components.transform.token_cache import TokenCache
from components.transform.tokenise import TokeniseUnit


def largest_first(counts: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Ties in the order of code points, which is that of bytes."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def use(patch: pytest.MonkeyPatch) -> None:
    """Let `transform.build` use this one, as long as `patch` lasts."""
    patch.setattr(job, "wire", _run)


def _run(
    _: Any, listing: Listing, *, settings: TransformSettings, cache: TokenCache, work: str
) -> None:
    """Write what the job writes, one segment after the other; there are no phrases."""
    do = TokeniseUnit(cache, settings, listing.eval_share)
    found = [segment for unit in plan(listing) for segment in do.process(unit)]
    if settings.deduplicate:
        found = _without_duplicates(found)
    counts: Counter[bytes] = Counter()
    for types, numbers in (segment.types() for segment in found):
        counts.update(dict(zip(types.to_pylist(), numbers.to_pylist(), strict=True)))
    counts = +counts  # A type may have been seen in duplicates only.
    kept = [item for item in largest_first(counts) if item[1] >= settings.min_count][
        : settings.max_size
    ]
    lines = b"".join(b"%s\t%d\n" % item for item in kept)

    assets = Path(work, job.GRAPH, "transform_fn", "assets")
    assets.mkdir(parents=True)
    (assets / preprocessing.VOCABULARY).write_bytes(lines or preprocessing.EMPTY_VOCABULARY)
    Path(work, job.TOTALS).write_text(f"{counts.total()}\t{len(counts)}")

    ids = {token: id_ for id_, (token, _) in enumerate(kept)}
    sums = records.SumWritten()
    written = sums.create_accumulator()
    for ref in found:
        segment = ref.load()
        type_ids = np.array([ids.get(token, -1) for token in segment.types.to_pylist()], np.int32)
        counted = records.write_segment(ref.unit, ref.number, segment, type_ids, work)
        sums.add_input(written, (counted, os.path.basename(ref.path), ref.reused))
    Path(work, job.COUNTS).write_text(json.dumps(sums.extract_output(written), sort_keys=True))


def _without_duplicates(segments: list[SegmentRef]) -> list[SegmentRef]:
    """What the step of the job does: alone it takes a tenth of the time."""
    runner, options = runner_and_options([])
    with tempfile.TemporaryDirectory() as directory:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            marked = pipeline | beam.Create(segments) | MarkDuplicates()
            marked | "Save" >> beam.Map(_save, directory)
        files = sorted(Path(directory).iterdir())
        return [SegmentRef.from_bytes(file.read_bytes()) for file in files]


def _save(segment: SegmentRef, directory: str) -> None:
    Path(directory, f"{segment.unit:06}-{segment.number:04}").write_bytes(segment.to_bytes())
