"""The Beam job: a corpus -> vocabulary, transform graph, TFRecords and statistics.

Cost model: the text is tokenised once, by `TokeniseUnits`, which is where the time goes. It is read
twice for that, first for the digest by which the next run finds what this one did: 3 % of the time
on a local disk, twice the transfer from a bucket. Text that has not changed is there already. What
was found lies in a file a unit, about half the bytes of the text, and is read by segments: the
types to be counted, the types to be looked up, then all of it to be encoded. Where that lies in a
bucket, a job in this process fetches a file once (2 requests) or uploads it (2), and reads its own
copy. Shuffled are the types of each worker with their counts, and where each segment lies: never
tokens. Flink and Spark also store the types of each segment before they are looked up: with a step
that has a side input they begin a new stage. A worker holds a segment (16 to 25 MB of text), the
types that it has counted since it last sent some on, and the vocabulary, the driver the vocabulary,
nobody the corpus. What phrases cost is said in `phrases`.

An estimate for 1 TB on Dataflow, from 133 MB to 2 GB of English on two slow cores, where each MB
took 0.085 s of CPU: 1e6 x 0.085 s = 24 core-hours, 14 minutes on 100 cores, if reading keeps up
(twice 12 MB/s a core). Token files take 0.5 TB for the time of the job, or as long as they are
kept. The types of a unit of 16 MB with their counts, 1.9 MB, are summed within a worker before they
are shuffled: at most 1e12 / 16.8e6 x 1.9 MB = 113 GB, less what workers with several units save.
Flink and Spark store about as much again.
"""

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from components import errors, starvation
from components.artifacts import Corpus, Examples, by_reason, write_json
from components.beam_options import in_this_process, is_awaited, runner_and_options
from components.defaults import ENOUGH_TOKENS
from components.errors import NotAwaitedError, SettingsError, SkipstreamError
from components.example_gen.files import is_remote, state_of
from components.example_gen.units import Listing, plan
from components.names import shown
from components.phrases import FILE as PHRASES
from components.settings import TransformSettings
from components.transform import (
    job,
    limits,
    preprocessing,
    progress,
    records,
    statistics,
    storage,
    work_directory,
)
from components.transform.phrases import WORK
from components.transform.storage import delete, exists, fetch, make_directory, remove
from components.transform.token_cache import TOKENS, TokenCache
from components.transform.work_directory import GO_ON, LAUNCHED

LEAST_TYPES = 2  # One word has no neighbours.
# What the work directory holds beside results.
_ON_THE_WAY = (TOKENS, "tftransform_tmp", records.UNFINISHED, WORK)


def build(
    corpus: Corpus,
    *,
    settings: TransformSettings,
    beam_options: Sequence[str] = (),
    cache: str | None = None,
    shared: str | None = None,
    out: Examples,
    listing: Listing | None = None,
) -> Examples:
    """Run the job.

    Args:
        corpus: What to read.
        settings: Tokeniser and vocabulary.
        beam_options: Passed on untouched. Without a --runner among them the job runs in this
            process.
        cache: Directory of tokenised units, for the next run; removed if `settings.cache` is off.
            none: there is no such place.
        shared: Directory for workers elsewhere, if `settings.work_directory` names none; none: they
            see `out.path`.
        out: Receives train/, eval/, transform_graph/, vocabulary.tsv and statistics.json.
        listing: Where the files of the corpus are now; none: where they were when it was listed.

    Raises:
        SkipstreamError: The corpus cannot be read, has changed meanwhile, or leaves no vocabulary;
            or the workers cannot write where the settings say.
        SettingsError: Settings and options do not go together.
        NotAwaitedError: The job was launched, as the options say, and runs on its own.
    """
    runner, options = runner_and_options(beam_options)
    awaited, here = is_awaited(options), in_this_process(runner, options)
    work, launched = work_directory.choose(settings, shared, out, elsewhere=not (here and awaited))
    if type(runner).__name__ == "DataflowRunner" and not is_remote(work):
        raise SettingsError(
            "workers on Dataflow must write to gs://, got "
            f"{settings.work_directory or 'no place there'}: set --output or "
            "transform.work_directory to one"
        )
    if not awaited and not (settings.work_directory or shared):
        raise SettingsError(
            "a Beam job that is not waited for needs a place of its own, got none: set "
            "transform.work_directory, or --output to a place on gs://"
        )
    listing = listing or Listing.load(corpus, fetched=here)
    files = [path for path, _ in listing.files]
    # As they were listed: what was written since then is not what the fingerprint says.
    before = state_of(files, listing.urls) | listing.states
    # Nobody keeps others off the tokens of a job that runs on its own.
    found_again = settings.cache and awaited and not launched
    token_cache = TokenCache.of(cache if found_again else None, work)
    if launched:
        work_directory.check_launched(work, awaited=awaited)
    else:
        _run(runner, options, listing, settings, token_cache, work, awaited=awaited)
    _check_unchanged(before, state_of(files, listing.urls), listing, token_cache)
    if not exists(f"{work}/{job.COUNTS}"):
        raise SkipstreamError(
            f"workers and launcher must see the same files, and {work} holds nothing of the "
            "workers': set transform.work_directory to a place that both see"
        )
    fetch(work, out.path, leave=_ON_THE_WAY)
    written = json.loads((out.path / job.COUNTS).read_text())
    limits.check(written["counts"], listing)
    _check_text(written["counts"], listing)
    counted, types = map(int, (out.path / job.TOTALS).read_text().split("\t"))
    _take_vocabulary(out, settings, counted, written["counts"].get("documents", 0))
    content = statistics.describe(written["counts"], counted, types, listing, out)
    content |= {"advice": advice} if (advice := limits.advice(written["counts"], listing)) else {}
    write_json(out.path / "statistics.json", content)
    for name in (job.COUNTS, job.TOTALS, LAUNCHED):
        (out.path / name).unlink(missing_ok=True)
    token_files: dict[str, bool] = written["token_files"]
    if token_cache.found_again:
        token_cache.remove_others(keep=token_files)
    elif cache and not settings.cache:
        TokenCache.of(cache, work).remove()
    remove(work)  # Not before: what a job wrote that ran on its own, the next try finds there.
    return out.finish(
        settings,
        documents=content["documents"],
        tokens=content["tokens"],
        vocabulary=content["vocabulary"],
        kept_share=content["kept_share"],
        **by_reason(content),
        units=len(token_files),
        units_reused=sum(token_files.values()),
    )


def _run(
    runner: PipelineRunner,
    options: PipelineOptions,
    listing: Listing,
    settings: TransformSettings,
    cache: TokenCache,
    work: str,
    *,
    awaited: bool,
) -> None:
    """Run the job to its end, or launch it."""
    remove(work)
    for name in (*records.SPLITS, records.UNFINISHED):
        make_directory(f"{work}/{name}")
    cache.make()
    if not awaited:
        storage.write(b"", f"{work}/{LAUNCHED}")
    try:
        with (
            starvation.fails(),
            progress.shown(len(plan(listing)), cache.written_to, work),
            _tidied(beam.Pipeline(runner=runner, options=options)) as pipeline,
            storage.naming(work, tf.errors.OpError),  # The graph is traced into files.
        ):
            job.wire(pipeline, listing, settings=settings, cache=cache, work=work)
    except BaseException as error:
        if not awaited:
            delete([f"{work}/{LAUNCHED}"])
        if isinstance(error, Exception) and (mistake := errors.from_beam(error)) is not None:
            raise mistake from error
        raise
    if not awaited:
        raise NotAwaitedError(
            f"the job was launched and is not waited for: when it has ended, {GO_ON}"
        )


@contextmanager
def _tidied(pipeline: beam.Pipeline) -> Iterator[beam.Pipeline]:
    """Run a pipeline at the end of the block. Its directory goes, whatever happens."""
    try:
        with pipeline:
            yield pipeline
    except BaseException:
        shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)
        raise


def _take_vocabulary(
    out: Examples, settings: TransformSettings, tokens: int, documents: int
) -> None:
    """Copy it, and the phrases, from the assets of the graph.

    Raises:
        SkipstreamError: There is nothing to be learned of so few words.
    """
    assets = out.path / job.GRAPH / "transform_fn" / "assets"
    asset = assets / preprocessing.VOCABULARY
    with asset.open("rb") as file:
        first = list(itertools.islice(file, LEAST_TYPES))
    if len(first) < LEAST_TYPES:  # An empty one has a line, too.
        raise SkipstreamError(_too_few_words(first, settings, tokens, documents))
    shutil.copyfile(asset, out.path / preprocessing.VOCABULARY)
    if settings.phrase_passes:
        shutil.copyfile(assets / PHRASES, out.path / PHRASES)


def _too_few_words(
    lines: list[bytes], settings: TransformSettings, tokens: int, documents: int
) -> str:
    """Why the vocabulary is too small: because the text is, or the settings leave out too much."""
    words = [line.split(b"\t")[0].decode() for line in lines]
    kept = " and ".join(f"'{word}'" for word in words if word) or "none"
    message = f"the vocabulary must hold at least {LEAST_TYPES} words to compare, got {kept}"
    if settings.max_size is not None and settings.max_size < LEAST_TYPES:
        return f"{message}: raise transform.max_size = {settings.max_size}"
    message += (
        f": of {tokens:,} tokens in {documents:,} documents, no other occurs "
        f"transform.min_count = {settings.min_count} times"
    )
    if tokens < ENOUGH_TOKENS:
        return (
            f"{message}; the text is too small: word vectors begin to be of use at some "
            f"{ENOUGH_TOKENS:,} tokens and are good from a million on; give more text, or for a "
            "trial --set transform.min_count=1"
        )
    return f"{message}; lower it, or check transform.tokenizer and example_gen.format"


def _check_unchanged(
    before: dict[str, Any],
    after: dict[str, Any],
    listing: Listing,
    cache: TokenCache,
) -> None:
    changed = [path for path, state in after.items() if before[path] != state]
    if listing.damaged_files == "skip":  # What is gone was read whole or skipped.
        changed = [path for path in changed if after[path] is not None]
    if changed:
        if cache.found_again and any(map(is_remote, changed)):
            cache.remove()  # Workers look at local files only; others have other names now.
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise SkipstreamError(
            f"the corpus must not change while it is read, but {shown(changed[0])}{more} did: "
            "run again when it is whole"
        )


def _check_text(read: dict[str, int], listing: Listing) -> None:
    """Refuse a corpus without a document or without a token, whatever the settings further on."""
    documents, files = read.get("documents", 0), len(listing.files)
    of_files = f"{files:,} file{'s' * (files > 1)}"
    if not documents:
        empty = read.get("empty", 0)
        blank = f" ({empty:,} are blank)" if empty else ""
        raise SkipstreamError(
            f"the corpus must hold text, got {of_files} without a document{blank}: check "
            "example_gen.input and example_gen.format"
        )
    if read.get("dropped.no_token") == documents and not read.get("tokens.too_long"):
        raise SkipstreamError(
            f"the corpus must hold words, got {of_files} whose {documents:,} documents have no "
            "letter and no digit: check example_gen.input"
        )
