"""Outputs as runs leave them, made without a training: what report.html is made of."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stages import run, step
from test_statistics_gen import write_examples

from components.artifacts import (
    Artifact,
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    InfraBlessing,
    Model,
    PushedModel,
    Statistics,
    write_json,
)
from components.evaluator import gate
from components.settings import (
    EvaluatorSettings,
    ExampleGenSettings,
    ExporterSettings,
    StatisticsGenSettings,
    TrainerSettings,
    TransformSettings,
)
from components.statistics_gen import statistics_gen
from components.vocabulary import Vocabulary
from pipeline.store import Store

DIMENSIONS = 12
HISTORY = [
    {"epoch": n, "loss": 3 / n, "held_out_loss": 3.1 / n, "learning_rate": 0.05, "seconds": 1.0}
    for n in (1, 2, 3)
]


def vectors_of(types: int, seed: int = 0) -> np.ndarray:
    """float32 [types, DIMENSIONS], in clusters."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(8, DIMENSIONS))
    rows = centres[draw.integers(8, size=types)] + 0.6 * draw.normal(size=(types, DIMENSIONS))
    return rows.astype(np.float32)


class Output:
    """A run that leaves stage after stage."""

    def __init__(self, store: Store, tokens: list[str], seed: int = 0) -> None:
        self.store, self.tokens, self.seed = store, tokens, seed
        self.counts = {token: 9000 // (rank + 1) + 5 for rank, token in enumerate(tokens)}
        self.vectors = vectors_of(len(tokens), seed)

    def whole(self, **options: Any) -> "Output":
        """All stages; `options` are those of `evaluate`."""
        self.describe()
        self.train()
        self.evaluate(**options)
        if not options.get("reasons"):
            self.push()
        return self

    def make(self, kind: type[Artifact], work: Callable[[Any], Any], *inputs: Any) -> None:
        """One stage; inputs are kinds of artifacts, or a corpus to compare with."""
        named = {
            "reference" if isinstance(one, Artifact) else one.STAGE: one
            if isinstance(one, Artifact)
            else self.store.last(one)
            for one in inputs
            if one
        }
        run(self.store, step(kind, work, content=[self.tokens, self.seed], inputs=named))

    def describe(self, before: Examples | None = None, **limits: Any) -> None:
        """Up to statistics_gen."""

        def list_files(out: Corpus) -> Corpus:
            file = {"path": "a <b>.txt", "size": 1234, "modified": None}
            write_json(out.path / Corpus.LISTING, {"files": [file]})
            return out.finish(ExampleGenSettings(), files=1, bytes=1234, skipped={})

        def tokenise(out: Examples) -> Examples:
            write_examples(out.path, self.counts, out.fingerprint)
            return out.finish(TransformSettings())

        def describe(out: Statistics) -> Statistics:
            examples = self.store.last(Examples)
            assert examples
            settings = StatisticsGenSettings(**limits)
            return statistics_gen.build(examples, before, settings=settings, out=out)

        self.make(Corpus, list_files)
        self.make(Examples, tokenise, Corpus)
        self.make(Statistics, describe, Examples, before)

    def train(self) -> None:
        """Trainer and exporter."""

        def train(out: Model) -> Model:
            Vocabulary(tuple(self.counts), np.array(list(self.counts.values()))).save(
                out.path / "vocabulary.tsv"
            )
            np.save(out.path / "vectors.npy", self.vectors)
            settings = TrainerSettings(dimensions=DIMENSIONS)
            return out.finish(settings, history=HISTORY, words_per_second=1000)

        def export(out: ExportedModel) -> ExportedModel:
            (out.path / "saved_model").mkdir()
            return out.finish(ExporterSettings())

        self.make(Model, train, Examples)
        self.make(ExportedModel, export, Model, Examples)

    def evaluate(self, reasons: tuple[str, ...] = (), before: Any = None) -> None:
        """Evaluator and infra_validator."""
        report = {
            "blessed": not reasons,
            "reasons": list(reasons),
            "limits": gate.limits(EvaluatorSettings(), 2.65),
            "broken_vectors": 0,
            "loss": 1.0,
            "loss_of": "held-out",
            "frequency_loss": 2.65,
            "word_pairs": {"pairs.tsv": {"spearman": 0.61, "covered": 340, "total": 353}},
            "analogies": {},
            "neighbors": {self.tokens[0]: [[token, 0.9] for token in self.tokens[1:4]]},
            "before": before,
        }

        def evaluate(out: Evaluation) -> Evaluation:
            write_json(out.path / "evaluation.json", report)
            return out.finish(EvaluatorSettings())

        def validate(out: InfraBlessing) -> InfraBlessing:
            return out.finish(calls=18)

        self.make(Evaluation, evaluate, ExportedModel, Model, Examples)
        self.make(InfraBlessing, validate, ExportedModel, Model, Examples)

    def push(self) -> None:
        """Pusher."""

        def push(out: PushedModel) -> PushedModel:
            return out.finish(version=1, previous=None, forced=False)

        self.make(PushedModel, push, ExportedModel, Evaluation, InfraBlessing)
