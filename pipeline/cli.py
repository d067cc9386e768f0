"""The command line: the only place that parses one.

Results go to stdout, everything else to stderr; an error's last line is `skipstream: error: …`.
Exit codes: 0 done; 1 what the message says how to mend, or a bug; 2 a mistake in the command line,
the settings or Beam's options, so that trying again is no use; 3 a gate refused the corpus or the
model, or the training diverged; 4 the Beam job was launched, and is not waited for; 130 and 143
interrupted; 141 nobody reads our output.
"""

import argparse
import atexit
import contextlib
import gc
import importlib.metadata
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from components import lean_keras
from pipeline import ahead, failures, interrupts, logs, usage
from pipeline.commands import corpus, model, report, versions
from pipeline.commands import run as run_commands
from pipeline.commands.run import STAGES
from pipeline.console import filter_stderr, show_safely

_MODEL = (
    "an output or the place that its models are served from, of which the newest version is meant, "
    "or a SavedModel: a directory, gs://bucket/path or s3://bucket/path"
)
FORMATS = {
    "word2vec-text": "a word and its numbers a line: gensim, fastText's -pretrainedVectors",
    "word2vec-binary": "the same in fewer bytes: gensim, word2vec.c; not fastText",
    "fasttext": "fastText's .bin, with n-grams: fasttext.load_model, gensim's load_facebook_model",
    "keyedvectors": "KeyedVectors.load(PATH) of gensim; the vectors lie beside in PATH.vectors.npy",
    "projector": "a directory for TensorBoard's Embedding Projector",
    "npz": "numpy.load(PATH): words, vectors, counts",
}


def main() -> NoReturn:
    """The `skipstream` command: runs `sys.argv` and ends the process."""
    ended: list[int] = []
    atexit.register(_end, ended)  # Before what libraries register: it is called after that.
    # A daemon may have closed any.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # Paths that are not UTF-8, byte by byte.
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout = show_safely(sys.stdout)
    interrupts.install()
    lean_keras.install()
    # Importing TensorFlow and Beam makes a million objects that stay. Looking through them after
    # every 700 new ones, as is Python's default, takes a fifth of the time.
    gc.set_threshold(100_000)
    drain = filter_stderr()
    logging.basicConfig(level=logging.WARNING)
    (handler,) = logging.getLogger().handlers
    handler.setFormatter(logs.Lines("%(levelname)s: %(message)s"))
    handler.addFilter(logs.is_news)
    code = run(sys.argv[1:], drain)
    interrupts.heard()
    drain()
    ended.append(code)
    if ahead.under_way():  # It was interrupted, and nobody needs what is being imported.
        _end(ended)
    sys.exit(code)


def _end(code: Sequence[int]) -> None:
    """End the process here, before its interpreter does: a thread of gRPC's could abort it then."""
    if code:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code[0])


def run(argv: Sequence[str], drain: Callable[[], None] = lambda: None) -> int:
    """Run a command line.

    Args:
        argv: The arguments, without the program's name.
        drain: Called before an error's lines: waits for what other code wrote to stderr.

    Returns:
        The exit code.

    Raises:
        SystemExit: `--help`, `--version` or wrong usage.
    """
    try:
        arguments = _parse(argv)
        arguments.command(arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, which would fail the same way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        sys.stdout.flush()
        drain()
        explained = failures.explain(error)
        if explained is None:
            message = f"{type(error).__name__}: {failures.one_line(error)}"
            logs.fail(f"this is a bug, please report the lines above ({message})", 1, bug=error)
            return 1
        message, code = explained
        logs.fail(message, code)
        return code


class _Parser(argparse.ArgumentParser):
    """Ends wrong usage with the same line as every other error."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.refuse(message)

    def refuse(self, message: str) -> NoReturn:
        """End with that line alone."""
        self.exit(2, f"skipstream: error: {message}\n")


def _options(command: argparse.ArgumentParser) -> dict[str, int | None]:
    """How many words each option of a command takes; None: any number."""
    return {
        option: 1 if action.nargs is None else action.nargs if action.nargs == 0 else None
        for action in command._actions
        for option in action.option_strings
    }


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that reads the disk."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print("skipstream", importlib.metadata.version("skipstream"))
        parser.exit()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="skipstream",
        description="Unlabelled text in, a served word embedding out.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print it and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_stages(commands)
    _add_stats(commands)
    _add_report(commands)
    _add_drift(commands)
    _add_version_commands(commands)
    _add_model_commands(commands)

    if argv and argv[0] not in (*commands.choices, "-h", "--help", "--version"):
        known, options = list(commands.choices), _options(commands.choices["run"])
        parser.refuse(usage.unknown_command(argv, known, options))
    beam_options: Sequence[str] = ()
    if argv and argv[0] in STAGES and "--" in argv:
        end = list(argv).index("--")
        argv, beam_options = argv[:end], argv[end + 1 :]
    words = argv
    if argv and argv[0] in STAGES:
        # Other programs have an option -hs, which is not -h.
        words = [f"-{word}" if re.match("-h.", word) else word for word in argv]
    arguments, rest = parser.parse_known_args(words)
    if rest and argv[0] in (*STAGES, "settings"):
        command = commands.choices[argv[0]]
        behind = ["--", *beam_options] if beam_options else []
        command.refuse(usage.corrected(argv[0], [*argv[1:], *behind], _options(command)))
    # Up to Python 3.12.6, argparse takes no words behind an option if there may be none.
    if getattr(arguments, "words", None) == [] and not any(word[0] == "-" for word in rest if word):
        arguments.words, rest = rest, []
    if rest:
        hint = usage.of_model(argv[0], rest)
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    arguments.beam_options = beam_options
    return arguments


def _add_stages(commands: "argparse._SubParsersAction[_Parser]") -> None:
    for name, help_text in STAGES.items():
        command = commands.add_parser(
            name,
            help=help_text,
            description=help_text,
            usage=f"skipstream {name} [OPTION ...] [-- BEAM OPTIONS]",
            epilog="'skipstream settings' lists all settings with their meaning and range.",
            allow_abbrev=False,
        )
        command.add_argument(
            "--output",
            default="skipstream-output",
            metavar="DIR|URL",
            help="artifacts, run.json and the served models: a directory, gs://bucket/path or "
            "s3://bucket/path (default: %(default)s)",
        )
        command.add_argument(
            "--run-id",
            type=_run_id,
            metavar="ID",
            help="the run's name in logs, run.json and the record of a push (default: made up)",
        )
        command.add_argument(
            "--log-format",
            choices=logs.FORMATS,
            default="text",
            help="text for a person, or JSON Lines for a log collector (default: %(default)s)",
        )
        command.set_defaults(force_push=False)
        if name in ("run", "push"):
            command.add_argument(
                "--force-push",
                action="store_true",
                help="push also what is not blessed, was rolled back from or is overtaken by "
                "another version, and record that",
            )
        _add_settings(command)
        command.set_defaults(command=run_commands.stages, name=name)
    command = commands.add_parser(
        "settings", help="print all settings as a TOML file for --config", allow_abbrev=False
    )
    _add_settings(command)
    command.set_defaults(command=run_commands.settings)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="settings, a table for each stage"
    )
    command.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="GLOB",
        help="the corpus, in quotes; without it, the docstrings of the installed dependencies",
    )
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="STAGE.NAME=VALUE",
        help="settings that win over those of --config",
    )


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[\w.:+@=/-]{1,250}", text):  # What schedulers use; one word in a log.
        raise argparse.ArgumentTypeError(
            f"must be 1 to 250 letters, digits or any of _.:+@=/-, got {text!r}"
        )
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _add_stats(commands: "argparse._SubParsersAction[_Parser]") -> None:
    text = "The corpus in numbers, and what moved since an earlier one."
    command = commands.add_parser("stats", help=text, description=text, allow_abbrev=False)
    command.add_argument(
        "run",
        metavar="OUT",
        help="an output, whose last run is meant, or a transform artifact",
    )
    command.add_argument(
        "--against",
        metavar="OTHER",
        help="another such place to compare with; without it, what the run compared with",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where report.json and FeatureStats.pb go; without it and --against, those of the "
        "run are named",
    )
    command.set_defaults(command=corpus.stats)


def _add_report(commands: "argparse._SubParsersAction[_Parser]") -> None:
    text = "What the last run made of the text, as one page: OUT/report.html."
    command = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    command.add_argument("output", metavar="OUT", help="an output")
    command.set_defaults(command=report.report)


def _add_drift(commands: "argparse._SubParsersAction[_Parser]") -> None:
    text = "What moved between two embeddings: words, neighbours, the space as a whole."
    command = commands.add_parser("drift", help=text, description=text, allow_abbrev=False)
    command.add_argument("old", metavar="OLD", help=f"{_MODEL}, or a trainer artifact")
    command.add_argument("new", metavar="NEW", help="the same")
    command.add_argument("--json", action="store_true", help="the whole report, as JSON")
    command.set_defaults(command=model.drift)


def _add_version_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> _Parser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)
        return command

    place = "an output, or the place that its models are served from: a directory, gs:// or s3://"
    show = add("versions", versions.show, "What is served, and what else could be.")
    show.add_argument("place", metavar="OUT|URL", help=place)
    show.add_argument("--json", action="store_true", help="all there is to know, as JSON")
    text = "Serve an earlier version again, as a copy that carries the next number."
    rollback = add("rollback", versions.roll_back, text)
    rollback.add_argument("place", metavar="OUT|URL", help=place)
    rollback.add_argument(
        "--to",
        type=int,
        metavar="N",
        help="the version to serve again (default: the last one before, of another model, that "
        "was not rolled back from)",
    )
    rollback.add_argument("--reason", metavar="TEXT", help="why, for those who look later")
    text = "Remove artifacts that no served version and no last run needs."
    gc = add("gc", versions.collect, text)
    gc.add_argument("output", metavar="OUT", help="an output")
    gc.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    help_text = "a place outside OUT that models were pushed to and that was given up: strike it"
    gc.add_argument("--forget", metavar="DIR|URL", help=help_text)


def _add_model_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> _Parser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument(
            "model",
            metavar="MODEL",
            help=_MODEL,
        )
        command.set_defaults(command=function)
        return command

    def add_k(command: _Parser) -> None:
        command.add_argument("-k", type=_count, default=10, help="answers (default: %(default)s)")

    neighbors = add("neighbors", model.neighbors, "The nearest words: word, neighbour, cosine.")
    help_text = "without any, the words of each line of stdin are answered at once"
    neighbors.add_argument("words", nargs="*", default=[], metavar="WORD", help=help_text)
    add_k(neighbors)
    analogy = add("analogy", model.analogy, "What is to C as B is to A: word, cosine.")
    analogy.usage = "skipstream analogy [-h] [-k K] MODEL [A B C]"
    analogy.add_argument("words", nargs="*", default=[], metavar="A B C", help=help_text)
    add_k(analogy)
    add(
        "embed",
        model.embed,
        "The mean vector of each line of stdin, as JSON Lines, "
        f"{model.TEXTS_A_CALL} lines at a time.",
    )
    export = add("export", model.export, "Write words and vectors in another format.")
    lines = "\n".join(f"  {name:<16} {text}" for name, text in FORMATS.items())
    export.usage = f"skipstream export MODEL --format FORMAT --output PATH\n\nformats:\n{lines}\n"
    export.add_argument("--format", required=True, choices=FORMATS, metavar="FORMAT")
    help_text = "the file or directory to write; a word2vec format is packed as .gz or .bz2"
    export.add_argument("--output", required=True, type=Path, metavar="PATH", help=help_text)
