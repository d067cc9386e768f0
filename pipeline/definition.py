"""The chain of stages: what each one reads, and what its content depends on.

    example_gen ── transform ── trainer ─┬─ evaluator ─────────────────┐
                                         └─ exporter ── infra_validator ┴─ pusher

Asking for an artifact builds it and all before it, as far as they are not finished yet.
Components are imported where they are needed: a run that reuses everything loads no TensorFlow.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from components.artifacts import (
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    InfraBlessing,
    Model,
    PushedModel,
    newest_version,
)
from components.evaluator.files import matching
from pipeline.config import Settings
from pipeline.runner import Runner


class Chain:
    """The artifacts of one run.

    Whatever a `build` below is given has to be among the `inputs`, `settings` or `identity`
    beside it, have gone into one of the `inputs` itself, or leave the content as it is.
    """

    def __init__(
        self, runner: Runner, settings: Settings, beam_options: Sequence[str] = ()
    ) -> None:
        """Nothing runs yet.

        Args:
            runner: Where artifacts lie.
            settings: Of all stages.
            beam_options: Where and how the Beam job runs; its result does not depend on them.
        """
        self._runner = runner
        self._settings = settings
        self._beam_options = tuple(beam_options)

    @cached_property
    def corpus(self) -> Corpus:
        """The files, listed."""
        from components.example_gen.build import build, describe

        settings = self._settings.example_gen
        return self._runner.stage(
            "example_gen",
            Corpus,
            lambda out: build(settings=settings, out=out),
            command="transform",
            # The files count, however the patterns spell them.
            settings=settings.model_copy(update={"input": ()}),
            identity=describe(settings),
        )

    @cached_property
    def examples(self) -> Examples:
        """The corpus as token ids, with its vocabulary."""
        corpus, settings = self.corpus, self._settings.transform

        def build(out: Examples) -> Examples:
            from components import transform

            return transform.build(
                corpus,
                settings=settings,
                max_unreadable=self._settings.example_gen.max_unreadable,
                beam_options=self._beam_options,
                out=out,
            )

        return self._runner.stage(
            "transform", Examples, build, command="transform", inputs=[corpus], settings=settings
        )

    @cached_property
    def model(self) -> Model:
        """The trained vectors."""
        settings = self._settings.trainer
        # Before the examples: a name mistyped should not cost the Beam job's time.
        start_vectors = _states("trainer.start_vectors", settings.start_vectors)
        found = tuple(path for path, *_ in start_vectors)
        settings = settings.model_copy(update={"start_vectors": found})
        examples = self.examples

        def build(out: Model) -> Model:
            from components.trainer import trainer

            return trainer.build(examples, settings=settings, out=out)

        return self._runner.stage(
            "trainer",
            Model,
            build,
            command="train",
            inputs=[examples],
            settings=settings,
            # Of the start vectors, the files' states count.
            neutral=["checkpoint_minutes", "start_vectors", "threads"],
            identity=start_vectors,
            resumable=True,
        )

    @cached_property
    def exported(self) -> ExportedModel:
        """The SavedModel."""
        model, examples, text = self.model, self.examples, self._settings.transform
        settings = self._settings.exporter

        def build(out: ExportedModel) -> ExportedModel:
            from components.exporter import exporter

            return exporter.build(
                model,
                examples,
                settings=settings,
                tokenizer=text.tokenizer,
                lowercase=text.lowercase,
                out=out,
            )

        return self._runner.stage(
            "exporter",
            ExportedModel,
            build,
            command="train",
            inputs=[model, examples],
            settings=settings,
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        """The scores, and whether they bless the model."""
        settings, text = self._settings.evaluator, self._settings.transform
        training, served = self._settings.trainer, self._settings.exporter
        # Before the model: a name mistyped should not cost the training's time.
        files = {
            "word_pairs": _states("evaluator.word_pairs", settings.word_pairs),
            "analogies": _states("evaluator.analogies", settings.analogies),
        }
        model, examples = self.model, self.examples

        def build(out: Evaluation) -> Evaluation:
            from components.evaluator import evaluator

            return evaluator.build(
                model,
                examples,
                settings=settings,
                served=served,
                training=training,
                tokens=text,
                out=out,
            )

        return self._runner.stage(
            "evaluator",
            Evaluation,
            build,
            command="evaluate",
            inputs=[model, examples],
            settings=settings,
            identity=[files, served.model_dump(mode="json")],
        )

    @cached_property
    def validation(self) -> InfraBlessing:
        """That the SavedModel answers, in a process of its own, as the vectors say."""
        exported, model, examples = self.exported, self.model, self.examples
        text, served = self._settings.transform, self._settings.exporter

        def build(out: InfraBlessing) -> InfraBlessing:
            from components.infra_validator import validator

            return validator.build(
                exported,
                model,
                examples,
                served=served,
                tokenizer=text.tokenizer,
                lowercase=text.lowercase,
                out=out,
            )

        return self._runner.stage(
            "infra_validator",
            InfraBlessing,
            build,
            command="validate",
            inputs=[exported, model, examples],
        )

    @cached_property
    def pushed(self) -> PushedModel:
        """The SavedModel as the newest version that is served."""
        from components.pusher import pusher

        evaluation, exported, validation = self.evaluation, self.exported, self.validation
        settings, serving = self._settings.pusher, self._runner.output / "serving"

        def build(out: PushedModel) -> PushedModel:
            return pusher.build(
                exported, evaluation, validation, settings=settings, serving=serving, out=out
            )

        pushed = self._runner.stage(
            "pusher",
            PushedModel,
            build,
            command="push",
            inputs=[exported, evaluation, validation],
            # Pushed again where another model has been since: the last run decides.
            intact=lambda pushed: pushed.version == newest_version(serving),
        )
        pusher.prune(serving, settings.keep)  # Not a part of the model: a change pushes nothing.
        return pushed

    @property
    def served(self) -> Path:
        """The directory of the pushed version."""
        return self._runner.output / "serving" / str(self.pushed.version)


def _states(setting: str, patterns: Sequence[str]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change, in nanoseconds, of all files that `patterns` match."""
    stats = [(str(path.absolute()), path.stat()) for path in matching(patterns, setting)]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
