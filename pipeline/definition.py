"""The chain of stages: what each one reads, and what its content depends on.

    example_gen ── transform ─┬─ statistics_gen       ┌─ evaluator ───────┐
                              └─ trainer ── exporter ─┴─ infra_validator ─┴─ pusher

Asking for an artifact builds it and all before it, as far as they are not finished yet.
Components are imported where they are needed: a run that reuses everything loads no TensorFlow.
The trainer reads nothing of statistics_gen, but begins only when that has accepted the corpus.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import (
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    InfraBlessing,
    Model,
    PushedModel,
    Served,
    Statistics,
)
from components.contents import Contents
from components.errors import NotBlessedError
from components.evaluator.files import matching, named
from components.evaluator.score_files import read_analogies, read_word_pairs
from components.example_gen.files import File
from components.infra_validator import model_server
from components.names import quoted
from components.pusher.destination import open_destination
from components.pusher.history import History
from pipeline import logs, lookup
from pipeline.config import Settings
from pipeline.runner import Runner, fingerprint_of

if TYPE_CHECKING:
    from components.defaults import Chosen


class Chain:
    """The artifacts of one run.

    Whatever a `build` below is given has to be among the `inputs`, `settings` or `identity`
    beside it, have gone into one of the `inputs` itself, or leave the content as it is.
    """

    def __init__(
        self,
        runner: Runner,
        settings: Settings,
        beam_options: Sequence[str] = (),
        *,
        force_push: bool = False,
    ) -> None:
        """Nothing runs yet.

        Args:
            runner: Where artifacts lie.
            settings: Of all stages.
            beam_options: Where and how the Beam job runs; its result does not depend on them.
            force_push: Whether a model is pushed that is not blessed, was rolled back from, or is
                overtaken.

        Raises:
            SkipstreamError: `pusher.destination` is no place to push to.
        """
        self._runner = runner
        self._settings = settings
        self._beam_options = tuple(beam_options)
        self._force_push = force_push
        self._destination = open_destination(
            settings.pusher.destination or runner.output / lookup.SERVING
        )

    @cached_property
    def corpus(self) -> Corpus:
        """The files, listed."""
        from components.example_gen.build import build, describe, find, relist

        settings = self._settings.example_gen
        files, listing = find(settings)
        identity, reordered = describe(files, listing, self._memory("example_gen.input"))
        # The content counts, however the patterns spell it.
        key = {"settings": settings.model_copy(update={"input": ()}), "identity": identity}
        if reordered and not self._runner.finished("example_gen", Corpus, **key):
            news = "the same files in another order: all that is made of them is made anew"
            logs.say(f"{'example_gen':<15}  {news}", event="corpus_reordered")
        corpus = self._runner.stage(
            "example_gen",
            Corpus,
            lambda out: build(settings=settings, out=out, listing=listing),
            command="transform",
            **key,
        )
        if files:
            relist(corpus, listing)
        return corpus

    @cached_property
    def examples(self) -> Examples:
        """The corpus as token ids, with its vocabulary."""
        corpus, settings = self.corpus, self._settings.transform
        output = str(self._runner.output)
        tokens = f"{output}/tokens"
        if settings.work_directory:  # Others may use it, too, and each run tidies up its own.
            owner = hashlib.sha256(output.encode()).hexdigest()[:12]
            tokens = f"{settings.work_directory.rstrip('/')}/tokens/{owner}"

        def build(out: Examples) -> Examples:
            from components import transform

            return transform.build(
                corpus,
                settings=settings,
                beam_options=self._beam_options,
                cache=tokens,
                out=out,
            )

        return self._runner.stage(
            "transform",
            Examples,
            build,
            command="transform",
            inputs=[corpus],
            settings=settings.model_copy(update={"lowercase": settings.lowered}),
            neutral=["cache", "work_directory"],
        )

    @cached_property
    def described(self) -> Statistics:
        """The corpus in numbers, whether or not they are within the limits."""
        settings, output = self._settings.statistics_gen, self._runner.output
        # Before the examples: a name mistyped should not cost the Beam job's time.
        given = (
            lookup.examples(Path(settings.reference).expanduser()) if settings.reference else None
        )
        examples = self.examples
        reference = given or lookup.served_before(self._history, output, examples)

        def build(out: Statistics) -> Statistics:
            from components.statistics_gen import statistics_gen

            return statistics_gen.build(examples, reference, settings=settings, out=out)

        return self._runner.stage(
            "statistics_gen",
            Statistics,
            build,
            command=None,
            inputs=[examples, reference] if reference else [examples],
            settings=settings,
            # Of the reference, its content counts.
            neutral=["reference"],
        )

    @property
    def scripts(self) -> list[dict[str, Any]]:
        """Those of the words that the tokeniser found; none where it was told the words."""
        if self._settings.transform.tokenizer == "whitespace":
            return []
        scripts: list[dict[str, Any]] = self.described.report["corpus"]["scripts"]
        return scripts

    @cached_property
    def statistics(self) -> Statistics:
        """The corpus in numbers.

        Raises:
            NotBlessedError: It is outside the limits.
        """
        summary = self.described.summary
        if not summary["accepted"]:
            see = f"skipstream stats {quoted(str(self._runner.output))}"
            raise NotBlessedError(
                "only a corpus within the limits is trained on, and this one is not: "
                f"{'; '.join(summary['reasons'])}: see '{see}'"
            )
        return self.described

    @cached_property
    def training(self) -> "Chosen":
        """The settings of the trainer, with what they leave open chosen for the examples."""
        from components.defaults import chosen

        return chosen(self._settings.trainer, self.examples)

    @cached_property
    def model(self) -> Model:
        """The trained vectors."""
        from components import word2vec_files

        settings = self._settings.trainer
        # Before the examples: a mistake in a name or a file should not cost the Beam job's time.
        start_vectors = matching(settings.start_vectors, "trainer.start_vectors")
        for path in start_vectors:
            word2vec_files.check(path, settings.dimensions)
        found = tuple(str(path.absolute()) for path in start_vectors)
        contents = self._contents("trainer.start_vectors", start_vectors)
        # The end of a name says whether the file is packed.
        start_identity = [[path.suffix, contents[path]] for path in start_vectors]
        start = lookup.given_start(settings.warm_start, self._runner.output)
        _ = self.statistics  # Refuses a corpus before it is trained on.
        examples = self.examples
        training = self.training.model_copy(update={"start_vectors": found})

        def used(start: Model | None) -> "Chosen":
            return training.warm() if start else training

        def key(start: Model | None) -> dict[str, Any]:
            return {
                "inputs": [examples, start] if start else [examples],
                "settings": used(start),
                # Of the start vectors, the files' content counts; of a warm start, its model, and
                # the epochs and the rate, which stand in the places of a cold one's.
                "neutral": ["checkpoint_minutes", "start_vectors", "threads"]
                + ["warm_start", "warm_epochs", "warm_learning_rate"],
                "identity": start_identity,
            }

        if settings.warm_start == lookup.LATEST:
            served = lookup.trained_before(self._history, self._runner.output)
            start = lookup.latest(served, lambda model: fingerprint_of("trainer", **key(model)))
            gone = start and not lookup.is_whole(start)
            if start and gone and not self._runner.finished("trainer", Model, **key(start)):
                news = f"{'trainer':<15} starts anew: {start.path} is gone"
                logs.say(news, event="cold_start", model=start.fingerprint)
                start = None

        def build(out: Model) -> Model:
            from components.trainer import trainer

            found = {
                name: getattr(used(start), name)
                for name in ("epochs", "sample")
                if getattr(settings, f"warm_{name}" if start and name == "epochs" else name) is None
            }
            if found:
                what = ", ".join(f"{name} {value:g}" for name, value in found.items())
                logs.say(f"{'trainer':<15} chosen for the text: {what}", event="chosen", **found)
            return trainer.build(examples, settings=used(start), out=out, start=start)

        return self._runner.stage(
            "trainer", Model, build, command="train", resumable=True, **key(start)
        )

    @cached_property
    def before(self) -> Served | None:
        """The version that the model is aligned to and held against."""
        model = self.model
        return lookup.served_model(self._history, self._runner.output, self._destination, model)

    @cached_property
    def exported(self) -> ExportedModel:
        """The SavedModel."""
        model, examples, text = self.model, self.examples, self._settings.transform
        settings = self._settings.exporter

        def key(before: Served | None) -> dict[str, Any]:
            identity = before.fingerprint if before else None
            return {"inputs": [model, examples], "settings": settings, "identity": identity}

        before = self.before if settings.align else None
        gone = before and not before.saved_model
        if before and gone and not self._runner.finished("exporter", ExportedModel, **key(before)):
            news = f"{'exporter':<15} turns nothing: version {before.version} cannot be read"
            logs.say(news, event="not_aligned", version=before.version)
            before = None

        def build(out: ExportedModel) -> ExportedModel:
            from components.exporter import exporter

            return exporter.build(
                model,
                examples,
                settings=settings,
                tokenizer=text.tokenizer,
                lowercase=text.lowered,
                out=out,
                before=before,
            )

        return self._runner.stage("exporter", ExportedModel, build, command="train", **key(before))

    @cached_property
    def evaluation(self) -> Evaluation:
        """The scores, and whether they bless the model."""
        settings, text = self._settings.evaluator, self._settings.transform
        served = self._settings.exporter
        # Before the model: a mistake in a name or a file should not cost the training's time.
        patterns = {"word_pairs": settings.word_pairs, "analogies": settings.analogies}
        read = {"word_pairs": read_word_pairs, "analogies": read_analogies}
        files: dict[str, dict[str, str]] = {}
        for name in patterns:
            setting = f"evaluator.{name}"
            paths = matching(patterns[name], setting)
            for path in paths:
                read[name](path)
            contents = self._contents(setting, paths)
            # The report has the names.
            files[name] = {label: contents[path] for label, path in named(paths).items()}
        exported, model, examples, before = self.exported, self.model, self.examples, self.before

        def key(missing: Sequence[str]) -> dict[str, Any]:
            identity = [files, before and before.fingerprint, missing]
            inputs = [exported, model, examples]
            # Of the files, names and content count.
            neutral = list(patterns)
            return {
                "inputs": inputs,
                "settings": settings,
                "neutral": neutral,
                "identity": identity,
            }

        # A comparison that was made holds, whatever is gone since.
        missing = before.missing if before else ()
        if self._runner.finished("evaluator", Evaluation, **key(())):
            missing = ()

        def build(out: Evaluation) -> Evaluation:
            from components.evaluator import evaluator

            return evaluator.build(
                exported,
                model,
                examples,
                settings=settings,
                served=served,
                training=self.training,
                tokens=text,
                out=out,
                before=before,
            )

        return self._runner.stage(
            "evaluator", Evaluation, build, command="evaluate", **key(missing)
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
                lowercase=text.lowered,
                out=out,
            )

        return self._runner.stage(
            "infra_validator",
            InfraBlessing,
            build,
            command="validate",
            inputs=[exported, model, examples],
            # What was validated without the server, or in another one, is validated again.
            identity=model_server.identity(),
        )

    @cached_property
    def pushed(self) -> PushedModel:
        """The SavedModel as the newest version that is served."""
        from components.pusher import pusher

        evaluation, exported, validation = self.evaluation, self.exported, self.validation
        settings, destination = self._settings.pusher, self._destination
        report, history = self._runner.report, self._history
        # Below the output directory as a name: that may be moved.
        place = destination.address if settings.destination else lookup.SERVING
        others = [other for other in report["destinations"] if other != place]
        report["destinations"] = [*others, place]

        def build(out: PushedModel) -> PushedModel:
            return pusher.build(
                exported,
                evaluation,
                validation,
                settings=settings,
                destination=destination,
                out=out,
                run_id=report["run_id"],
                artifacts={name: stage["fingerprint"] for name, stage in report["stages"].items()},
                made_by=history,
                force=self._force_push,
            )

        pushed = self._runner.stage(
            "pusher",
            PushedModel,
            build,
            command="push",
            inputs=[exported, evaluation, validation],
            # Pushed again where another model has been pushed since: the last run decides. A model
            # that was rolled back from is not: `build` refuses it.
            intact=lambda pushed: pusher.is_served(destination, pushed, exported),
        )
        # Not a part of the model: a change pushes nothing.
        pusher.prune(destination, settings.keep)
        report["saved_model"] = destination.path_of(pushed.version)
        return pushed

    @cached_property
    def _history(self) -> History:
        from components.pusher import pusher

        return pusher.read(self._destination)

    @property
    def served(self) -> str:
        """Path or URL of the pushed version."""
        return self._destination.path_of(self.pushed.version)

    def _memory(self, setting: str) -> Path:
        """The file that remembers what the files of a setting hold."""
        return self._runner.output / "digests" / f"{setting}.json"

    def _contents(self, setting: str, paths: Sequence[Path]) -> dict[Path, str]:
        """A digest of each file, by its path."""
        if not paths:
            return {}
        files = [File.of(str(path.absolute()), path.stat()) for path in paths]
        digests = Contents(self._memory(setting)).digests(files)
        return dict(zip(paths, digests, strict=True))
