"""`skipstream run`, its stages one by one, and `settings`."""

import argparse
import resource

from components import threads
from components.errors import NotBlessedError, SkipstreamError
from pipeline import config, logs, results
from pipeline.commands import report
from pipeline.config import Settings
from pipeline.definition import Chain
from pipeline.notices import notices
from pipeline.runner import MissingStageError, Runner
from pipeline.store import Store

# The commands that run stages, with their help.
STAGES = {
    "run": "Text to served model: all stages that are not finished.",
    "transform": "List the corpus, tokenise it, build its vocabulary.",
    "train": "Train the vectors and export them.",
    "evaluate": "Score the trained vectors.",
    "validate": "Ask the exported model in a fresh process.",
    "push": "Publish the model if the gates bless it.",
}
_FILES = 64  # At once. With fewer, Beam's threads end without saying why.


def settings(arguments: argparse.Namespace) -> None:
    """`skipstream settings`."""
    print(config.template(_load(arguments)), end="")


def stages(arguments: argparse.Namespace) -> None:
    """`skipstream run`, `transform`, `train`, `evaluate`, `validate` and `push`."""
    if arguments.log_format == "json":
        logs.use_json()
    settings = _load(arguments)
    _check_files()
    threads.limit(settings.trainer.threads)  # The Beam job starts TensorFlow before the trainer.
    if arguments.beam_options:
        from components.beam_options import runner_and_options

        runner_and_options(arguments.beam_options)  # A mistake is told before anything runs.
    command = None if arguments.name == "run" else arguments.name
    store = Store.open(arguments.output)
    with Runner(store, settings, command=command, run_id=arguments.run_id) as runner:
        chain = Chain(runner, settings, arguments.beam_options, force_push=arguments.force_push)
        try:
            made = _run(chain, settings, arguments.name)
        except SkipstreamError as error:  # What a gate refuses is looked at, too.
            if chain.examples and not isinstance(error, MissingStageError):
                report.write_if_possible(store)
            raise
        if command in (None, "push"):
            report.write_if_possible(store)
    print(made)


def _check_files() -> None:
    """Refuse to run where too few files may be open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < _FILES:  # -1: any number.
        raise SkipstreamError(
            f"a run must be allowed to open at least {_FILES} files at once, got {most}: "
            "allow more with 'ulimit -n 1024'"
        )


def _run(chain: Chain, settings: Settings, name: str) -> str:
    try:
        made = chain.run("push" if name == "run" else name)
    finally:
        _show(chain, settings, name)
    _refuse(chain, name)
    return made


def _load(arguments: argparse.Namespace) -> Settings:
    return config.load(arguments.config, arguments.set, arguments.input)


def _show(chain: Chain, settings: Settings, name: str) -> None:
    """What a person should know: of the text, and how good the model is."""
    if name in ("run", "transform") and chain.examples and chain.statistics:
        # The tokeniser found the words, unless it was told them.
        told = settings.transform.tokenizer == "whitespace"
        scripts = [] if told else chain.statistics.report["corpus"]["scripts"]
        for notice in notices(chain.examples.statistics, scripts):
            logs.say(f"warning: {notice}", event="notice")
    if name in ("run", "evaluate") and chain.evaluation:
        print(results.summary(chain.evaluation.report))


def _refuse(chain: Chain, name: str) -> None:
    found = chain.evaluation.report if chain.evaluation and name == "evaluate" else None
    if found and not found["blessed"]:
        raise NotBlessedError(f"the evaluation refused the model: {'; '.join(found['reasons'])}")
