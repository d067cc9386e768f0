"""The stage: what the corpus is."""

import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any

from components.artifacts import Corpus, write_json
from components.contents import Contents
from components.errors import SkipstreamError
from components.example_gen import default_corpus
from components.example_gen.files import File, is_remote, list_files
from components.example_gen.units import Listing, detect, plan
from components.names import shown
from components.settings import ExampleGenSettings

_DOCSTRINGS = "docstrings.txt.gz"


def find(settings: ExampleGenSettings) -> tuple[list[File], Listing]:
    """The files of `settings.input`, and the listing of them; without any, of the default corpus.

    Raises:
        SkipstreamError: A pattern matches no file, or a file cannot be read as it is named.
    """
    files, skipped = list_files(settings.input)
    for file in files:
        detect(file.path, settings.format)
    listing = Listing(
        files=tuple((file.path, file.size) for file in files),
        urls=tuple(filter(is_remote, settings.input)),
        format=settings.format,
        field=settings.field,
        eval_share=settings.eval_share,
        damaged_files=settings.damaged_files,
        max_unreadable=settings.max_unreadable,
        max_invalid_utf8=settings.max_invalid_utf8,
        max_expansion=settings.max_expansion,
        skipped=skipped,
        modified=tuple(file.modified for file in files),
    )
    return files, listing


def describe(files: list[File], listing: Listing, contents: Contents) -> tuple[Any, bool]:
    """What the content of the corpus depends on beside the settings, for a fingerprint.

    That is what is read, unit by unit: bytes, by their digests, and how they are read. Neither the
    names of the files nor their times are a part of it. Names still decide three things that are:
    the order, the format and, of a corpus of several units, which directories begin one.

    Args:
        files: What `find` gives; none: the default corpus.
        listing: The same.
        contents: Remembers the digests.

    Returns:
        JSON-able: a digest of that, or, without `files`, the versions of the packages whose
        docstrings are read. And whether the files are those of last time, in another order.

    Raises:
        SkipstreamError: A file is gone or cannot be read, or all are empty.
    """
    if not files:
        return {"docstrings": default_corpus.versions()}, False
    if not any(file.size for file in files):
        more = f", as all {len(files):,} files are" if len(files) > 1 else ""
        raise SkipstreamError(
            f"example_gen.input must name files that hold text, got {shown(files[0].path)}, "
            f"which is empty{more}: check what wrote them"
        )
    before = contents.remembered
    digests = contents.digests(files, skip_unreadable=listing.damaged_files == "skip")
    digest_of = {file.path: digest for file, digest in zip(files, digests, strict=True)}
    whole = hashlib.blake2b(digest_size=16)
    for unit in plan(listing):
        for piece in unit.pieces:
            how = f"{piece.start} {piece.stop} {piece.format} {piece.compression}"
            whole.update(f"{digest_of[piece.path]} {how}\n".encode())
        whole.update(b"\n")
    reordered = digests != before and Counter(digests) == Counter(before)
    return {"contents": whole.hexdigest()}, reordered


def build(*, settings: ExampleGenSettings, out: Corpus, listing: Listing | None = None) -> Corpus:
    """List the files of `settings.input`; without any, write and list the default corpus.

    Args:
        settings: What to list, and how it is read.
        out: Receives corpus.json, and the default corpus.
        listing: What `find` gives, if that was asked before.

    Raises:
        SkipstreamError: As `find` does.
    """
    if listing is None:
        _, listing = find(settings)
    if not settings.input:
        target = out.path / _DOCSTRINGS
        skipped = default_corpus.write(target)
        listing = replace(
            listing,
            files=((target.name, target.stat().st_size),),
            modified=(None,),
            format="lines",
            skipped=skipped,
        )
    write_json(out.path / Corpus.LISTING, listing.to_json())
    sizes = [size for _, size in listing.files]
    return out.finish(settings, files=len(sizes), bytes=sum(sizes), skipped=listing.skipped)
