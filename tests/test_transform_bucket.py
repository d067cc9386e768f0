"""The Beam job with a bucket: S3 and Cloud Storage, answered by servers on this machine."""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_job
import pyarrow as pa
import pytest
import stores
import tensorflow as tf
from botocore.loaders import JSONFileLoader
from faults.proxy import Proxy

from components.artifacts import Corpus, Examples
from components.beam_options import in_this_process, runner_and_options
from components.errors import SettingsError, SkipstreamError
from components.example_gen.build import build as list_corpus
from components.example_gen.build import find
from components.example_gen.formats import Block
from components.example_gen.units import Listing, plan
from components.settings import ExampleGenSettings, TransformSettings
from components.transform import job, records, segments, storage, transform, work_directory
from components.transform.segment_ref import SegmentRef
from components.transform.token_cache import TokenCache
from components.transform.tokenise import TokeniseUnit


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> stores.Server:
    found: stores.Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def proxy(server: stores.Server) -> Iterator[Proxy]:
    with Proxy(server.endpoint) as proxy:
        yield proxy


load_json = functools.cache(JSONFileLoader().load_file)


@pytest.fixture
def bucket(server: stores.Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = server.bucket(through=proxy.endpoint)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    # Beam makes a client for each file, and for each client boto3 parses a megabyte.
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda _, path: load_json(path))
    runner_and_options([])  # Beam's file systems have the options of the job.
    yield made.url


def run(out: Path, corpus: Path, cache: str | None, beam_options: tuple[str, ...] = ()) -> Examples:
    for name in ("corpus", "examples"):
        (out / name).mkdir(parents=True)
    listed = list_corpus(
        settings=ExampleGenSettings(input=(str(corpus),)), out=Corpus(out / "corpus", "corpus")
    )
    return transform.build(
        listed,
        settings=TransformSettings(min_count=1),
        beam_options=beam_options,
        cache=cache,
        out=Examples(out / "examples", "examples"),
    )


def digests(directory: Path) -> dict[str, str]:
    """By the names of all files that are the same bytes in every run."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "manifest.json" and "transform_graph" not in path.parts
    }


def requests_of(proxy: Proxy) -> Counter[str]:
    found = Counter(request.method for request in proxy.requests if "tokens/" in request.path)
    proxy.requests.clear()
    return found


LINES = [f"a{number} b c d e f g h" for number in range(60)]
LINES[7:7] = ["", "…"]  # Without a word.
CHANGED = "\n".join(LINES).replace("a59 ", "x59 ")  # In the last of three units.


def test_tokens_in_a_bucket_are_read_and_written_once_and_two_workers_make_what_no_beam_makes(
    tmp_path: Path,
    server: stores.Server,
    bucket: str,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("components.example_gen.units.UNIT_BYTES", 400)
    corpus, cache = tmp_path / "corpus.txt", f"{bucket}/out/tokens"
    corpus.write_text("\n".join(LINES))
    with monkeypatch.context() as patch:
        plain_job.use(patch)
        first = run(tmp_path / "1", corpus, cache)
        units = first.summary["units"]
        assert units == 3
        assert requests_of(proxy) == {"HEAD": units, "PUT": units}

        corpus.write_text(CHANGED)
        expected = digests(run(tmp_path / "local", corpus, None).path)
    if server.scheme == "gs":  # Beam does not see which store it is: once is enough.
        plain_job.use(monkeypatch)
    proxy.requests.clear()
    two_workers = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    second = run(tmp_path / "2", corpus, cache, two_workers)
    assert second.summary["units_reused"] == units - 1
    found = requests_of(proxy)
    assert (found["GET"], found["PUT"]) == (units - 1, 1)
    assert len(storage.files_in(cache)) == units  # That of the old text is gone.
    assert digests(second.path) == expected


def tokenise(directory: Path, cache: TokenCache) -> list[SegmentRef]:
    """As a worker does it, the one unit of a small corpus."""
    (directory / "corpus.txt").write_text("the cat sat on the mat\n")
    _, listing = find(ExampleGenSettings(input=(f"{directory}/corpus.txt",)))
    (unit,) = plan(listing)
    cache.make()
    return list(TokeniseUnit(cache, TransformSettings(), 0.0).process(unit))


def test_a_bucket_that_refuses_is_one_line_with_its_address(
    tmp_path: Path, bucket: str, proxy: Proxy
) -> None:
    near = TokenCache.of(f"{bucket}/out/tokens", str(tmp_path))
    far = TokenCache.of(f"{bucket}/out/tokens", f"{bucket}/work")
    for cache in (near, far):
        proxy.fail(403, lambda request: request.method != "GET")
        with pytest.raises(SkipstreamError, match=rf"{bucket}/out/tokens/\w+\.arrow.* 403") as told:
            tokenise(tmp_path, cache)
        assert "\n" not in str(told.value)
        proxy.rules.clear()
        assert len(tokenise(tmp_path, cache)) == 1
        cache.remove_others(keep=[])
        assert storage.files_in(f"{bucket}/out/tokens") == []


def test_a_damaged_token_file_in_a_bucket_is_named(tmp_path: Path, bucket: str) -> None:
    near = TokenCache.of(f"{bucket}/out/tokens", str(tmp_path))
    far = TokenCache.of(f"{bucket}/out/tokens", f"{bucket}/work")
    assert [segment.reused for segment in tokenise(tmp_path, near)] == [False]
    assert [segment.reused for segment in tokenise(tmp_path, far)] == [True]
    (path,) = storage.files_in(f"{bucket}/out/tokens")
    storage.write(storage.read(path)[:-9], path)
    for cache in (near, far):
        with pytest.raises(
            SkipstreamError, match=f"^{path} is damaged .*: delete it and run again"
        ):
            tokenise(tmp_path, cache)
    near.remove()
    assert storage.files_in(f"{bucket}/out/tokens") == []


def segment_of(documents: list[str], held_out: list[bool]) -> segments.Segment:
    block = Block(pa.array([d.encode() for d in documents], pa.binary()), {})
    (segment,) = segments.tokenise([block], settings=TransformSettings(), eval_share=0)
    segment.held_out[:] = held_out
    return segment


@pytest.mark.parametrize("server", ["gs"], indirect=True)  # TensorFlow cannot write to s3://.
def test_workers_elsewhere_write_the_same_records_to_a_bucket(tmp_path: Path, bucket: str) -> None:
    segment = segment_of(["a b " * 9_000, "c", "b"], [False, True, False])
    for name in (*records.SPLITS, records.UNFINISHED):
        (tmp_path / name).mkdir()
    ids = np.arange(3)
    counts = records.write_segment(7, 3, segment, ids, str(tmp_path))
    assert records.write_segment(7, 3, segment, ids, f"{bucket}/work") == counts
    assert records.write_segment(7, 3, segment, ids, f"{bucket}/work") == counts  # Once more.
    storage.write(b"x", f"{bucket}/work/tokens/x.arrow")
    storage.fetch(f"{bucket}/work", tmp_path / "fetched", leave=["tokens"])
    assert digests(tmp_path / "fetched") == {
        f"{split}/000007-0003.tfrecord.gz": hashlib.sha256(
            (tmp_path / split / "000007-0003.tfrecord.gz").read_bytes()
        ).hexdigest()
        for split in records.SPLITS
    }
    storage.remove(f"{bucket}/work")
    assert storage.files_in(f"{bucket}/work") == []


def test_workers_elsewhere_keep_segments_in_a_bucket(bucket: str) -> None:
    first, second = segment_of(["a b a"], [True]), segment_of(["", "c"], [False, True])
    path = f"{bucket}/work/tokens/000000.arrow"
    segments.save([first, second], path)
    assert segments.count(path) == 2
    assert segments.load(path, 1).lengths.tolist() == [0, 1]
    assert segments.load_counts(path, 0)[1].to_pylist() == [2, 1]
    assert not storage.exists(f"{path}x")
    storage.delete([path])
    with pytest.raises(SkipstreamError, match=path):
        segments.count(path)


def test_the_first_of_two_equal_files_stays(bucket: str) -> None:
    place = f"{bucket}/tokens/x"
    for content in (b"first", b"second"):
        storage.move_first(storage.write(content, f"{place}.{content.decode()}"), place)
    assert storage.read(place) == b"first"
    assert storage.files_in(f"{bucket}/tokens") == [place]
    storage.move(storage.write(b"third", f"{place}.third"), place)
    assert storage.read(place) == b"third"


def choose(
    tmp_path: Path, named: str | None, shared: str | None, elsewhere: bool
) -> tuple[str, bool]:
    settings = TransformSettings(work_directory=named)
    return work_directory.choose(settings, shared, Examples(tmp_path, "f00d"), elsewhere=elsewhere)


def test_workers_elsewhere_write_where_the_settings_say_or_below_the_output(
    tmp_path: Path,
) -> None:
    local, named = f"{tmp_path}/work", f"{tmp_path}/shared/"
    assert choose(tmp_path, None, None, elsewhere=True) == (local, False)
    assert choose(tmp_path, named, None, elsewhere=False) == (local, False)
    assert choose(tmp_path, named, "s3://b/out/work", elsewhere=True) == (f"{named}f00d", False)
    assert choose(tmp_path, None, "s3://b/out/work", elsewhere=False) == (local, False)
    with pytest.raises(SettingsError, match=r"or to gs://, got s3://b/out/work/f00d: set transfo"):
        choose(tmp_path, None, "s3://b/out/work", elsewhere=True)


def test_what_must_not_be_a_pattern_is_named(tmp_path: Path) -> None:
    odd = tmp_path / "o[1]"
    remote: Any = SimpleNamespace(address="s3://b/out/transform/f00d")
    cached = Examples(odd, "f00d", remote=remote)
    with pytest.raises(
        SettingsError, match=r"^the cache directory .*\[1\]/work: .*SKIPSTREAM_CACHE"
    ):
        work_directory.choose(TransformSettings(), None, cached, elsewhere=False)
    with pytest.raises(SettingsError, match=r"^neither the output nor .*\[1\]/work: name another$"):
        choose(odd, None, None, elsewhere=False)


def test_a_launched_job_is_taken_up_where_it_works(
    tmp_path: Path, server: stores.Server, bucket: str
) -> None:
    shared = f"{bucket}/out/work"
    if server.scheme == "s3":  # TensorFlow cannot write there: there is none, and nobody asks.
        assert choose(tmp_path, None, shared, elsewhere=False) == (f"{tmp_path}/work", False)
        return
    place = f"{shared}/f00d"
    assert choose(tmp_path, None, shared, elsewhere=True) == (place, False)
    storage.write(b"", f"{place}/launched")
    assert choose(tmp_path, None, shared, elsewhere=False) == (place, True)
    with pytest.raises(SkipstreamError, match=f"must have written all of {place}, and has not"):
        work_directory.check_launched(place, awaited=True)
    for name in ("counts.json", "totals.tsv", "transform_graph/transform_fn/saved_model.pb"):
        storage.write(b"", f"{place}/{name}")
    work_directory.check_launched(place, awaited=True)
    storage.write(b"", f"{place}/transform_graph/transform_tmp/x")
    with pytest.raises(SkipstreamError, match="has not"):
        work_directory.check_launched(place, awaited=True)


@pytest.mark.parametrize("server", ["gs"], indirect=True)
def test_a_bucket_that_tensorflow_cannot_reach_is_one_line(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise tf.errors.PermissionDeniedError(None, None, "HTTP response code 403")

    monkeypatch.setattr(job, "wire", refuse)
    (tmp_path / "corpus.txt").write_text("a\n")
    listed = list_corpus(
        settings=ExampleGenSettings(input=(f"{tmp_path}/corpus.txt",)), out=Corpus(tmp_path, "1")
    )
    with pytest.raises(SkipstreamError, match=f"^cannot read or write {bucket}/work/2: .* 403: "):
        transform.build(
            listed,
            settings=TransformSettings(),
            beam_options=["--runner=FlinkRunner"],
            shared=f"{bucket}/work",
            out=Examples(tmp_path, "2"),
        )


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--direct_running_mode=multi_processing"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=PrismRunner", "--environment_type=DOCKER"], False),
        (["--runner=FlinkRunner", "--environment_type=LOOPBACK"], True),
        (["--runner=FlinkRunner"], False),
        (["--runner=PortableRunner", "--environment_type=DOCKER"], False),
    ],
)
def test_who_computes_is_told_by_beams_options(flags: list[str], here: bool) -> None:
    assert in_this_process(*runner_and_options(flags)) == here


def test_workers_elsewhere_read_the_default_corpus_in_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remote:
        address = "gs://b/out/example_gen/f00d"

        def fetch(self, name: str) -> None:
            fetched.append(name)

    fetched: list[str] = []
    monkeypatch.setattr(
        "components.example_gen.default_corpus.write",
        lambda target: target.write_text("a\n") and {},
    )
    made = list_corpus(settings=ExampleGenSettings(), out=Corpus(tmp_path, "f00d"))
    corpus = Corpus(tmp_path, "f00d", remote=Remote())
    name = "docstrings.txt.gz"
    assert Listing.load(made).files == Listing.load(corpus).files == ((f"{tmp_path}/{name}", 2),)
    assert fetched == ["corpus.json", name]
    fetched.clear()
    assert Listing.load(corpus, fetched=False).files == ((f"{Remote.address}/{name}", 2),)
    assert fetched == ["corpus.json"]
