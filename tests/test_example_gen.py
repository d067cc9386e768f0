"""Patterns -> corpus.json -> units, the split, the default corpus, and the Beam source."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from bucket import BucketFileSystem

from components.artifacts import Corpus
from components.contents import Contents
from components.errors import SkipstreamError, from_beam
from components.example_gen import default_corpus, units
from components.example_gen.build import build, describe, find
from components.example_gen.files import File, list_files
from components.example_gen.reader import read
from components.example_gen.split import held_out
from components.places.directory import Directory
from components.settings import ExampleGenSettings


def plan(corpus: Corpus) -> list[units.Unit]:
    return units.plan(units.Listing.load(corpus))


def corpus_of(out: Path, *patterns: object, **settings: object) -> Corpus:
    out.mkdir(exist_ok=True)
    chosen = ExampleGenSettings(input=tuple(map(str, patterns)), **settings)
    return build(settings=chosen, out=Corpus(out, "f"))


def test_files_are_listed_once_in_the_order_of_their_paths(tmp_path, monkeypatch):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("z.txt", "a.txt", ".hidden.txt", "b/c.txt", "b/deep/d.txt", "x[1].txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    files, skipped = list_files(["*", "./a.txt", "~/**/*.txt", "x[1].txt"])
    names = ["a.txt", "b/c.txt", "b/deep/d.txt", "x[1].txt", "z.txt"]
    assert [file.path for file in files] == [str(tmp_path / name) for name in names]
    status = (tmp_path / "a.txt").stat()
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    assert files[0] == File(str(tmp_path / "a.txt"), 5, modified, changed)
    assert skipped == {"directory": 1, "not_a_file": 1}


def test_a_bucket_that_cannot_be_listed_says_what_to_check(monkeypatch):
    def match(patterns):
        raise BeamIOError("Match operation failed", {patterns[0]: OSError("401 Anonymous caller")})

    monkeypatch.setattr(FileSystems, "match", match)
    with pytest.raises(SkipstreamError) as caught:
        list_files(["gs://bucket/*"])
    assert str(caught.value) == (
        "cannot list example_gen.input pattern 'gs://bucket/*': 401 Anonymous caller: check the "
        "name, the network and the credentials, as of 'gcloud auth application-default login'"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_refused_when_listed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(SkipstreamError, match=r"cannot read .*a\.txt: permission denied"):
        list_files([str(path)])


def test_unreadable_files_are_refused_when_listed_even_as_root(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SkipstreamError, match=r"cannot read .*a\.txt: permission denied"):
        list_files([f"{tmp_path}/*"])


def test_urls_are_read_through_beam(tmp_path):
    assert BucketFileSystem.scheme() == "bucket"
    (tmp_path / "b.txt").write_text("three\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    corpus = corpus_of(tmp_path / "out", f"bucket:/{tmp_path}/*.*")
    documents = [d for unit in plan(corpus) for b in read(unit) for d in b.documents]
    assert [document.as_py() for document in documents] == [b"one", b"two", b"three"]
    with pytest.raises(SkipstreamError, match="no file matches"):
        list_files([f"bucket:/{tmp_path}/x*"])


def test_the_listing_says_everything_the_reader_needs(tmp_path):
    (tmp_path / "a.txt").write_text("four")
    os.utime(tmp_path / "a.txt", ns=(10**18, 10**18))
    (tmp_path / "folder").mkdir()
    corpus = corpus_of(tmp_path / "out", tmp_path / "*", format="files", eval_share=0.1)
    assert json.loads((corpus.path / "corpus.json").read_text()) == {
        "files": [{"path": str(tmp_path / "a.txt"), "size": 4, "modified": 10**18}],
        "urls": [],
        "format": "files",
        "field": "text",
        "eval_share": 0.1,
        "damaged_files": "fail",
        "skipped": {"directory": 2},
        "max_unreadable": 0.01,
        "max_invalid_utf8": 0.1,
        "max_expansion": 200.0,
    }
    assert corpus.summary == {"files": 1, "bytes": 4, "skipped": {"directory": 2}}


def identity(tmp_path: Path, *patterns: object, **settings: object) -> tuple[object, bool]:
    chosen = ExampleGenSettings(input=tuple(map(str, patterns)), **settings)
    return describe(*find(chosen), Contents(Directory(tmp_path), "digests/x.json"))


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_the_same_content_is_the_same_corpus(tmp_path):
    folder = write(tmp_path / "day", a="one\n", b="two\n")
    before = identity(tmp_path, folder / "*")
    os.utime(folder / "a.txt", (1, 1))
    assert identity(tmp_path, folder / "*") == before
    shutil.copytree(folder, tmp_path / "copy")
    assert identity(tmp_path, tmp_path / "copy" / "*") == before
    (folder / "a.txt").rename(folder / "aa.txt")
    assert identity(tmp_path, folder / "*") == before
    assert identity(tmp_path / "other_memory", folder / "*.txt") == before
    (tmp_path / "x").mkdir()
    (folder / "b.txt").rename(tmp_path / "x" / "b.txt")  # Units as small as this ignore folders.
    assert identity(tmp_path, folder / "*", tmp_path / "x" / "*") == before


def test_other_content_is_another_corpus(tmp_path):
    folder = write(tmp_path / "day", a="one\n", b="two\n")
    seen = {str(identity(tmp_path, folder / "*", format=f)) for f in ("lines", "files")}
    (folder / "a.txt").write_text("One\n")
    seen.add(str(identity(tmp_path, folder / "*")))
    (folder / "c.txt").write_text("")
    seen.add(str(identity(tmp_path, folder / "*")))
    (folder / "a.txt").rename(folder / "a.txt.gz")
    seen.add(str(identity(tmp_path, folder / "*")))
    assert len(seen) == 5


def test_another_order_is_another_corpus_and_is_noticed(tmp_path):
    folder = write(tmp_path / "day", a="one\n", b="two\n")
    before, reordered = identity(tmp_path, folder / "*")
    assert not reordered
    (folder / "a.txt").rename(folder / "c.txt")
    after, reordered = identity(tmp_path, folder / "*")
    assert reordered and after != before
    assert identity(tmp_path, folder / "*") == (after, False)


def test_directories_count_where_they_begin_a_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "UNIT_BYTES", 100)
    monkeypatch.setattr(units, "_FILE_BYTES", 1)
    together = write(tmp_path / "a", x="x" * 50, y="y" * 20)
    write(tmp_path / "b" / "1", x="x" * 50)
    write(tmp_path / "b" / "2", y="y" * 20)
    before, _ = identity(tmp_path, together / "*")
    assert identity(tmp_path, tmp_path / "b" / "*" / "*") != (before, False)


def test_a_corpus_of_empty_files_is_refused(tmp_path):
    folder = write(tmp_path / "day", a="", b="")
    with pytest.raises(SkipstreamError) as caught:
        identity(tmp_path, folder / "*")
    assert str(caught.value) == (
        f"example_gen.input must name files that hold text, got {folder}/a.txt, which is empty, "
        "as all 2 files are: check what wrote them"
    )


def test_a_listing_says_where_the_files_are_and_since_when(tmp_path):
    folder = write(tmp_path / "day", a="one\n")
    corpus = corpus_of(tmp_path / "out", folder / "*")
    _, listing = find(ExampleGenSettings(input=(f"{folder}/*",)))
    assert units.Listing.load(corpus) == listing
    file = folder / "a.txt"
    assert listing.states == {str(file): (4, file.stat().st_mtime_ns)}


def test_describing_needs_neither_beam_nor_tensorflow(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    code = f"""if True:
        import sys
        from pathlib import Path
        from components.contents import Contents
        from components.example_gen.build import describe, find
        from components.places.directory import Directory
        from components.settings import ExampleGenSettings as Settings
        memory = Contents(Directory(Path({str(tmp_path)!r})), "memory.json")
        docstrings, _ = describe(*find(Settings()), memory)
        assert docstrings["docstrings"]["tensorflow"]
        describe(*find(Settings(input=({f"{tmp_path}/a.txt"!r},))), memory)
        assert not {{"tensorflow", "apache_beam", "numpy"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["a.xz", "a.tar.gz", "a.zip", "a.parquet.gz"])
def test_unsupported_packing_is_refused_when_listed(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SkipstreamError, match="unpack it"):
        corpus_of(tmp_path / "out", tmp_path / name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("enwiki-pages-articles.xml.bz2", "wikiextractor"),
        ("enwiki-pages-articles1.xml-p1p41242.bz2", "wikiextractor"),
        ("CC-MAIN-0.warc.gz", "trafilatura"),
        ("CC-MAIN-0.warc.WET.gz", "warcio"),
    ],
)
def test_dumps_are_not_taken_for_text(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SkipstreamError, match=rf"{name} is a \..* dump, .*{remedy}.*format"):
        corpus_of(tmp_path / "out", tmp_path / name)
    assert units.detect(name, "lines")[0] == "lines"  # Whoever says so means it.


def test_units_share_out_large_files_and_gather_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "UNIT_BYTES", 100)
    monkeypatch.setattr(units, "_FILE_BYTES", 1)
    sizes = {"a.txt": 260, "b.txt": 10, "c.txt.gz": 20, "d.parquet": 150, "e.txt": 60, "f.txt": 0}
    sizes["g.txt"] = 140  # Not enough to be cut.
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    planned = plan(corpus_of(tmp_path / "out", tmp_path / "*.*"))
    assert [unit.index for unit in planned] == list(range(7))
    assert [
        [(os.path.basename(p.path), p.start, p.stop, p.format, p.compression) for p in unit.pieces]
        for unit in planned
    ] == [
        [("a.txt", 0, 100, "lines", None)],
        [("a.txt", 100, 200, "lines", None)],
        [("a.txt", 200, 260, "lines", None), ("b.txt", 0, 10, "lines", None)],
        [("c.txt.gz", 0, 20, "lines", "gzip")],
        [("d.parquet", 0, 150, "parquet", None)],
        [("e.txt", 0, 60, "lines", None), ("f.txt", 0, 0, "lines", None)],
        [("g.txt", 0, 140, "lines", None)],
    ]


def test_a_new_directory_leaves_the_units_of_the_others_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "UNIT_BYTES", 100)
    monkeypatch.setattr(units, "_FILE_BYTES", 1)

    def write(day: str) -> None:
        (tmp_path / day).mkdir()
        for part in range(3):
            (tmp_path / day / f"{part}.txt").write_text(f"{day} and thirty bytes, or so\n")

    def pieces(out: str) -> list[object]:
        return [unit.pieces for unit in plan(corpus_of(tmp_path / out, tmp_path / "d*/*"))]

    for day in ("day1", "day3"):
        write(day)
    before = pieces("out1")
    write("day2")
    after = pieces("out2")
    assert [unit for unit in after if "day2" not in unit[0].path] == before
    assert len(after) == len(before) + 1


def test_the_split_is_a_function_of_content_with_the_asked_share():
    documents = pa.array([b"document %d" % number for number in range(20_000)], pa.binary())
    chosen = held_out(documents, 0.05)
    assert chosen.dtype == np.bool_
    assert abs(chosen.mean() - 0.05) < 0.005
    assert (held_out(documents[::-1], 0.05)[::-1] == chosen).all()
    assert (held_out(documents, 0.2) >= chosen).all()
    assert not held_out(documents, 0).any()
    assert held_out(documents[:0], 0.5).tolist() == []


SOURCE = '''"""Module prose is here."""
def function():
    """Adds two tensors.

    Repeated in two places.

    ```python
    x = function_in_a_fence(1, 2)
    ```

    The example:
    >>> function_in_a_doctest(1)
    3

    Too short.
    """
    "a string that documents nothing at all"
class Class:
    if True:
        async def method(self):
            """Repeated in
            two places.

            The last of them."""
'''


def test_docstrings_become_paragraphs_in_the_order_of_the_source(tmp_path, monkeypatch):
    package = tmp_path / "documented"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text('"""The package comes first."""')
    (package / "module.py").write_text(SOURCE)
    (package / "broken.py").write_text('"""Not Python at all."""\ndef')
    (package / "tests" / "test_it.py").write_text('"""Tests are left out."""')
    monkeypatch.syspath_prepend(tmp_path)
    skipped = default_corpus.write(tmp_path / "a.gz", ["documented", "not_installed"])
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).decode().splitlines() == [
        "The package comes first.",
        "Module prose is here.",
        "Adds two tensors.",
        "Repeated in two places.",
        "The last of them.",
    ]
    assert skipped == {"duplicate_paragraph": 1, "short_paragraph": 2, "unparsable_file": 1}
    default_corpus.write(tmp_path / "b.gz", ["documented"])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    with pytest.raises(SkipstreamError, match="none of not_installed is installed"):
        default_corpus.write(tmp_path / "c.gz", ["not_installed"])


def test_without_input_the_docstrings_are_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(default_corpus.write, "__defaults__", (("tensorflow_transform",),))
    corpus = corpus_of(tmp_path, format="files")
    (unit,) = plan(corpus)
    (piece,) = unit.pieces
    assert (piece.path, piece.format) == (str(tmp_path / "docstrings.txt.gz"), "lines")
    documents = [d for block in read(unit) for d in block.documents.to_pylist()]
    assert len(documents) == len(set(documents)) > 500
    assert any(b"vocabulary" in document for document in documents)


# multi_processing reports as multi_threading does, after seconds of starting workers.
@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_errors_come_back_from_beam_as_they_were(tmp_path, mode):
    path = tmp_path / os.fsdecode(b"it's [\xe9]\n.txt")
    path.write_text("x")
    corpus = corpus_of(tmp_path / "out", tmp_path / "it*")
    path.unlink()
    options = PipelineOptions([f"--direct_running_mode={mode}", "--direct_num_workers=2"])
    with (
        pytest.raises((SkipstreamError, RuntimeError)) as caught,
        beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline,
    ):
        pipeline | beam.Create(plan(corpus)) | "Read [it]" >> beam.FlatMap(read)
    assert str(from_beam(caught.value)) == (
        rf"{tmp_path}/it's [\xe9]\n.txt was listed and is gone now: "
        "leave the corpus in place and run again"
    )


def test_other_errors_are_not_the_users():
    assert from_beam(ValueError("a SkipstreamError: is only mentioned")) is None


def test_a_package_of_the_default_corpus_may_be_missing_or_of_another_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = {"no_such_package": "numpy", "numpy": "no-such-distribution"}
    monkeypatch.setattr(default_corpus, "PACKAGES", packages)
    assert default_corpus.versions() == {"numpy": np.__version__}
