"""What a mistaken command line was meant to say, as one line that ends in a command to paste."""

import difflib
import glob
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import SettingsError
from components.names import quoted, shown
from pipeline import aliases, config

# Commands of fastText, gensim and scikit-learn, and what they are here.
_COMMANDS = {
    **dict.fromkeys(("skipgram", "cbow", "fit", "start", "build", "word2vec"), "run"),
    **dict.fromkeys(("nn", "neighbours", "most_similar", "most-similar", "similar"), "neighbors"),
    **dict.fromkeys(("print-word-vectors", "print-sentence-vectors", "encode"), "embed"),
    **dict.fromkeys(("convert", "save", "save_word2vec_format", "dump"), "export"),
    "analogies": "analogy",
    "config": "settings",
    "help": "--help",
    "version": "--version",
}
_DASHES = "\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"  # What editors and web pages make of hyphens.
_ANSWERS = {"n", "k", "top", "topn", "topk"}
_MOST_FILES = 3  # That are named one by one.
_VECTORS = (".bin", ".vec", ".txt", ".model", ".kv", ".gz")


def corrected(command: str, words: Sequence[str], options: Mapping[str, int | None]) -> str:
    """What is wrong with `skipstream COMMAND WORDS`, a command that runs stages.

    Args:
        command: Its name.
        words: What stands behind it, among it what it does not take, and Beam's options last.
        options: How many words each of its options takes; None: any number.

    Returns:
        The mistakes; and the command to paste, if all that is wrong is known.

    >>> options = {"--input": None, "--output": 1, "--set": None}
    >>> corrected("run", ["ten.txt"], options)
    'files are given with --input: skipstream run --input ten.txt'
    >>> corrected("run", ["--min-count", "1", "--output", "OUT"], options)
    'settings are given with --set: skipstream run --set transform.min_count=1 --output OUT'
    >>> print(corrected("run", ["-dim=50", "--hs", "0"], options))
    -dim is trainer.dimensions here; --hs: skip-gram with negative sampling is the only model: \
leave it out: skipstream run --set trainer.dimensions=50
    >>> corrected("run", ["--frob"], options)
    "unrecognized arguments: --frob: see 'skipstream settings'"
    """
    return _said(*_correct(command, words, options))


def unknown_command(
    words: Sequence[str], commands: Sequence[str], options: Mapping[str, int | None]
) -> str:
    """What is wrong with `skipstream WORDS`, whose first is no command.

    Args:
        words: At least one.
        commands: All there are.
        options: Those of `run`, as `corrected` takes them.

    >>> commands, options = ["neighbors", "run"], {"--input": None, "--output": 1, "--set": None}
    >>> unknown_command(["nn", "model.bin"], commands, options)
    "no command is called 'nn': 'skipstream neighbors' is meant"
    >>> unknown_command(["rnu"], commands, options)
    "no command is called 'rnu': did you mean 'skipstream run'?"
    >>> unknown_command(["--input", "a.txt"], commands, options)
    'a command comes first: skipstream run --input a.txt'
    """
    first, *others = words
    said = f"no command is called '{shown(first)}'"
    meant = _COMMANDS.get(first)
    if _is_option(first) or os.path.exists(first) or re.search(r"[*?/.]", first):
        said, meant, others = "a command comes first", "run", list(words)
    if meant == "run":
        mistakes, command = _correct("run", others, options)
        only_model = [why] if first == "cbow" and (why := config.absent(first)) else []
        return _said([said, *only_model, *mistakes], command)
    if meant:
        return f"{said}: 'skipstream {meant}' is meant"
    found = difflib.get_close_matches(first, commands, n=1)
    return f"{said}: " + (
        f"did you mean 'skipstream {found[0]}'?" if found else "see 'skipstream --help'"
    )


def of_model(command: str, rest: Sequence[str]) -> str:
    """What is meant by words that a command that asks a model does not take; empty if unknown.

    >>> of_model("neighbors", ["--topn", "5"])
    ': answers are counted by -k'
    >>> of_model("embed", ["some text"])
    ": texts are lines of stdin: echo 'some text' | skipstream embed MODEL"
    """
    if command in ("neighbors", "analogy") and _ANSWERS & {*map(aliases.normal, rest)}:
        return ": answers are counted by -k"
    if command == "embed" and not any(map(_is_option, rest)):
        text = quoted(" ".join(rest))
        return f": texts are lines of stdin: echo {text} | skipstream embed MODEL"
    return ""


def _said(mistakes: Sequence[str], command: str | None) -> str:
    return ": ".join(filter(None, ("; ".join(map(shown, dict.fromkeys(mistakes))), command)))


def _correct(
    command: str, words: Sequence[str], options: Mapping[str, int | None]
) -> tuple[list[str], str | None]:
    mistakes: list[str] = []
    arguments: list[str] = []
    files: list[str] = []
    beam_options: list[str] = []
    known = True
    rest = deque(words)

    def take(most: int | None) -> list[str]:
        taken: list[str] = []
        while rest and not _is_option(rest[0]) and len(taken) != most:
            taken.append(rest.popleft())
        return taken

    while rest:
        word = rest.popleft()
        if word[0:1] in _DASHES:
            mistakes.append(f"{word} begins with a dash that is no hyphen")
            word = "--" + word.lstrip(_DASHES + "-")
        name, equals, text = word.partition("=")
        if word == "--":
            beam_options = [word, *rest]
            rest.clear()
        elif not _is_option(word):
            files.append(word)
        elif name in options:
            arguments += [word, *take(0 if equals else options[name])]
        else:
            mistake, instead = _meant(name, text if equals else "".join(take(1)), options)
            mistakes.append(mistake)
            arguments += instead or []
            known &= instead is not None
    if files:
        mistakes.insert(0, "files are given with --input")
        free = "--output" in options and not any(
            word.partition("=")[0] == "--output" for word in arguments
        )
        arguments += _as_options(files, output=free)
        if command not in ("run", "settings", "transform"):
            mistakes.append(f"'{command}' is one stage of 'run'")
            command = "run"
    fixed = " ".join(map(quoted, ["skipstream", command, *arguments, *beam_options]))
    return mistakes, fixed if known else None


def _is_option(word: str) -> bool:
    """Whether it is an option, and no value such as -2, nor the - that stands for stdin."""
    return bool(re.match(f"[-{_DASHES}]{{1,2}}[a-zA-Z]", word))


def _meant(name: str, text: str, options: Mapping[str, int | None]) -> tuple[str, list[str] | None]:
    """What is wrong with an unknown option, and what stands for it; None if that is not known."""
    if why := config.absent(name):
        return f"{name}: {why}", []
    meant = config.meant(name)
    if meant is None:
        close = difflib.get_close_matches(name, options, n=1, cutoff=0.7)
        if not close:
            return f"unrecognized arguments: {name}: {config.close(name.lstrip('-'))}", None
        meant = close[0]
    meant = "--input" if meant == "example_gen.input" else meant
    here = f"{name} is {meant} here"
    if not text:
        return (here, [meant]) if options.get(meant) == 0 else (f"{here}, and needs a value", None)
    if meant == "--output":
        return f"{here}, a directory", [meant, _directory(text)]
    if meant.startswith("--"):
        return here, [meant, text]
    try:
        override = config.override(meant, text)
    except SettingsError as error:
        return f"{name}: {error}", None
    same = aliases.normal(name.rpartition(".")[2]) == aliases.normal(meant.partition(".")[2])
    return "settings are given with --set" if same else here, ["--set", override]


def _as_options(files: Sequence[str], *, output: bool = True) -> list[str]:
    """The options for words that stand alone, of which the last may be an `output`.

    >>> _as_options(["corpus.txt", "settings.toml"])
    ['--config', 'settings.toml', '--input', 'corpus.txt']
    >>> _as_options(["corpus.txt", "model.bin"])  # As fastText takes them.
    ['--input', 'corpus.txt', '--output', 'model']
    >>> _as_options(["corpus.txt", "OUT"])
    ['--input', 'corpus.txt', '--output', 'OUT']
    """
    settings = [file for file in files if file.endswith(".toml")]
    inputs = [file for file in files if not file.endswith(".toml")]
    outputs = [inputs.pop()] if output and len(inputs) > 1 and _is_output(inputs) else []
    return [
        *(word for file in settings for word in ("--config", file)),
        *(["--input", *_pattern(inputs)] if inputs else ()),
        *(word for model in outputs for word in ("--output", _directory(model))),
    ]


def _is_output(words: Sequence[str]) -> bool:
    """Whether the last of the words is what a run writes, and not one more file that it reads."""
    last = words[-1]
    if os.path.exists(last):
        return os.path.exists(os.path.join(last, "store.json"))
    if len(words) == 2 and last.endswith(_VECTORS):
        return True
    return not re.search(r"[*?[{]|://", last) and not Path(last).suffix


def _directory(model: str) -> str:
    """Where a run writes that is to make what another program writes into the file `model`.

    >>> _directory("models/fil.vec.gz"), _directory("OUT")
    ('models/fil', 'OUT')
    """
    while model.endswith(_VECTORS) and os.path.basename(model) not in _VECTORS:
        model = os.path.splitext(model)[0]
    return model


def _pattern(files: Sequence[str]) -> list[str]:
    """Input patterns for `files`: of many that the shell made of one pattern, that."""
    names = [file.rstrip("/") + "/*" if os.path.isdir(file) else file for file in files]
    suffixes = {Path(name).suffix for name in names}
    directories = {os.path.dirname(name) for name in names}
    if len(names) > _MOST_FILES and len(suffixes) == len(directories) == 1:
        pattern = os.path.join(*directories, f"*{suffixes.pop()}")
        if sorted(glob.glob(pattern)) == sorted(names):
            return [pattern]
    return names
