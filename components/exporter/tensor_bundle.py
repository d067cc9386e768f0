"""Reads the variables of a SavedModel without TensorFlow, whose import takes seconds.

`variables.index` is a table as LevelDB writes it: sorted keys in blocks, and an index block that
says where the blocks are (LevelDB's doc/table_format.md; TensorFlow's copy of the code is
tensorflow/core/lib/io/format.cc). Its values are protocol buffers: the first, of the empty key, is
a BundleHeaderProto, the others are BundleEntryProtos with the dtype, shape and place of a tensor
(tensorflow/core/protobuf/tensor_bundle.proto). The bytes of the tensors follow each other in
`variables.data-*` (tensorflow/core/util/tensor_bundle/tensor_bundle.cc). All of it has masked
CRC-32C checksums, which are checked here as TensorFlow checks them.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # Of a block: how it is compressed, and its checksum.
_DTYPES = {1: np.float32, 3: np.int32, 6: np.int8, 9: np.int64, 19: np.float16}  # types.proto
# Ours have about ten tensors. Keys share their beginnings, so that few bytes of an index can stand
# for any number of long ones.
_MOST_TENSORS, _LONGEST_KEY, _LARGEST_INDEX = 10_000, 1_000, 1 << 26
_CHECKED_BYTES = 1 << 24  # at a time


def read(prefix: Path) -> dict[str, Array]:
    """The numeric tensors of a checkpoint by their keys, mapped into memory, read-only.

    Args:
        prefix: Of the files' names: `<prefix>.index`, `<prefix>.data-00000-of-00001`.

    Raises:
        ValueError: The files are damaged, or no such checkpoint.
        OSError: They cannot be read.
    """
    entries = dict(_entries(_content(prefix.with_name(f"{prefix.name}.index"))))
    header = _numbers(entries.pop(b"", b""))
    shards = header.get(1, 0)
    if not 0 < shards < 100_000 or header.get(2, 0) != 0:
        raise ValueError("the index names no shards, or is big-endian")
    tensors = {}
    for key, value in entries.items():
        entry = _numbers(value)
        if (dtype := _DTYPES.get(entry.get(1, 0))) is None:
            continue  # The graph of objects, a string.
        path = prefix.with_name(f"{prefix.name}.data-{entry.get(3, 0):05}-of-{shards:05}")
        shape = [_numbers(size).get(1, 0) for whole in _parts(value) for size in _parts(whole)]
        tensor = _tensor(path, entry.get(4, 0), np.dtype(dtype).newbyteorder("<"), shape)
        if tensor.nbytes != entry.get(5, 0):
            raise ValueError(f"{key.decode()} has {entry.get(5, 0)} bytes, not {tensor.nbytes}")
        if _checksum(tensor) != entry.get(6, 0):
            raise ValueError(f"the checksum of {key.decode()} does not match")
        tensors[key.decode()] = tensor
    return tensors


def _content(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > _LARGEST_INDEX:  # A link may lead to a device.
        raise ValueError(f"{path.name} is not there, no file, or too large")
    return path.read_bytes()


def _numbers(message: bytes) -> dict[int, int]:
    """The fields of a protocol buffer that are numbers."""
    return {number: value for number, value in fields(message) if isinstance(value, int)}


def _parts(message: bytes) -> list[bytes]:
    """Fields 2, if they are messages: the shape of a tensor, the sizes of a shape."""
    return [part for number, part in fields(message) if number == 2 and isinstance(part, bytes)]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    r"""The fields of a protocol buffer: numbers, and integers or the bytes of the rest.

    Raises:
        ValueError: It is cut, or none.

    >>> list(fields(b"\x08\x96\x01\x12\x02hi"))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, at = _varint(message, at)
        if length is None or at + length > len(message):
            raise ValueError("a protocol buffer is cut off")
        content = message[at : at + length]
        yield tag >> 3, int.from_bytes(content, "little") if kind == 5 else content
        at += length


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("the index is cut off")
    _, at = _handle(footer, 0)  # Of a block about the blocks, which is empty.
    index, _ = _handle(footer, at)
    last, count = None, 0
    for _, value in _block(table, index):
        for key, entry in _block(table, _handle(value, 0)[0]):
            # Each key once, so no block is read twice.
            if last is not None and key <= last:
                raise ValueError("the keys of the index are not in order")
            last, count = key, count + 1
            if count > _MOST_TENSORS:
                raise ValueError(f"the index names more than {_MOST_TENSORS:,} tensors")
            yield key, entry


def _block(table: bytes, place: slice) -> Iterator[tuple[bytes, bytes]]:
    content = table[place]
    trailer = table[place.stop : place.stop + _TRAILER_BYTES]
    if len(trailer) < _TRAILER_BYTES or len(content) < 4:
        raise ValueError("the index is cut off")
    kind, checksum = struct.unpack("<BI", trailer)
    if _masked(google_crc32c.value(content + trailer[:1])) != checksum:
        raise ValueError("a checksum of the index does not match")
    if kind != 0:
        raise ValueError("the index is compressed")
    (restarts,) = struct.unpack("<I", content[-4:])
    key, at = b"", 0
    while at < len(content) - 4 * (restarts + 1):
        shared, at = _varint(content, at)
        own, at = _varint(content, at)
        size, at = _varint(content, at)
        key = key[:shared] + content[at : at + own]
        if len(key) > _LONGEST_KEY:
            raise ValueError(f"a key of the index is longer than {_LONGEST_KEY:,} bytes")
        yield key, content[at + own : at + own + size]
        at += own + size


def _handle(content: bytes, at: int) -> tuple[slice, int]:
    """Where a block lies, and where what follows begins."""
    start, at = _varint(content, at)
    size, at = _varint(content, at)
    return slice(start, start + size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in content[at : at + 10]:  # Of 64 bits.
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number is cut off")


def _tensor(path: Path, offset: int, dtype: "np.dtype[Any]", shape: list[int]) -> Array:
    if path.stat().st_size < offset + dtype.itemsize * math.prod(shape):
        raise ValueError(f"{path.name} is cut off")
    return np.memmap(path, dtype, "r", offset, tuple(shape)).view(np.ndarray)


def _checksum(tensor: Array) -> int:
    content, value = tensor.reshape(-1).view(np.uint8), 0
    for start in range(0, len(content), _CHECKED_BYTES):
        value = google_crc32c.extend(value, content[start : start + _CHECKED_BYTES].tobytes())
    return _masked(value)


def _masked(checksum: int) -> int:
    """As LevelDB stores it, since the checksum of what holds checksums is no good one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
