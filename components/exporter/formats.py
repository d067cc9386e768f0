"""Exported models in the formats of gensim, word2vec.c, fastText, the Projector and numpy.

Every file is written beside its destination and renamed into place when it is whole. Needs
neither gensim nor fastText nor TensorBoard.
"""

import bz2
import gzip
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import SettingsError, SkipstreamError
from components.exporter import fasttext_model
from components.names import quoted
from components.subwords import Buckets

_PACKED = (".gz", ".bz2")  # What gensim, too, unpacks by the name.
_OTHER_PACKED = (".zst", ".xz", ".zip", ".lz4", ".7z", ".tar", ".tgz")

_Vectors = npt.NDArray[np.float32]
_Counts = npt.NDArray[np.int64]
_BLOCK_BYTES = 1 << 24  # of vectors, turned into text at a time
_PADDED_WORDS_BYTES = 1 << 32


class Source(Protocol):
    """What can be written: `components.exporter.embeddings.Embeddings`."""

    @property
    def words(self) -> list[str]:
        """The vocabulary, in the order of the ids."""

    @property
    def vectors(self) -> _Vectors:
        """float32 [types, dimensions], by id."""

    @property
    def counts(self) -> _Counts | None:
        """int64 [types], occurrences in the corpus by id; None if they are not known."""

    def buckets(self) -> Buckets | None:
        """The vectors of n-grams; None if it has none."""


class _Table(NamedTuple):
    """What is written: tokens, vectors and counts by id, and for fastText the n-grams."""

    tokens: Sequence[str]
    vectors: _Vectors
    counts: _Counts | None
    buckets: Buckets | None


def check(format: str, output: Path) -> None:
    """Whether `write` could begin; needs no model.

    Raises:
        SkipstreamError: The format is unknown, or `output` promises another one, or has no place.
    """
    if format not in _WRITERS:
        raise SettingsError(f"format must be one of {', '.join(_WRITERS)}, got {format}")
    packs = _PACKED if format.startswith("word2vec") else ()
    if (suffix := output.suffix.lower()) in {*_PACKED, *_OTHER_PACKED} - {*packs}:
        other = f" ({' and '.join(packs)} work)" if packs else ""
        raise SettingsError(
            f"{format} is not packed as {suffix}{other}, got {output}: "
            f"--output {quoted(str(output.with_suffix('')))}"
        )
    parent = output.absolute().parent
    if not parent.exists():
        raise SkipstreamError(
            f"output must be writable, got {output} in a directory that does not exist: "
            f"mkdir -p {quoted(str(parent))}"
        )
    if output.is_dir() and format != "projector":
        raise SkipstreamError(
            f"output must be writable as a file, got the directory {output}: "
            f"--output {quoted(str(output / 'vectors'))}"
        )


def write(embeddings: Source, *, format: str, output: Path) -> list[Path]:
    """Write all words and vectors, in the order of the ids (most frequent word first).

    Args:
        embeddings: The model.
        format: word2vec-text, word2vec-binary, fasttext, keyedvectors, projector or npz.
        output: The file to write, packed if a word2vec format's name ends in .gz or .bz2; for
            projector, the directory; for keyedvectors, the file that `KeyedVectors.load` takes,
            whose vectors lie beside it as `<output>.vectors.npy`.

    Returns:
        The files written.

    Raises:
        SkipstreamError: As `check`, or `output` cannot be written.
    """
    check(format, output)
    output = output.absolute()
    try:
        with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            written = Path(scratch) / output.name
            table = _Table(
                embeddings.words,
                embeddings.vectors,
                embeddings.counts,
                embeddings.buckets(),
            )
            _WRITERS[format](written, table)
            if written.is_dir():
                output.mkdir(exist_ok=True)
                return [_move(file, output / file.name) for file in sorted(written.iterdir())]
            # gensim's small file names the large one, so it comes last.
            files = sorted(Path(scratch).iterdir(), key=lambda file: file.name, reverse=True)
            return sorted(_move(file, output.parent / file.name) for file in files)
    except OSError as error:
        raise SkipstreamError(
            f"output must be writable, got {output} ({error.strerror or error}): "
            "choose another or make room"
        ) from error


def _move(source: Path, destination: Path) -> Path:
    source.chmod(0o644)
    return source.replace(destination)


@contextmanager
def _packed(path: Path) -> Iterator[BufferedIOBase]:
    """The file, packed as its name says; the same content is the same bytes, whenever written."""
    with path.open("wb") as file:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed
        elif path.suffix.lower() == ".bz2":
            with bz2.BZ2File(file, "wb") as packed:
                yield packed
        else:
            yield file


def _word2vec_text(path: Path, table: _Table) -> None:
    tokens, vectors, *_ = table
    with _packed(path) as file:
        file.write(b"%d %d\n" % vectors.shape)
        step = _rows_per_block(vectors)
        for start in range(0, len(vectors), step):
            rows = _decimals(vectors[start : start + step], " ")
            words = pa.array(tokens[start : start + step], pa.string())
            file.write(_lines(pc.binary_join_element_wise(words, rows, " ")))


def _word2vec_binary(path: Path, table: _Table) -> None:
    rows = table.vectors.astype("<f4", copy=False)
    with _packed(path) as file:
        file.write(b"%d %d\n" % rows.shape)
        file.writelines(
            b"%s %s\n" % (token.encode(), row.tobytes())
            for token, row in zip(table.tokens, rows, strict=True)
        )


def _fasttext(path: Path, table: _Table) -> None:
    with path.open("wb") as file:
        fasttext_model.write(file, *table)


def _keyedvectors(path: Path, table: _Table) -> None:
    """What gensim 4's `KeyedVectors.save` leaves when it stores the vectors apart."""
    tokens, vectors, counts, _ = table
    np.save(path.with_name(f"{path.name}.vectors.npy"), vectors)
    state = {
        "vector_size": vectors.shape[1],
        "index_to_key": list(tokens),
        "key_to_index": {token: id_ for id_, token in enumerate(tokens)},
        "next_index": len(tokens),
        "norms": None,
        "expandos": {} if counts is None else {"count": counts},
        "mapfile_path": None,
        "__numpys": ["vectors"],
        "__scipys": [],
        "__ignoreds": [],
        "__recursive_saveloads": [],
    }
    # `pickle` only names a class that it can import. Protocol 3 has no frames, so that the
    # object's opcodes can be laid around its state: class, (), NEWOBJ, state, BUILD.
    body = pickle.dumps(state, protocol=3).removeprefix(pickle.PROTO + b"\x03")
    with path.open("wb") as file:
        file.write(pickle.PROTO + b"\x03")
        file.write(pickle.GLOBAL + b"gensim.models.keyedvectors\nKeyedVectors\n")
        file.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        file.write(body.removesuffix(pickle.STOP) + pickle.BUILD + pickle.STOP)


def _projector(path: Path, table: _Table) -> None:
    tokens, vectors, *_ = table
    path.mkdir()
    with (path / "vectors.tsv").open("wb") as file:
        step = _rows_per_block(vectors)
        for start in range(0, len(vectors), step):
            file.write(_lines(_decimals(vectors[start : start + step], "\t")))
    # The Projector reads a single column without a header.
    (path / "metadata.tsv").write_bytes(b"".join(token.encode() + b"\n" for token in tokens))
    (path / "projector_config.pbtxt").write_text(
        "embeddings {\n"
        '  tensor_name: "skipstream"\n'
        '  tensor_path: "vectors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n'
        "}\n",
        encoding="utf-8",
    )


def _npz(path: Path, table: _Table) -> None:
    tokens, vectors, counts, _ = table
    longest = max(map(len, tokens), default=0)
    if longest * 4 * len(tokens) > _PADDED_WORDS_BYTES:
        raise SkipstreamError(
            f"npz pads every word to the longest, which must fit 4 GiB, got {len(tokens)} words "
            f"of up to {longest} characters: choose keyedvectors"
        )
    arrays: dict[str, Any] = {"words": np.array(tokens, f"<U{max(longest, 1)}"), "vectors": vectors}
    if counts is not None:
        arrays["counts"] = counts
    with path.open("wb") as file:
        np.savez(file, **arrays)


_WRITERS: dict[str, Callable[[Path, _Table], None]] = {
    "word2vec-text": _word2vec_text,
    "word2vec-binary": _word2vec_binary,
    "fasttext": _fasttext,
    "keyedvectors": _keyedvectors,
    "projector": _projector,
    "npz": _npz,
}


def _rows_per_block(vectors: _Vectors) -> int:
    dimensions: int = vectors.shape[1]
    return max(1, _BLOCK_BYTES // (4 * dimensions))


def _decimals(rows: _Vectors, separator: str) -> pa.Array:
    """Each row as text: the shortest decimals that read back as the same float32.

    Arrow's cast: 6 M numbers a second on one core; `np.savetxt` does 4 M with "%.9g", the
    shortest format of its own that loses nothing.

    >>> _decimals(np.array([[0.1, -2.0], [1e-9, 3.5]], np.float32), " ").to_pylist()
    ['0.1 -2', '1e-9 3.5']
    """
    texts = pc.cast(pa.array(rows.reshape(-1)), pa.string())
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), separator)


def _lines(texts: pa.Array) -> bytes:
    r"""`texts`, each ended by a newline.

    >>> _lines(pa.array(["a", "b"], pa.string()))
    b'a\nb\n'
    """
    return b"".join(text + b"\n" for text in texts.cast(pa.binary()).to_pylist())
