"""The stage: what the corpus is."""

from typing import Any

from components.artifacts import Corpus, write_json
from components.example_gen import default_corpus
from components.example_gen.files import is_remote, list_files
from components.example_gen.units import detect
from components.settings import ExampleGenSettings


def describe(settings: ExampleGenSettings) -> dict[str, Any]:
    """What the content of the corpus depends on beside the settings, for a fingerprint.

    Returns:
        JSON-able: every file with its size and time of change; or, without `input`, the versions
        of the packages whose docstrings are read.

    Raises:
        SkipstreamError: A pattern matches no file, or a file cannot be read.
    """
    if not settings.input:
        return {"docstrings": default_corpus.versions()}
    files, _ = list_files(settings.input)
    return {
        "files": [
            {"path": file.path, "size": file.size, "modified": file.modified} for file in files
        ]
    }


def build(*, settings: ExampleGenSettings, out: Corpus) -> Corpus:
    """List the files of `settings.input`; without any, write and list the default corpus.

    Raises:
        SkipstreamError: A pattern matches no file, or a file cannot be read as it is named.
    """
    format, field = settings.format, settings.field
    if settings.input:
        files, skipped = list_files(settings.input)
        for file in files:
            detect(file.path, format)
        sizes = {file.path: file.size for file in files}
    else:
        format = "lines"
        target = out.path / "docstrings.txt.gz"
        skipped = default_corpus.write(target)
        sizes = {target.name: target.stat().st_size}
    write_json(
        out.path / Corpus.LISTING,
        {
            "files": [{"path": path, "size": size} for path, size in sizes.items()],
            "urls": list(filter(is_remote, settings.input)),
            "format": format,
            "field": field,
            "eval_share": settings.eval_share,
            "damaged_files": settings.damaged_files,
            "skipped": skipped,
            "max_unreadable": settings.max_unreadable,
            "max_invalid_utf8": settings.max_invalid_utf8,
        },
    )
    return out.finish(files=len(sizes), bytes=sum(sizes.values()), skipped=skipped)
