"""What the page is made of: the artifacts of the last run, and what the store's ledger adds."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from components.artifacts import (
    VOCABULARY,
    Artifact,
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    Model,
    PushedModel,
    Statistics,
)
from components.errors import SkipstreamError
from components.settings import ExporterSettings
from components.vocabulary import Vocabulary
from pipeline.report.words import ASKED, Rows
from pipeline.store import KINDS, Store, Use

A = TypeVar("A", bound=Artifact)

# Inputs that are of another run.
_FROM_BEFORE = ("start", "reference")
_LIBRARIES = ("numpy", "scikit-learn", "jinja2")


@dataclass(frozen=True)
class Stage:
    """What the last run has of one stage.

    Attributes:
        name: Of the stage.
        use: What the ledger says of it.
        artifact: What it made; None: it failed or has not finished.
        manifest: The artifact's; empty without one.
    """

    name: str
    use: Use
    artifact: Artifact | None
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Words:
    """The most frequent words, at most ASKED, and what is served of them.

    Attributes:
        tokens: Most frequent first.
        counts: How often the corpus holds each.
        vectors: float32 [words, dimensions], finite.
    """

    tokens: tuple[str, ...]
    counts: list[int]
    vectors: Rows


class Facts:
    """The last run of a store.

    Attributes:
        address: Of the output.
        stages: Those that the run came to, in their order. What a later stage has of an earlier
            run, which read other artifacts, is left out.
    """

    def __init__(self, store: Store) -> None:
        """Read the manifests.

        Raises:
            SkipstreamError: No run has finished example_gen there, or the store cannot be read.
        """
        self.address = store.address
        self._store = store
        self.stages: dict[str, Stage] = {}
        for kind in KINDS:
            if use := store.ledger.uses.get(kind.STAGE):
                self._add(kind, use)
        if Corpus.STAGE not in self.stages or not self.stages[Corpus.STAGE].artifact:
            raise SkipstreamError(
                f"{store.address} must be an output whose last run finished example_gen: "
                "run 'skipstream run' with that --output first"
            )

    def _add(self, kind: type[Artifact], use: Use) -> None:
        artifact = self._store.find(kind, use.fingerprint)
        manifest = artifact.manifest if artifact else {}
        inputs = manifest.get("made_of", {}).get("inputs", {})
        for name, source in inputs.items():
            made = self.stages.get(source["stage"])
            found = made.artifact if made else None
            if name not in _FROM_BEFORE and (
                not found or found.fingerprint != source["fingerprint"]
            ):
                return
        first = self.stages.get(Corpus.STAGE)
        if artifact or (first and use.run == first.use.run):
            self.stages[kind.STAGE] = Stage(kind.STAGE, use, artifact, manifest)

    @property
    def destinations(self) -> list[str]:
        """Where models were ever pushed to, the last one last."""
        return self._store.ledger.destinations

    def at(self, place: str) -> str:
        """Something in the output, or elsewhere, as a path or URL."""
        return self._store.at(place)

    def digest(self) -> str:
        """Of all that the page depends on: artifacts, the ledger, our code, libraries."""
        found = hashlib.sha256()
        for path in sorted(Path(__file__).parent.rglob("*")):
            if path.suffix in (".py", ".js", ".css", ".html"):
                found.update(f"{path.name}\0".encode() + path.read_bytes())
        versions = [importlib.metadata.version(name) for name in _LIBRARIES]
        stages = [
            [stage.use.model_dump(include={"fingerprint", "took", "peak_memory_bytes", "error"})]
            + [stage.manifest]
            for stage in self.stages.values()
        ]
        found.update(json.dumps([self.address, versions, stages], sort_keys=True).encode())
        return found.hexdigest()[:32]

    # --- Artifacts, by their kind; None: the run has none.

    @cached_property
    def examples(self) -> Examples | None:
        """What the text has become."""
        return self._artifact(Examples)

    @cached_property
    def corpus(self) -> dict[str, Any]:
        """The content of corpus.json."""
        artifact = self._artifact(Corpus)
        listing: dict[str, Any] = (
            json.loads((artifact / Corpus.LISTING).read_text("utf-8")) if artifact else {}
        )
        return listing

    @cached_property
    def statistics(self) -> dict[str, Any] | None:
        """The content of report.json."""
        found = self._artifact(Statistics)
        return found.report if found else None

    @cached_property
    def model(self) -> Model | None:
        """The tables."""
        return self._artifact(Model)

    @cached_property
    def exported(self) -> ExportedModel | None:
        """The SavedModel."""
        return self._artifact(ExportedModel)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """The content of evaluation.json."""
        found = self._artifact(Evaluation)
        return found.report if found else None

    @cached_property
    def pushed(self) -> PushedModel | None:
        """The record of the push."""
        return self._artifact(PushedModel)

    def _artifact(self, kind: type[A]) -> A | None:
        stage = self.stages.get(kind.STAGE)
        return stage.artifact if stage and isinstance(stage.artifact, kind) else None

    def counts(self) -> list[list[int]]:
        """Counts of all words by rank, of this corpus and of the one it was compared with."""
        found = [self.examples]
        if self.statistics and (drift := self.statistics["drift"]):
            found.append(self._store.find(Examples, drift["reference"]))
        return [Vocabulary.load_counts(one / VOCABULARY).tolist() for one in found if one]

    def words(self) -> Words | None:
        """The most frequent words; None: no model was trained, or its vectors are not finite."""
        if not self.model:
            return None
        vocabulary = Vocabulary.load(self.model / VOCABULARY)
        settings = self.exported.settings if self.exported else ExporterSettings()
        vectors = self.model.embeddings(settings, ASKED)
        if not len(vectors) or not np.isfinite(vectors).all():
            return None
        tokens, counts = vocabulary.tokens[:ASKED], vocabulary.counts[:ASKED].tolist()
        return Words(tokens, counts, vectors)
