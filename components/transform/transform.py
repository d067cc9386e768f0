"""The Beam job: a corpus -> vocabulary, transform graph, TFRecords and statistics.

Cost model: two passes over the input (count, then encode). Shuffled are the types of each bundle
with their counts, and the encoded documents once (about half the bytes of the text). The driver
holds the vocabulary, never the corpus.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import beam as tft_beam
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from components import errors
from components.artifacts import Corpus, Examples, write_json
from components.errors import SkipstreamError
from components.example_gen.files import state_of
from components.example_gen.reader import Block
from components.example_gen.source import ReadBlocks
from components.example_gen.split import held_out
from components.example_gen.units import Listing
from components.settings import TransformSettings
from components.transform import preprocessing, records
from components.transform.options import runner_and_options
from components.vocabulary import Vocabulary

_PASSED_THROUGH = ("unit", "order", "held_out")
_SCHEMA = pa.schema(
    [
        ("text", pa.large_list(pa.large_binary())),
        *((key, pa.large_list(pa.int64())) for key in _PASSED_THROUGH),
    ]
)
_TOP_TOKENS = 50
_UNREADABLE = ("invalid_json", "missing_field", "too_long")


def build(
    corpus: Corpus,
    *,
    settings: TransformSettings,
    max_unreadable: float,
    beam_options: Sequence[str] = (),
    out: Examples,
) -> Examples:
    """Run the job.

    Args:
        corpus: What to read.
        settings: Tokeniser and vocabulary.
        max_unreadable: Share of records that may be unreadable before the job fails.
        beam_options: Passed on untouched. Without a --runner among them the job runs in this
            process.
        out: Receives train/, eval/, transform_graph/, vocabulary.tsv and statistics.json.

    Raises:
        SkipstreamError: The corpus cannot be read, or leaves no vocabulary.
    """
    files = [path for path, _ in Listing.load(corpus).files]
    before = state_of(files)
    work = out.path / "work"
    for directory in (work, *(out.path / split for split in records.SPLITS)):
        directory.mkdir()
    runner, options = runner_and_options(beam_options)
    try:
        with (
            beam.Pipeline(runner=runner, options=options) as pipeline,
            tft_beam.Context(temp_dir=str(work), passthrough_keys=set(_PASSED_THROUGH)),
        ):
            _wire(pipeline, corpus, settings, work, out)
    except Exception as error:
        if (mistake := errors.from_beam(error)) is not None:
            raise mistake from error
        raise
    _check_unchanged(before, state_of(files))
    read: dict[str, int] = json.loads((work / "Read.json").read_text())
    _check_unreadable(read, max_unreadable)
    asset = out.path / "transform_graph" / "transform_fn" / "assets" / preprocessing.VOCABULARY
    if asset.read_bytes() == preprocessing.EMPTY_VOCABULARY:
        raise SkipstreamError(
            "the vocabulary is empty: no token occurs at least transform.min_count = "
            f"{settings.min_count} times in {read.get('documents', 0)} documents; lower it, or "
            "give more text"
        )
    shutil.copyfile(asset, out.path / preprocessing.VOCABULARY)
    statistics = _statistics(read, corpus, work, out)
    write_json(out.path / "statistics.json", statistics)
    shutil.rmtree(work)
    return out.finish(
        documents=statistics["documents"],
        tokens=statistics["tokens"],
        vocabulary=statistics["vocabulary"],
        kept_share=statistics["kept_share"],
    )


def _wire(
    pipeline: beam.Pipeline,
    corpus: Corpus,
    settings: TransformSettings,
    work: Path,
    out: Examples,
) -> None:
    text = schema_pb2.TensorRepresentation(
        dense_tensor=schema_pb2.TensorRepresentation.DenseTensor(
            column_name="text", shape=schema_pb2.FixedShape()
        )
    )
    config = TensorAdapterConfig(_SCHEMA, {"text": text})
    eval_share = Listing.load(corpus).eval_share

    # The corpus is read once for each pass: holding it between them would cost its size in memory.
    counted = (
        pipeline
        | "ReadToCount" >> ReadBlocks(corpus)
        | "ToCount" >> beam.FlatMap(to_batch, eval_share)
    )
    transform_fn = (counted, config) | "Count" >> tft_beam.AnalyzeDataset(
        preprocessing.make_preprocessing_fn(settings, str(work / "totals.tsv"))
    )
    transform_fn | "WriteGraph" >> tft_beam.WriteTransformFn(str(out.path / "transform_graph"))

    blocks = pipeline | "ReadToEncode" >> ReadBlocks(corpus)
    to_encode = blocks | "ToEncode" >> beam.FlatMap(to_batch, eval_share)
    (encoded, _) = ((to_encode, config), transform_fn) | "Encode" >> tft_beam.TransformDataset(
        output_record_batches=True
    )
    batches = encoded | "AttachKeys" >> beam.MapTuple(attach)
    (
        batches
        | "Serialise" >> beam.FlatMap(records.encode)
        | "GatherShards" >> beam.GroupByKey()
        | "WriteShards" >> beam.Map(records.write_shard, str(out.path))
    )
    read = blocks | "CountRead" >> beam.Map(lambda block: block.counts)
    measured = batches | "Measure" >> beam.Map(records.measure)
    for label, counts in {"Read": read, "Encoded": measured}.items():
        (
            counts
            | f"Sum{label}" >> beam.CombineGlobally(records.SumCounters())
            | f"Write{label}" >> beam.Map(_write_counts, str(work / f"{label}.json"))
        )


def to_batch(block: Block, eval_share: float) -> Iterator[pa.RecordBatch]:
    """Block -> what the transform graph takes, with the keys that say where it belongs."""
    size = len(block.documents)
    if size:
        columns = [
            block.documents.cast(pa.large_binary()),
            pa.array(np.full(size, block.unit, np.int64)),
            pa.array((block.index << 32) + np.arange(size, dtype=np.int64)),
            pa.array(held_out(block.documents, eval_share).astype(np.int64)),
        ]
        offsets = pa.array(np.arange(size + 1))  # tensorflow-transform takes lists of one value.
        yield pa.RecordBatch.from_arrays(
            [pa.LargeListArray.from_arrays(offsets, column) for column in columns], schema=_SCHEMA
        )


def attach(batch: pa.RecordBatch, unary: dict[str, pa.Array]) -> pa.RecordBatch:
    """Take the keys out of their lists, also those handed over apart for being of length one."""
    columns = {name: batch.column(name) for name in batch.schema.names} | unary
    for name in ("tokens", *_PASSED_THROUGH):
        columns[name] = columns[name].flatten()
    return pa.RecordBatch.from_pydict(columns)


def _write_counts(counts: dict[str, int], path: str) -> str:
    return preprocessing.write(json.dumps(counts).encode(), path)


def _statistics(read: dict[str, int], corpus: Corpus, work: Path, out: Examples) -> dict[str, Any]:
    encoded: dict[str, int] = json.loads((work / "Encoded.json").read_text())
    tokens, types = map(int, (work / "totals.tsv").read_text().split("\t"))
    vocabulary = Vocabulary.load(out.path / preprocessing.VOCABULARY)
    kept_tokens = int(vocabulary.counts.sum())
    splits: dict[str, dict[str, Any]] = {
        split: {
            name: encoded.pop(f"{split}.{name}") for name in ("documents", "tokens", "kept_tokens")
        }
        | {
            "files": {
                path.name: path.stat().st_size
                for path in sorted((out.path / split).glob("*.tfrecord.gz"))
            }
        }
        for split in records.SPLITS
    }
    if sum(split["kept_tokens"] for split in splits.values()) != kept_tokens:
        raise SkipstreamError(
            "the two passes over the corpus must find the same tokens, and do not: leave its "
            "files as they are and run again"
        )
    documents, size = read.pop("documents", 0), read.pop("bytes", 0)
    repaired = {name: read.pop(name, 0) for name in ("invalid_utf8", "cut")}
    dropped = read | {
        key.removeprefix("dropped."): count
        for key, count in encoded.items()
        if key.startswith("dropped.") and count
    }
    lengths = sorted(
        (int(key.removeprefix("length.")), count)
        for key, count in encoded.items()
        if key.startswith("length.")
    )
    return {
        "bytes": size,
        "documents": documents,
        "documents_dropped": dropped,
        "documents_repaired": repaired,
        "files_skipped": Listing.load(corpus).skipped,
        "tokens": tokens,
        "types": types,
        "vocabulary": len(vocabulary),
        "kept_tokens": kept_tokens,
        "kept_share": round(kept_tokens / tokens, 6),
        "tokens_dropped": {"out_of_vocabulary": tokens - kept_tokens},
        "types_dropped": {"below_min_count_or_beyond_max_size": types - len(vocabulary)},
        "splits": splits,
        "document_lengths": [{"up_to": bound, "documents": count} for bound, count in lengths],
        "top_tokens": [
            {"token": token, "count": int(count)}
            for token, count in zip(
                vocabulary.tokens[:_TOP_TOKENS], vocabulary.counts[:_TOP_TOKENS], strict=True
            )
        ],
    }


def _check_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [path for path, state in after.items() if before[path] != state]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise SkipstreamError(
            f"the corpus must not change while it is read, but {changed[0]}{more} did: "
            "run again when it is whole"
        )


def _check_unreadable(read: dict[str, int], limit: float) -> None:
    unreadable = {reason: read[reason] for reason in _UNREADABLE if reason in read}
    bad = sum(unreadable.values())
    share = bad / max(1, bad + read.get("documents", 0))
    if share > limit:
        raise SkipstreamError(
            f"at most {limit:.1%} of the documents may be unreadable "
            f"(example_gen.max_unreadable), got {share:.1%}: {unreadable}; check "
            "example_gen.field and example_gen.format, or raise the limit"
        )
