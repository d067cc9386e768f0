"""What the settings name beside the corpus: files, and artifacts of other outputs.

They are looked at before the first stage runs: a mistake in a name should not cost its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import Examples, Model
from components.contents import Contents
from components.evaluator.files import matching, named
from components.evaluator.score_files import read_analogies, read_word_pairs
from components.example_gen.files import File
from pipeline import baseline
from pipeline.config import Settings
from pipeline.store import Store


@dataclass(frozen=True)
class Given:
    """What a run was given.

    Attributes:
        start: The model that `trainer.warm_start` names; None if that is `latest` or nothing.
        start_vectors: Paths of the files of `trainer.start_vectors`.
        start_contents: Ends of their names, which say whether they are packed, and digests.
        score_contents: Digests of the files of word pairs and analogies, by setting and name.
        reference: The examples that `statistics_gen.reference` names, if it does.
    """

    start: Model | None
    start_vectors: tuple[str, ...]
    start_contents: list[list[str]]
    score_contents: dict[str, dict[str, str]]
    reference: Examples | None

    @classmethod
    def read(cls, settings: Settings, store: Store, *, scores: bool) -> "Given":
        """Look at all of it, but at files of scores only if that is asked for.

        Raises:
            SkipstreamError: Something is missing or damaged.
        """
        trainer, reference = settings.trainer, settings.statistics_gen.reference
        vectors = matching(trainer.start_vectors, "trainer.start_vectors")
        if vectors:
            from components import fasttext_files, word2vec_files
            from components.subwords import Subwords

            for path in vectors:
                if fasttext_files.is_one(path):
                    fasttext_files.check(path, trainer.dimensions, Subwords.of(trainer))
                else:
                    word2vec_files.check(path, trainer.dimensions)
        contents = _digests(store, "trainer.start_vectors", vectors)
        return cls(
            start=baseline.given_start(trainer.warm_start, store),
            start_vectors=tuple(str(path.absolute()) for path in vectors),
            start_contents=[[path.suffix, contents[path]] for path in vectors],
            score_contents=_score_contents(settings, store) if scores else {},
            reference=baseline.examples(reference) if reference else None,
        )


def contents_of(store: Store, setting: str) -> Contents:
    """What remembers the digests of the files that a setting names."""
    return Contents(store.place, f"digests/{setting}.json")


def _score_contents(settings: Settings, store: Store) -> dict[str, dict[str, str]]:
    evaluator = settings.evaluator
    found = {}
    for name, patterns, read in (
        ("word_pairs", evaluator.word_pairs, read_word_pairs),
        ("analogies", evaluator.analogies, read_analogies),
    ):
        setting = f"evaluator.{name}"
        paths = matching(patterns, setting)
        for path in paths:
            read(path)
        contents = _digests(store, setting, paths)
        # The report has the names.
        found[name] = {label: contents[path] for label, path in named(paths).items()}
    return found


def _digests(store: Store, setting: str, paths: Sequence[Path]) -> dict[Path, Any]:
    """A digest of each file, by its path."""
    if not paths:
        return {}
    files = [File.of(str(path.absolute()), path.stat()) for path in paths]
    return dict(zip(paths, contents_of(store, setting).digests(files), strict=True))
