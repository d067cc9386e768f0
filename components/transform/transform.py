"""The Beam job: a corpus -> vocabulary, transform graph, TFRecords and statistics.

Cost model: the text is tokenised once, by `TokeniseUnits`, which is where the time goes. It is read
twice for that, first for the digest by which the next run finds what this one did; text that has
not changed is there already. What was found lies in a file a unit, about half the bytes of the
text, and is read twice more: the types to be counted, then all of it to be encoded. Shuffled are
the types of each worker with their counts, and the ids of each unit's types: never tokens. A worker
holds a segment (16 MB of text), the ids of its unit's types and the vocabulary, the driver the
vocabulary, nobody the corpus. What phrases cost is said in `phrases`.

An estimate for 1 TB on Dataflow, from 133 to 533 MB of English on two slow cores, where the job
took 0.09 to 0.12 s of CPU a MB: 1e6 x 0.1 s = 28 core-hours, 17 minutes on 100 cores, if reading
keeps up (twice 10 MB/s a core). Token files take 0.5 TB for the time of the job, or as long as they
are kept. The types of a unit, some 2.5 MB of 32, are summed within a worker before they are
shuffled: at most 1e12 / 32e6 x 2.5 MB = 80 GB, less what workers with several units save; and 4
bytes a type of each segment for the ids, 25 GB.
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import beam as tft_beam
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from components import errors
from components.artifacts import Corpus, Examples, write_json
from components.errors import NotAwaitedError, SkipstreamError
from components.example_gen.files import is_remote, state_of
from components.example_gen.reader import DAMAGED
from components.example_gen.units import Listing, plan
from components.phrases import FILE as PHRASES
from components.phrases import Phrases
from components.settings import TransformSettings
from components.transform import joins, preprocessing, records
from components.transform.duplicates import MarkDuplicates
from components.transform.options import is_awaited, runner_and_options
from components.transform.phrases import WORK, FindPhrases
from components.transform.storage import fetch, holds, make_directory, remove
from components.transform.tokens import TokenisedUnit, TokeniseUnit, Tokens, remove_others
from components.vocabulary import Vocabulary

_PASSED_THROUGH = ("unit", "segment")
_RAGGED = {"types": pa.large_binary(), "counts": pa.int64()}
_SCHEMA = pa.schema(
    [
        ("text", pa.large_list(pa.large_binary())),
        *((name, pa.large_list(kind)) for name, kind in _RAGGED.items()),
        *((name, pa.large_list(pa.int64())) for name in _PASSED_THROUGH),
    ]
)
_LAUNCHED = "launched"  # In the work directory of a job that nobody waited for.
_GO_ON = "the same command without options of Beam goes on with what it wrote"
_TOP_TOKENS = 50
_UNREADABLE = ("invalid_json", "missing_field", "too_long")


def build(
    corpus: Corpus,
    *,
    settings: TransformSettings,
    max_unreadable: float,
    beam_options: Sequence[str] = (),
    cache: str | None = None,
    identity: str = "",
    out: Examples,
) -> Examples:
    """Run the job.

    Args:
        corpus: What to read.
        settings: Tokeniser and vocabulary.
        max_unreadable: Share of records that may be unreadable before the job fails.
        beam_options: Passed on untouched. Without a --runner among them the job runs in this
            process.
        cache: Directory of tokenised units, for the next run; none: they are thrown away.
        identity: What tokenised units depend on beside the settings and the text.
        out: Receives train/, eval/, transform_graph/, vocabulary.tsv and statistics.json.

    Raises:
        SkipstreamError: The corpus cannot be read, or leaves no vocabulary.
        NotAwaitedError: The job was launched, as the options say, and runs on its own.
    """
    listing = Listing.load(corpus)
    files = [path for path, _ in listing.files]
    before = state_of(files)
    # Workers write there, so all of them have to see it.
    shared = settings.work_directory
    work = f"{shared.rstrip('/')}/{out.fingerprint}" if shared else str(out.path / "work")
    runner, options = runner_and_options(beam_options)
    awaited = is_awaited(options)
    _check_directory(work)
    if not awaited and not shared:
        raise SkipstreamError(
            "a Beam job that is not waited for needs a place of its own, got no "
            "transform.work_directory: set it"
        )
    if holds(work, _LAUNCHED):
        cache = None
        if not _is_whole(work):
            raise SkipstreamError(
                f"the job that was launched before must have written all of {work}, and has not: "
                "wait until it has ended, and if it failed, delete that directory"
            )
        if not awaited:
            raise NotAwaitedError(f"this job was launched before, and has ended: {_GO_ON}")
    else:
        remove(work)
        cache = cache if awaited else None  # Nobody keeps others off while the job runs.
        tokens = Tokens(cache or f"{work}/tokens", identity if cache else None)
        for name in (*records.SPLITS, records.UNFINISHED):
            make_directory(f"{work}/{name}")
        make_directory(tokens.directory)
        if not awaited:
            preprocessing.write(b"", f"{work}/{_LAUNCHED}")
        try:
            _run(runner, options, corpus, settings, tokens, work)
        except BaseException:
            remove(f"{work}/{_LAUNCHED}")
            raise
        if not awaited:
            raise NotAwaitedError(
                f"the job was launched and is not waited for: when it has ended, {_GO_ON}"
            )
    _check_unchanged(before, state_of(files), listing)
    for name in ("tokens", "tftransform_tmp", records.UNFINISHED, WORK):
        remove(f"{work}/{name}")
    if not holds(work, "counts.json"):
        raise SkipstreamError(
            f"workers and launcher must see the same files, and {work} holds nothing of the "
            "workers': set transform.work_directory to a place that both see"
        )
    fetch(work, out.path)
    counts: dict[str, int] = json.loads((out.path / "counts.json").read_text())
    units = json.loads((out.path / "units.json").read_text())
    _check_unreadable(counts, max_unreadable)
    assets = out.path / "transform_graph" / "transform_fn" / "assets"
    asset = assets / preprocessing.VOCABULARY
    if asset.stat().st_size == len(preprocessing.EMPTY_VOCABULARY):
        raise SkipstreamError(
            "the vocabulary is empty: no token occurs at least transform.min_count = "
            f"{settings.min_count} times in {counts.get('documents', 0)} documents; lower it, or "
            "give more text"
        )
    shutil.copyfile(asset, out.path / preprocessing.VOCABULARY)
    if settings.phrase_passes:
        shutil.copyfile(assets / PHRASES, out.path / PHRASES)
    statistics = _statistics(counts, listing, out)
    write_json(out.path / "statistics.json", statistics)
    for name in ("counts.json", "units.json", "totals.tsv", _LAUNCHED):
        (out.path / name).unlink(missing_ok=True)
    if cache:
        remove_others(cache, keep=[path for path, _ in units])
    return out.finish(
        documents=statistics["documents"],
        tokens=statistics["tokens"],
        vocabulary=statistics["vocabulary"],
        kept_share=statistics["kept_share"],
        units=len(units),
        units_reused=sum(reused for _, reused in units),
    )


def _run(
    runner: PipelineRunner,
    options: PipelineOptions,
    corpus: Corpus,
    settings: TransformSettings,
    tokens: Tokens,
    work: str,
) -> None:
    try:
        with (
            beam.Pipeline(runner=runner, options=options) as pipeline,
            tft_beam.Context(temp_dir=work, passthrough_keys=set(_PASSED_THROUGH)),
        ):
            _wire(pipeline, corpus, settings, tokens, work)
    except Exception as error:
        if (mistake := errors.from_beam(error)) is not None:
            raise mistake from error
        raise


def _is_whole(work: str) -> bool:
    """Whether a job has written everything; counts come after records, the graph is renamed."""
    written = ("counts.json", "units.json", "totals.tsv", "transform_graph/transform_fn")
    return all(holds(work, name) for name in written) and not holds(
        work, "transform_graph/transform_tmp"
    )


def _wire(
    pipeline: beam.Pipeline,
    corpus: Corpus,
    settings: TransformSettings,
    tokens: Tokens,
    work: str,
) -> None:
    units = (
        pipeline
        | "CreateUnits" >> beam.Create(plan(corpus))
        | "SpreadUnits" >> beam.Reshuffle()
        | "TokeniseUnits"
        >> beam.ParDo(TokeniseUnit(tokens, settings, Listing.load(corpus).eval_share))
        | "KeepTokens" >> beam.Reshuffle()  # A failure behind this repeats nothing before it.
    )
    if settings.deduplicate:
        units |= "MarkDuplicates" >> MarkDuplicates()
    phrases = None
    if settings.phrase_passes:
        find = FindPhrases(settings, work)
        units |= "FindPhrases" >> find
        phrases = find.file
    config = _tensors()
    counted = units | "ReadTypesToCount" >> beam.FlatMap(types_of)
    transform_fn = (counted, config) | "Count" >> tft_beam.AnalyzeDataset(
        preprocessing.make_preprocessing_fn(settings, f"{work}/totals.tsv", phrases)
    )
    transform_fn | "WriteGraph" >> tft_beam.WriteTransformFn(f"{work}/transform_graph")

    # Read again: holding the types between the passes would cost their size in memory. Without the
    # shuffle, runners would read them for both passes at once, and hold them.
    types = (
        units
        | "AwaitVocabulary" >> beam.Reshuffle()
        | "ReadTypesToLookUp" >> beam.FlatMap(types_of)
    )
    (looked_up, _) = ((types, config), transform_fn) | "LookUp" >> tft_beam.TransformDataset(
        output_record_batches=True
    )
    (
        {
            "unit": units | "KeyUnits" >> beam.Map(lambda unit: (unit.index, unit)),
            "ids": looked_up | "KeyIds" >> beam.MapTuple(ids_of),
        }
        | "GatherUnits" >> beam.CoGroupByKey()
        | "WriteUnits" >> beam.MapTuple(partial(write_unit, work=work))
        | "SumCounts" >> beam.CombineGlobally(records.SumCounters())
        | "WriteCounts" >> beam.Map(_write_json, f"{work}/counts.json")
    )
    (
        units
        | "NameUnits" >> beam.Map(lambda unit: (unit.path, unit.reused))
        | "GatherNames" >> beam.combiners.ToList()
        | "WriteNames" >> beam.Map(_write_json, f"{work}/units.json")
    )


def _tensors() -> TensorAdapterConfig:
    """How the columns of `types_of` become the inputs of the preprocessing graph."""
    representation = schema_pb2.TensorRepresentation
    text = representation.DenseTensor(column_name="text", shape=schema_pb2.FixedShape())
    ragged = {
        name: representation.RaggedTensor(
            feature_path={"step": [name]}, row_partition_dtype="INT64"
        )
        for name in _RAGGED
    }
    tensors = {"text": representation(dense_tensor=text)}
    tensors |= {name: representation(ragged_tensor=tensor) for name, tensor in ragged.items()}
    return TensorAdapterConfig(_SCHEMA, tensors)


def types_of(unit: TokenisedUnit) -> Iterator[pa.RecordBatch]:
    """The types of each segment of a unit, a row each; `text` is empty."""
    for index, (types, counts) in enumerate(unit.types()):
        columns = [
            pa.array([b""], pa.large_binary()),
            types.cast(pa.large_binary()),
            counts,
            pa.array([unit.index]),
            pa.array([index]),
        ]
        yield pa.RecordBatch.from_arrays(
            [pa.LargeListArray.from_arrays([0, len(column)], column) for column in columns],
            schema=_SCHEMA,
        )


def ids_of(
    batch: pa.RecordBatch, unary: dict[str, pa.Array]
) -> tuple[int, tuple[int, npt.NDArray[np.int32]]]:
    """Unit, and the place of a segment in it with the ids of its types."""
    # Keys that hold one value only, as those of a row do, come apart from the batch.
    keys = {name: batch.column(name) for name in batch.schema.names} | unary
    unit, segment = (keys[name].flatten()[0].as_py() for name in _PASSED_THROUGH)
    return unit, (segment, batch.column("type_ids").flatten().to_numpy().astype(np.int32))


def write_unit(index: int, found: dict[str, Iterable[Any]], work: str) -> dict[str, int]:
    """Encode a `unit` with the `ids` of its segments' types; returns what it holds."""
    (unit,) = found["unit"]
    ids = dict(found["ids"])
    parts = ((segment, ids[number]) for number, segment in enumerate(unit.segments()))
    return records.write_unit(index, parts, work)


def _write_json(content: Any, path: str) -> str:
    # Sorted: which unit came first is in the order of the keys.
    return preprocessing.write(json.dumps(content, sort_keys=True).encode(), path)


def _statistics(counts: dict[str, int], listing: Listing, out: Examples) -> dict[str, Any]:
    read = {name: count for name, count in counts.items() if "." not in name}
    encoded = {name: count for name, count in counts.items() if "." in name}
    counted, types = map(int, (out.path / "totals.tsv").read_text().split("\t"))
    too_long, joined = read.pop("token_too_long", 0), read.pop(joins.JOINED, 0)
    tokens = counted + too_long
    vocabulary = Vocabulary.load_counts(out.path / preprocessing.VOCABULARY)
    phrases = {"types": len(Phrases.load(out.path)), "pairs_joined": joined}
    kept_tokens = int(vocabulary.sum())
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
    damaged = {name: read.pop(name) for name in (DAMAGED,) if name in read}
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
        "files_skipped": listing.skipped | damaged,
        "tokens": tokens,
        "types": types,
        "vocabulary": len(vocabulary),
        "kept_tokens": kept_tokens,
        "kept_share": round(kept_tokens / tokens, 6),
        "tokens_dropped": {"out_of_vocabulary": counted - kept_tokens}
        | ({"too_long": too_long} if too_long else {}),
        **({"phrases": phrases} if (out.path / PHRASES).exists() else {}),
        "types_dropped": {"below_min_count_or_beyond_max_size": types - len(vocabulary)},
        "splits": splits,
        "document_lengths": [{"up_to": bound, "documents": count} for bound, count in lengths],
        "top_tokens": _top_tokens(out.path / preprocessing.VOCABULARY),
    }


def _top_tokens(vocabulary: Path) -> list[dict[str, Any]]:
    with vocabulary.open("rb") as file:
        lines = [line.rstrip(b"\n").split(b"\t") for line in itertools.islice(file, _TOP_TOKENS)]
    return [{"token": token.decode(), "count": int(count)} for token, count in lines]


def _check_directory(work: str) -> None:
    if set("*?[]") & set(work):
        raise SkipstreamError(
            "neither the output directory nor transform.work_directory may hold any of * ? [ ], "
            f"which TensorFlow and Beam take for patterns, got {work}: name another"
        )
    if is_remote(work) and not work.startswith("gs://"):
        raise SkipstreamError(
            "transform.work_directory must be a local directory or gs://: TensorFlow can write "
            f"nothing else, got {work}"
        )


def _check_unchanged(before: dict[str, Any], after: dict[str, Any], listing: Listing) -> None:
    changed = [path for path, state in after.items() if before[path] != state]
    if listing.damaged_files == "skip":  # What is gone was read whole or skipped.
        changed = [path for path in changed if after[path] is not None]
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
