"""Tokenised text on its way from the first pass over the corpus to the second.

A segment holds documents as numbers of its own types, so that whatever comes later (counting,
looking up ids) costs per type, not per token: English has 30 tokens a type in 16 MB of text. It is
one row of an Arrow file, and reading a column leaves the others on the disk.
"""

import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components import text
from components.errors import SkipstreamError
from components.example_gen.formats import Block
from components.example_gen.reader import BLOCK_BYTES
from components.example_gen.split import held_out
from components.example_gen.units import UNIT_BYTES
from components.sealed import seal, unseal
from components.settings import TransformSettings
from components.transform import storage

# Of text; some 150 MB of memory while it is made. Any unit of plain text is one segment.
SEGMENT_BYTES = UNIT_BYTES * 3 // 2 + BLOCK_BYTES
_BOUNDARY = b" q7zx0k3vw9jh "

_Graph = Callable[[tf.Tensor], tf.Tensor]
# Words, lengths of documents, which of those are held out, their hashes.
_SplitBlock = tuple[pa.DictionaryArray, npt.NDArray[np.int64], npt.NDArray[np.bool_], list[bytes]]
_SCHEMA = pa.schema(
    [
        ("types", pa.list_(pa.binary())),
        ("counts", pa.list_(pa.int64())),
        ("tokens", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int32())),
        ("held_out", pa.list_(pa.bool_())),
        ("too_long", pa.list_(pa.int32())),
        ("hashes", pa.list_(pa.binary(16))),
        ("read", pa.string()),
    ]
)


@dataclass(frozen=True)
class Segment:
    """Documents that follow each other in the corpus.

    Attributes:
        types: binary [types], distinct tokens, in the order of their first occurrence; of a
            segment that lost some since, perhaps more than occur, and joined ones last.
        tokens: int32 [tokens], of all documents, as indices of `types`.
        lengths: int32 [documents], tokens of each.
        held_out: bool [documents], whether it belongs to the eval split.
        too_long: int32 [documents], tokens of each that were left out for their length.
        hashes: fixed-size binary [documents], 16 bytes of its text; [0] if nobody asked for them.
        read: What was counted on the way: documents, bytes, and drops and repairs by reason.
    """

    types: pa.Array
    tokens: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    held_out: npt.NDArray[np.bool_]
    too_long: npt.NDArray[np.int32]
    hashes: pa.Array
    read: dict[str, int]

    def without(self, dropped: npt.NDArray[np.bool_], reason: str) -> "Segment":
        """Less documents, which `read` counts under `reason`, and with as many types.

        Args:
            dropped: bool [documents].
            reason: Why.
        """
        if not dropped.any():
            return self
        kept = ~dropped
        return Segment(
            self.types,
            self.tokens[np.repeat(kept, self.lengths)],
            self.lengths[kept],
            self.held_out[kept],
            self.too_long[kept],
            self.hashes.filter(pa.array(kept)) if len(self.hashes) else self.hashes,
            self.read | {reason: int(np.count_nonzero(dropped))},
        )

    @property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Where each document begins and ends in `tokens`: int64 [documents + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def counts(self) -> npt.NDArray[np.int64]:
        """Occurrences of each type: int64 [types]."""
        return np.bincount(self.tokens, minlength=len(self.types))


def tokenise(
    blocks: Iterable[Block], *, settings: TransformSettings, eval_share: float
) -> Iterator[Segment]:
    """The segments of a unit's blocks.

    Args:
        blocks: Of one unit, in order.
        settings: The tokeniser.
        eval_share: Share of the documents that is held out.

    Yields:
        Segments of about SEGMENT_BYTES of text, whose bounds depend on the blocks alone.
    """
    separate, finish = _graphs(settings.tokenizer, settings.lowered)

    def joined() -> Segment:
        return _cleaned(_joined(pending, read, finish), settings)

    pending: list[_SplitBlock] = []
    read: Counter[str] = Counter()
    for block in blocks:
        documents = block.documents.to_pylist()
        tokens, lengths = _split(separate, documents)
        hashes = [_hash(document) for document in documents] if settings.deduplicate else []
        pending.append((tokens, lengths, held_out(block.documents, eval_share), hashes))
        read.update(block.counts)
        if read["bytes"] >= SEGMENT_BYTES:
            yield joined()
            pending, read = [], Counter()
    if pending:
        yield joined()


def _hash(document: bytes) -> bytes:
    return hashlib.blake2b(document, digest_size=16).digest()


@functools.cache
def _graphs(tokenizer: text.Tokenizer, lowercase: bool) -> tuple[_Graph, _Graph]:
    """`text.separate` and `text.finish` as graphs, traced once in a process."""

    def graph(function: Callable[..., tf.Tensor]) -> _Graph:
        traced: _Graph = tf.function(
            functools.partial(function, tokenizer=tokenizer, lowercase=lowercase),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        return traced

    return graph(text.separate), graph(text.finish)


def _split(
    separate: _Graph, documents: Sequence[bytes]
) -> tuple[pa.DictionaryArray, npt.NDArray[np.int64]]:
    """Words, dictionary-encoded, and how many each document has.

    All documents go through the tokeniser as one text, in a third of the time, with a word between
    them that hardly any text has. Where one does, they go one by one.
    """
    joined = pa.array(separate(tf.constant([_BOUNDARY.join(documents)])).numpy(), pa.binary())
    stripped = pc.ascii_trim_whitespace(joined.view(pa.string()))
    # Arrow splits at the same six characters as tf.strings.split. Splitting nothing gives one empty
    # token; splitting null gives none.
    stripped = pc.if_else(pc.equal(stripped, ""), None, stripped)
    tokens = pc.ascii_split_whitespace(stripped).flatten().view(pa.binary()).dictionary_encode()
    if len(documents) <= 1:
        return tokens, np.full(len(documents), len(tokens))
    number = pc.index(tokens.dictionary, _BOUNDARY.strip()).as_py()
    is_token = tokens.indices.to_numpy() != number
    boundaries = np.flatnonzero(~is_token)
    if len(boundaries) != len(documents) - 1:
        each = [_split(separate, [document]) for document in documents]
        whole = pa.chunked_array([tokens for tokens, _ in each]).unify_dictionaries()
        return whole.combine_chunks(), np.concatenate([lengths for _, lengths in each])
    lengths = np.diff(boundaries, prepend=-1, append=len(tokens)) - 1
    return tokens.filter(pa.array(is_token)), lengths


def _joined(blocks: list[_SplitBlock], read: Counter[str], finish: _Graph) -> Segment:
    words, lengths, eval_, hashes = zip(*blocks, strict=True)
    unified = pa.chunked_array(words).unify_dictionaries().chunks
    numbers = np.concatenate([words.indices.to_numpy() for words in unified])
    used = np.bincount(numbers, minlength=len(unified[0].dictionary)) > 0  # not so the boundary
    # Two words may be one token.
    tokens = _finished(unified[0].dictionary.filter(pa.array(used)), finish).dictionary_encode()
    token_of = np.zeros(len(used), np.int32)
    token_of[used] = tokens.indices.to_numpy()
    return Segment(
        types=tokens.dictionary,
        tokens=token_of[numbers],
        lengths=np.concatenate(lengths).astype(np.int32),
        held_out=np.concatenate(eval_),
        too_long=np.zeros(sum(map(len, lengths)), np.int32),
        hashes=pa.array(itertools.chain(*hashes), pa.binary(16)),
        read=dict(read),
    )


def _finished(words: pa.Array, finish: _Graph) -> pa.Array:
    """Words as tokens. Arrow finds those that stay as they are: nine in ten, in English."""
    plain = pc.and_not(pc.string_is_ascii(words.view(pa.string())), pc.match_substring(words, "'"))
    others = pc.invert(plain)
    finished = finish(tf.constant(words.filter(others).to_pylist(), tf.string))
    return pc.replace_with_mask(words, others, pa.array(finished.numpy(), pa.binary()))


def _cleaned(segment: Segment, settings: TransformSettings) -> Segment:
    """Without the tokens and documents that settings leave out; `read` counts them."""
    if settings.max_token_length is not None:
        characters = pc.utf8_length(segment.types.view(pa.string())).to_numpy()
        is_long = (characters > settings.max_token_length)[segment.tokens]
        long_before = np.concatenate([[0], np.cumsum(is_long)])
        too_long = np.diff(long_before[segment.bounds]).astype(np.int32)
        segment = replace(
            segment,
            tokens=segment.tokens[~is_long],
            lengths=segment.lengths - too_long,
            too_long=too_long,
        )
    if settings.min_tokens > 1:
        # Those without any token are dropped under a reason of their own.
        too_short = (segment.lengths > 0) & (segment.lengths < settings.min_tokens)
        segment = segment.without(too_short, "too_short")
    return segment


def save(segments: Iterable[Segment], path: str) -> None:
    """Write the file of a unit, anywhere Beam can. Its end says that it is whole.

    Raises:
        SkipstreamError: The bucket cannot be written.
    """
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        storage.naming(path),
        storage.create(path) as file,
        pa.ipc.new_file(pa.PythonFile(file, mode="w"), _SCHEMA, options=options) as writer,
    ):
        for segment in segments:
            row = [
                _row(segment.types),
                _row(pa.array(segment.counts())),
                _row(pa.array(segment.tokens)),
                _row(pa.array(segment.lengths)),
                _row(pa.array(segment.held_out)),
                _row(pa.array(segment.too_long)),
                _row(segment.hashes),
            ]
            checks = dict(zip(_SCHEMA.names, map(_check, row), strict=False))  # But for `read`.
            row.append(pa.array([json.dumps(seal({"read": segment.read, "checks": checks}))]))
            writer.write_batch(pa.RecordBatch.from_arrays(row, schema=_SCHEMA))


def count(path: str, named: str | None = None) -> int:
    """How many segments a unit's file holds.

    Args:
        path: The file.
        named: What a message calls it, if it is a copy; none: `path`.

    Raises:
        SkipstreamError: It is damaged or gone, or the bucket cannot be read.
    """
    with _opened(path, named=named) as reader:
        number: int = reader.num_record_batches
    return number


def load(path: str, number: int) -> Segment:
    """A segment of a unit's file."""
    columns = ["types", "tokens", "lengths", "held_out", "too_long", "hashes"]
    (types, tokens, lengths, eval_, too_long, hashes), read = _read(path, number, columns)
    return Segment(
        types.values,
        tokens.values.to_numpy(),
        lengths.values.to_numpy(),
        eval_.values.to_numpy(zero_copy_only=False),
        too_long.values.to_numpy(),
        hashes.values,
        read,
    )


def load_counts(path: str, number: int) -> tuple[pa.Array, pa.Array]:
    """Types (binary) and counts (int64) of a segment, without its tokens."""
    (types, counts), _ = _read(path, number, ["types", "counts"])
    return types.values, counts.values


def load_hashes(path: str, number: int) -> pa.Array:
    """The hashes of a segment's documents, and nothing else."""
    (hashes,), _ = _read(path, number, ["hashes"])
    return hashes.values


def _check(column: pa.Array) -> int:
    """CRC-32C of a column of one row, which Arrow would not miss a byte of."""
    batch = pa.RecordBatch.from_arrays([column], ["column"])
    return int(google_crc32c.value(batch.serialize().to_pybytes()))


def _row(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _read(path: str, number: int, columns: list[str]) -> tuple[list[pa.Scalar], dict[str, int]]:
    """Columns of a row, compared with their checks, and what was read for it."""
    with _opened(path, [*columns, "read"]) as reader:
        row = reader.get_batch(number)
        row.validate(full=True)  # What is damaged may point outside its memory.
        about = unseal(json.loads(row.column("read")[0].as_py()))
        for column in columns:
            same_type = row.schema.field(column) == _SCHEMA.field(column)
            if not same_type or _check(row.column(column)) != about["checks"][column]:
                raise ValueError(f"its {column} are not what was written")
        return [row.column(column)[0] for column in columns], about["read"]


@contextmanager
def _opened(
    path: str, columns: Iterable[str] = (), named: str | None = None
) -> Iterator[pa.ipc.RecordBatchFileReader]:
    fields = [_SCHEMA.get_field_index(column) for column in columns]
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    with storage.naming(path):
        try:
            with (
                storage.open_(path) as file,
                pa.ipc.open_file(pa.PythonFile(file, mode="r"), options=options) as reader,
            ):
                yield reader
        except (OSError, pa.ArrowException, ValueError, TypeError, LookupError) as error:
            reason = " ".join(str(error).split())
            raise SkipstreamError(
                f"{named or path} is damaged or gone ({reason}): delete it and run again"
            ) from error
