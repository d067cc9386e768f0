"""Compressed files -> the bytes that they hold, and what is wrong where they hold none."""

import bz2
import re
import zlib
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from components.errors import SkipstreamError
from components.example_gen import content, remedies
from components.names import quoted, shown

FREE = 64 * 2**20  # Bytes that any file may unpack to: monotonous samples are small.
_READ = 2**18  # Bytes; gzip's make about a CHUNK of text.
_MAGIC = {
    "gzip": rb"\x1f\x8b",
    "bz2": rb"BZh[1-9]",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}


class Limit:
    """How much a file may unpack to: a small one can be made to fill any memory or disk."""

    def __init__(self, path: str, stored: int, most: float) -> None:
        """Nothing is unpacked yet.

        Args:
            path: The file.
            stored: Its bytes.
            most: That each of them may unpack to; FREE are allowed in any case.
        """
        self._path, self._stored, self._most = path, max(1, stored), most
        self._unpacked = 0

    def count(self, size: int) -> None:
        """Count bytes that were unpacked.

        Raises:
            SkipstreamError: They are too many.
        """
        self._unpacked += size
        if self._unpacked > max(FREE, self._most * self._stored):
            raise SkipstreamError(
                f"{shown(self._path)} must unpack to at most {self._most:g} times its bytes "
                f"(example_gen.max_expansion), and its {self._stored:,} bytes make more than "
                f"{self._unpacked:,}: a file may be made to fill memory or disk; if it is text, "
                "raise that setting"
            )


def unpacked(
    file: IO[bytes], path: str, compression: str, size: int, limit: Limit
) -> Iterator[bytes]:
    """What a compressed file holds, all its members, in chunks of at most `size` bytes.

    Raises:
        SkipstreamError: It is not compressed, otherwise than its name says, or so that more memory
            is needed than workers have, or it unpacks to more than the limit.
        OSError: It is truncated or damaged; also zlib.error.
    """
    sample = file.read(content.SAMPLE)
    if sample and not re.match(_MAGIC[compression], sample):
        raise SkipstreamError(_otherwise(sample, path, compression))
    file.seek(0)
    if compression == "gzip":
        texts = _gunzip(file, size)
    elif compression == "bz2":
        texts = _bunzip(file, size)
    else:
        texts = _by_arrow(file, path, compression, size)
    for text in texts:
        limit.count(len(text))
        yield text


def _by_arrow(file: IO[bytes], path: str, compression: str, size: int) -> Iterator[bytes]:
    # Beam's own decompression takes a truncated file for a whole one; Arrow's does not, and reads
    # concatenated members, too.
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) as stream:
            while text := filled(stream, size):
                yield text
    except (OSError, pa.ArrowInvalid) as error:
        if "too much memory" not in str(error):
            raise
        out = remedies.unpacked_name(path)
        how = f"zstd -d --long=31 {quoted(path)} -o {quoted(out)}"
        raise SkipstreamError(
            f"{path} must need at most 128 MB of memory to be unpacked (zstd's default), and needs "
            f"more: unpack it with `{how}` and give that in its place"
        ) from error


def _otherwise(sample: bytes, path: str, compression: str) -> str:
    suffix = remedies.suffix_of(path)
    kind = content.kind_of(sample)
    if kind:
        what, remedy = kind
    elif content.is_binary(sample):
        what, remedy = "binary data", "replace the file"
    else:
        what, remedy = "what looks like text", f"take {suffix} off its name"
    return f"{path} must hold {compression} data, as its name says, got {what}: {remedy}"


def _gunzip(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Of zlib itself: Arrow's stream takes zeros behind the end, as tapes leave them, for damage.

    gzip(1) ignores those, too. It warns of anything else there, which we refuse: it may be text.
    """
    decoder = None
    data = file.read(_READ)
    while data:
        decoder = decoder or zlib.decompressobj(wbits=31)
        yield decoder.decompress(data, size)
        data = decoder.unconsumed_tail
        if decoder.eof:
            data, decoder = decoder.unused_data, None
        if decoder is None:
            while not (data := data.lstrip(b"\0")) and (more := file.read(_READ)):
                data = more
            if data and data[:1] != b"\x1f":
                raise zlib.error("what follows its end is no gzip data")
        data = data or file.read(_READ)
    if decoder is not None:
        raise zlib.error("its end is missing")


def _bunzip(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Of Python's bz2: Arrow's stream fails at a member that holds nothing, if another follows."""
    return _even(_bz2_texts(file, size), size)


def _bz2_texts(file: IO[bytes], size: int) -> Iterator[bytes]:
    decoder = None
    data = file.read(_READ)
    while data or decoder is not None:
        decoder = decoder or bz2.BZ2Decompressor()
        if decoder.needs_input and not data:
            raise OSError("its end is missing")
        yield decoder.decompress(data, size)
        data = b""
        if decoder.eof:
            data, decoder = decoder.unused_data, None
        if not data and (decoder is None or decoder.needs_input):
            data = file.read(_READ)


def _even(texts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same stream in chunks of `size` bytes; the last one may have less."""
    pending = b""
    for text in texts:
        pending += text
        while len(pending) >= size:
            yield pending[:size]
            pending = pending[size:]
    if pending:
        yield pending


def filled(file: IO[bytes], size: int) -> bytes:
    """`size` bytes, less only at the end: some files give what they happen to have."""
    data = file.read(size)
    if not data or len(data) == size:
        return data
    read = [data]
    missing = size - len(data)
    while missing and (data := file.read(missing)):
        read.append(data)
        missing -= len(data)
    return b"".join(read)
