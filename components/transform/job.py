"""The Beam job: a listing of files -> vocabulary, transform graph, TFRecords and counts."""

import json
import os
from collections.abc import Iterator
from functools import partial

import apache_beam as beam
import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.saved import saved_transform_io_v2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from components.example_gen.units import Listing, plan
from components.graphs import no_bytecode
from components.settings import TransformSettings
from components.transform import preprocessing, records, storage
from components.transform.duplicates import MarkDuplicates
from components.transform.phrases import FindPhrases
from components.transform.segment_ref import SegmentRef
from components.transform.token_cache import TokenCache
from components.transform.tokenise import TokeniseUnit

COUNTS = "counts.json"  # What `records.SumWritten` gives.
TOTALS = "totals.tsv"  # See `preprocessing.CountTokens`.
GRAPH = "transform_graph"

# What the preprocessing graph takes; see there.
_SCHEMA = pa.schema(
    [(name, pa.large_list(pa.large_binary())) for name in ("text", "segment", "types")]
)

# In whichever process tensorflow-transform does it.
saved_transform_io_v2.write_v2_saved_model = no_bytecode()(
    saved_transform_io_v2.write_v2_saved_model
)


def wire(
    pipeline: beam.Pipeline,
    listing: Listing,
    *,
    settings: TransformSettings,
    cache: TokenCache,
    work: str,
) -> None:
    """Add the job to a pipeline, which has run when COUNTS, TOTALS and GRAPH are there.

    Args:
        pipeline: It runs where its options say.
        listing: What to read.
        settings: Tokeniser and vocabulary.
        cache: Where tokenised text lies.
        work: Directory that receives the results, with those that `records.write_segment` needs.
    """
    with tft_beam.Context(temp_dir=work):
        _wire(pipeline, listing, settings, cache, work)


def _wire(
    pipeline: beam.Pipeline,
    listing: Listing,
    settings: TransformSettings,
    cache: TokenCache,
    work: str,
) -> None:
    segments = (
        pipeline
        | "CreateListing" >> beam.Create([listing])
        | "PlanUnits" >> beam.FlatMap(plan)  # In a worker: units of 1 TB would make a large graph.
        | "SpreadUnits" >> beam.Reshuffle()
        | "TokeniseUnits" >> beam.ParDo(TokeniseUnit(cache, settings, listing.eval_share))
        | "KeepTokens" >> beam.Reshuffle()  # A failure behind this repeats nothing before it.
    )
    if settings.deduplicate:
        segments |= "MarkDuplicates" >> MarkDuplicates()
    phrases = None
    if settings.phrase_passes:
        find = FindPhrases(settings, work)
        segments |= "FindPhrases" >> find
        phrases = find.file
    config = _tensors()
    rows = segments | "NameSegments" >> beam.Map(row_of)
    transform_fn = (rows, config) | "Count" >> tft_beam.AnalyzeDataset(
        preprocessing.make_preprocessing_fn(settings, f"{work}/{TOTALS}", phrases)
    )
    transform_fn | "WriteGraph" >> tft_beam.WriteTransformFn(f"{work}/{GRAPH}")

    # Without the shuffle, runners would read the types before the vocabulary is there, and hold
    # them all. Flink and Spark store them all the same: LookUp has a side input, and they run no
    # such step in one stage with what is before it.
    with_types = (
        segments
        | "AwaitVocabulary" >> beam.Reshuffle()
        | "ReadTypes" >> beam.Map(lambda segment: row_of(segment, segment.types()[0]))
    )
    (looked_up, _) = (
        (with_types, config),
        transform_fn,
    ) | "LookUp" >> tft_beam.TransformDataset(output_record_batches=True)
    (
        looked_up
        | "WriteRecords" >> beam.FlatMapTuple(partial(write_records, work))
        | "SumCounts" >> beam.CombineGlobally(records.SumWritten()).without_defaults()
        # Sorted: which unit came first is in the order of the keys.
        | "Serialise" >> beam.Map(json.dumps, sort_keys=True)
        | "WriteCounts" >> beam.Map(_write_text, f"{work}/{COUNTS}")
    )


def _tensors() -> TensorAdapterConfig:
    """How the columns of `row_of` become the inputs of the preprocessing graph."""
    representation = schema_pb2.TensorRepresentation
    scalar = schema_pb2.FixedShape()
    types = representation.RaggedTensor(
        feature_path={"step": ["types"]}, row_partition_dtype="INT64"
    )
    tensors = {
        "text": representation(
            dense_tensor=representation.DenseTensor(column_name="text", shape=scalar)
        ),
        "segment": representation(
            dense_tensor=representation.DenseTensor(column_name="segment", shape=scalar)
        ),
        "types": representation(ragged_tensor=types),
    }
    return TensorAdapterConfig(_SCHEMA, tensors)


def row_of(segment: SegmentRef, types: pa.Array | None = None) -> pa.RecordBatch:
    """One row: no text, the name of a segment and, to be looked up, its types."""
    columns = [
        pa.array([b""], pa.large_binary()),
        pa.array([segment.to_bytes()], pa.large_binary()),
        pa.array([], pa.large_binary()) if types is None else types.cast(pa.large_binary()),
    ]
    return pa.RecordBatch.from_arrays(
        [pa.LargeListArray.from_arrays([0, len(column)], column) for column in columns],
        schema=_SCHEMA,
    )


def write_records(
    work: str, looked_up: pa.RecordBatch, _: dict[str, pa.Array]
) -> Iterator[tuple[dict[str, int], str, bool]]:
    """Encode the segments of `row_of`, with the ids of their types, and say what was written."""
    for row in range(looked_up.num_rows):
        segment = SegmentRef.from_bytes(looked_up.column("segment")[row].values[0].as_py())
        ids = looked_up.column("type_ids")[row].values.to_numpy().astype(np.int32)
        counts = records.write_segment(segment.unit, segment.number, segment.load(), ids, work)
        yield counts, os.path.basename(segment.path), segment.reused


def _write_text(text: str, path: str) -> str:
    return storage.write(text.encode(), path)
