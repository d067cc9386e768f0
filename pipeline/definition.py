"""The chain of stages: what each one reads, and what its content depends on.

    example_gen ── transform ─┬─ statistics_gen       ┌─ evaluator ───────┐
                              └─ trainer ── exporter ─┴─ infra_validator ─┴─ pusher

Each is a step, which the runner takes unless its artifact is there. A run that reuses everything
loads no TensorFlow. The trainer reads nothing of statistics_gen, but begins only when that has
accepted the corpus.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
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
    Statistics,
    VersionBefore,
)
from components.errors import NotBlessedError, SettingsError
from components.infra_validator import model_server
from components.names import quoted
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.pusher.history import History
from components.settings import Chosen, ExporterSettings, TrainerSettings
from pipeline import baseline, logs
from pipeline.config import Settings
from pipeline.given import Given, contents_of
from pipeline.runner import Runner
from pipeline.store import SERVING, Step

if TYPE_CHECKING:
    from components.infra_validator.process import FreshProcess


class Chain:
    """One run through the stages.

    Attributes:
        examples, statistics, evaluation: What it has come to; None before.
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
        self._runner, self._store, self._settings = runner, runner.store, settings
        self._beam_options, self._force_push = tuple(beam_options), force_push
        self._destination = open_destination(
            settings.pusher.destination or self._store.place.at(SERVING)
        )
        if self._destination.address == self._store.address:
            raise SettingsError(
                "pusher.destination must be another place than --output, got "
                f"{self._store.address}: leave it out, and versions go to {SERVING}/ below"
            )
        self._validates = False
        self._fresh_process: FreshProcess | None = None
        self.examples: Examples | None = None
        self.statistics: Statistics | None = None
        self.evaluation: Evaluation | None = None

    def run(self, command: str = "push") -> str:
        """Take the steps that a command asks for.

        Args:
            command: transform, train, evaluate, validate or push.

        Returns:
            Path or URL of what the last one made.

        Raises:
            NotBlessedError: A gate refused the corpus or the model.
            SkipstreamError: Something is missing or wrong that the user can mend.
        """
        given = Given.read(
            self._settings, self._store, scores=command not in ("transform", "train", "validate")
        )
        corpus, listing = self._list()
        examples = self.examples = self._transform(corpus, listing)
        statistics = self.statistics = self._describe(examples, given.reference)
        self._accept(statistics)
        if command == "transform":
            return examples.address
        model = self._train(examples, given)
        before = baseline.version_before(self._history, self._store, self._destination, model)
        self._validates = command == "push"
        exported = self._export(model, examples, before)
        if command == "train":
            return f"{exported.address}/saved_model"
        if command != "validate":
            evaluation = self.evaluation = self._evaluate(exported, model, examples, before, given)
        if command == "evaluate":
            return evaluation.address
        validation = self._validate(exported, model, examples)
        if command == "validate":
            return validation.address
        return self._push(exported, evaluation, validation)

    def _list(self) -> tuple[Corpus, Any]:
        """The corpus, and where its files are now; None of the one that is brought along."""
        from components.example_gen.build import describe, find

        settings = self._settings.example_gen
        files, listing = find(settings)
        memory = contents_of(self._store, "example_gen.input")
        content, reordered = describe(files, listing, memory)
        step = Step(
            Corpus,
            "components.example_gen.build",
            settings=settings,
            content=content,
            given={"listing": listing},
        )
        if reordered and not self._runner.finished(step):
            news = "the same files in another order: all that is made of them is made anew"
            logs.say(f"{'example_gen':<15}  {news}", event="corpus_reordered")

        def beside() -> None:  # Takes seconds, as reading the docstrings does.
            self._runner.import_ahead("components.transform.transform")

        return self._runner.do(step, beside=beside), listing if files else None

    def _transform(self, corpus: Corpus, listing: Any) -> Examples:
        """The corpus as token ids, with its vocabulary."""
        place, work = self._store.place, self._settings.transform.work_directory
        cache = place.at("tokens")
        if work:  # Others may use it, too, and each run tidies up its own.
            owner = hashlib.sha256(place.address.encode()).hexdigest()[:12]
            cache = f"{work.rstrip('/')}/tokens/{owner}"
        return self._runner.do(
            Step(
                Examples,
                "components.transform.transform",
                inputs={"corpus": corpus},
                settings=self._settings.transform,
                given={
                    "listing": listing,
                    "beam_options": self._beam_options,
                    "cache": cache,
                    "shared": place.at("work") if self._store.is_remote else None,
                },
            )
        )

    def _describe(self, examples: Examples, reference: Examples | None) -> Statistics:
        """The corpus in numbers, beside those of the one before."""
        before = reference or baseline.examples_before(self._history, self._store, examples)
        return self._runner.do(
            Step(
                Statistics,
                "components.statistics_gen.statistics_gen",
                inputs={"examples": examples, "reference": before},
                settings=self._settings.statistics_gen,
            )
        )

    def _accept(self, statistics: Statistics) -> None:
        """Refuse to train on a corpus outside the limits."""
        summary = statistics.summary
        if not summary["accepted"]:
            see = f"skipstream stats {quoted(self._store.address)}"
            raise NotBlessedError(
                "only a corpus within the limits is trained on, and this one is not: "
                f"{'; '.join(summary['reasons'])}: see '{see}'"
            )

    def _train(self, examples: Examples, given: Given) -> Model:
        """The trained vectors."""
        from components.defaults import chosen

        settings = self._settings.trainer
        found = chosen(settings, examples).model_copy(update={"start_vectors": given.start_vectors})
        step = _training(examples, found, given, given.start)
        if settings.warm_start == baseline.LATEST:
            step = self._training_from_latest(examples, found, given)
        if not self._runner.finished(step):
            _say_chosen(settings, found, warm=step.inputs["start"] is not None)
        where = {"beam_options": self._beam_options, "shared": self._shared}
        return self._runner.do(replace(step, given=where), resumable=True)

    @property
    def _shared(self) -> str | None:
        """Where workers of a training write; None: below its output on this machine."""
        below = self._store.place.at("work") if self._store.is_remote else None
        return self._settings.transform.work_directory or below

    def _training_from_latest(
        self, examples: Examples, settings: Chosen, given: Given
    ) -> Step[Model]:
        """The training that goes on from the last pushed version, if that is still there."""
        models = baseline.trained_before(self._history)
        trainings = {
            name: _training(examples, settings, given, Model(Path(), name) if name else None)
            for name in (*models, None)
        }
        name = baseline.start_of(models, lambda name: trainings[name].fingerprint)
        if name is None or self._runner.finished(trainings[name]):
            return trainings[name]
        if start := baseline.whole_model(self._store, name):
            return _training(examples, settings, given, start)
        gone = self._store.place.at(f"{Model.STAGE}/{name}")
        news = f"warning: the training starts anew: {gone} is gone, which it was to go on from"
        logs.say(news, event="cold_start", model=name)
        return trainings[None]

    def _export(
        self, model: Model, examples: Examples, before: VersionBefore | None
    ) -> ExportedModel:
        """The SavedModel, turned onto the version before."""
        settings = self._settings.exporter
        unturned = _turned(model, examples, settings, None)
        if not before or not settings.align:
            return self._runner.do(unturned, beside=self._begin_to_validate)
        step = _turned(model, examples, settings, before)
        if not before.find_saved_model and not self._runner.finished(step):
            news = f"{'exporter':<15} turns nothing: version {before.version} cannot be read"
            logs.say(news, event="not_aligned", version=before.version)
            step = unturned
        return self._runner.do(step, beside=self._begin_to_validate)

    def _begin_to_validate(self) -> None:
        """Let the process in which the export will be asked load TensorFlow meanwhile."""
        if self._validates and not self._fresh_process:
            from components.infra_validator.process import FreshProcess

            self._fresh_process = self._runner.enter(FreshProcess())

    def _evaluate(
        self,
        exported: ExportedModel,
        model: Model,
        examples: Examples,
        before: VersionBefore | None,
        given: Given,
    ) -> Evaluation:
        """The scores, and whether they bless the model."""
        content: dict[str, Any] = {
            "files": given.score_contents,
            "before": before.fingerprint if before else None,
            "missing": [],
        }
        step = Step(
            Evaluation,
            "components.evaluator.evaluator",
            inputs={"exported": exported, "model": model, "examples": examples},
            settings=self._settings.evaluator,
            content=content,
            given={"before": before},
        )
        # A comparison that was made holds, whatever is gone since.
        if before and before.missing and not self._runner.finished(step):
            step = replace(step, content={**content, "missing": list(before.missing)})
        return self._runner.do(step, beside=self._begin_to_validate)

    def _validate(self, exported: ExportedModel, model: Model, examples: Examples) -> InfraBlessing:
        """That the SavedModel answers, in a process of its own, as the vectors say."""
        return self._runner.do(
            Step(
                InfraBlessing,
                "components.infra_validator.validator",
                inputs={"exported": exported, "model": model, "examples": examples},
                # What was validated without the server, or in another one, is validated again.
                content={"model_server": model_server.stamp()},
                given={"process": self._fresh_process},
            )
        )

    def _push(
        self, exported: ExportedModel, evaluation: Evaluation, validation: InfraBlessing
    ) -> str:
        """Path or URL of the SavedModel as the newest version that is served."""
        settings, destination, store = self._settings.pusher, self._destination, self._store
        if evaluation.report.get("blessed") or self._force_push:  # Else nothing is pushed.
            # Below the output as a name: that may be moved.
            place = destination.address if settings.destination else SERVING
            others = [other for other in store.ledger.destinations if other != place]
            store.ledger.destinations = [*others, place]
        made_of = {"exported": exported, "evaluation": evaluation, "validation": validation}
        step = Step(
            PushedModel,
            "components.pusher.pusher",
            inputs=made_of,
            given={
                "settings": settings,
                "destination": destination,
                "run_id": self._runner.run_id,
                "artifacts": store.ancestors(made_of.values()),
                "made_by": self._history,
                "force": self._force_push,
            },
        )
        pushed = self._runner.finished(step)
        # Pushed again where another model has been pushed since: the last run decides. A model that
        # was rolled back from is not: the pusher refuses it.
        again = pushed is not None and not pusher.is_served(self._history, pushed, exported)
        pushed = self._runner.do(step, again=again)
        # Not a part of the model: a change pushes nothing.
        pusher.prune(destination, settings.keep)
        address = destination.path_of(pushed.version)
        self._runner.report["saved_model"] = address
        return address

    @cached_property
    def _history(self) -> History:
        """The versions as they were when the run began: one that is pushed meanwhile is noticed."""
        return pusher.read(self._destination)


def _training(
    examples: Examples, settings: Chosen, given: Given, start: Model | None
) -> Step[Model]:
    """A training that goes on from `start`, or from the files that were given, or from nothing."""
    return Step(
        Model,
        "components.trainer.trainer",
        inputs={"examples": examples, "start": start},
        settings=settings.warm() if start else settings,
        content={"start_vectors": given.start_contents},
    )


def _turned(
    model: Model, examples: Examples, settings: ExporterSettings, before: VersionBefore | None
) -> Step[ExportedModel]:
    """An export that is turned onto a version, or is not turned."""
    return Step(
        ExportedModel,
        "components.exporter.exporter",
        inputs={"model": model, "examples": examples},
        settings=settings,
        content={"before": before.fingerprint if before else None},
        given={"before": before},
    )


def _say_chosen(settings: TrainerSettings, found: Chosen, *, warm: bool) -> None:
    """Which numbers were chosen for the text, as the settings leave them open."""
    used = found.warm() if warm else found
    given = {"epochs": settings.warm_epochs if warm else settings.epochs, "sample": settings.sample}
    numbers = {name: getattr(used, name) for name, value in given.items() if value is None}
    if numbers:
        what = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        logs.say(f"{'trainer':<15} chosen for the text: {what}", event="chosen", **numbers)
    cut = {"shards": found.shards, "round_tokens": found.round_tokens}
    how, why = "one shard", "" if settings.shards else ": for more there is too little text"
    if found.shards > 1:
        how = (
            f"rounds of {found.shards} shards of {found.round_tokens:,} tokens, which train beside "
            "each other and are merged"
        )
        why = "" if settings.shards else ": more would cost quality with this much text"
    logs.say(f"{'trainer':<15} cut into {how}{why}", event="cut", **cut)
