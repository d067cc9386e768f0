"""Tokenised units on disk, named by their content, so that the next run finds them again."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from components.example_gen import reader
from components.example_gen.units import Unit
from components.settings import TransformSettings
from components.transform import segments

_SUFFIX = ".arrow"


@dataclass(frozen=True)
class Tokens:
    """Where they lie.

    Attributes:
        directory: Anywhere that Beam can read and write.
        identity: What they depend on beside settings and text: code, library versions.
    """

    directory: str
    identity: str

    def path(self, unit: Unit, settings: TransformSettings, eval_share: float) -> str:
        """The file of `unit`, whose text is read for it."""
        digest = hashlib.blake2b(digest_size=16)
        key = [self.identity, settings.tokenizer, settings.lowercase, eval_share, unit.field]
        digest.update(json.dumps(key).encode())
        for piece in unit.pieces:
            digest.update(f"{piece.format} {piece.compression} {piece.start > 0}".encode())
            digest.update(reader.fingerprint(piece))
        return f"{self.directory}/{digest.hexdigest()}{_SUFFIX}"


class TokeniseUnit(beam.DoFn):
    """Unit -> its index, the file of its segments, and whether that was there already."""

    def __init__(self, tokens: Tokens, settings: TransformSettings, eval_share: float) -> None:
        """Nothing is read yet."""
        self._tokens = tokens
        self._settings = settings
        self._eval_share = eval_share

    def process(self, unit: Unit) -> Iterator[tuple[int, str, bool]]:
        """Tokenise one unit, if need be; a SkipstreamError ends the job."""
        path = self._tokens.path(unit, self._settings, self._eval_share)
        found = FileSystems.exists(path)
        if not found:
            blocks = reader.read(unit)
            made = segments.tokenise(blocks, settings=self._settings, eval_share=self._eval_share)
            # Whole or not at all, and by a retry or another worker just the same.
            temporary = f"{path}.{np.random.default_rng().integers(2**62):x}"
            segments.save(made, temporary)
            if not FileSystems.exists(path):
                FileSystems.rename([temporary], [path])
            else:
                FileSystems.delete([temporary])
        yield unit.index, path, found


def remove_others(directory: str, keep: Collection[str]) -> None:
    """Remove all tokenised units that are not in `keep`, and what dead workers left."""
    (result,) = FileSystems.match([f"{directory}/*"])
    kept = set(keep)
    others = [found.path for found in result.metadata_list if found.path not in kept]
    if others:
        FileSystems.delete(others)
