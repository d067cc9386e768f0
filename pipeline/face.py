"""`skipstream.train` and `skipstream.load`."""

import glob
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from components.errors import SettingsError
from components.exporter.embeddings import Embeddings
from components.names import cut
from pipeline import child, config, documents
from pipeline.commands import places
from pipeline.store import Store

_OUTPUT = "skipstream-output"  # As the command's.
_OPTIONS = {
    "--input": "give file patterns first, or texts as documents=",
    "--output": "output= is meant",
    "--config": "settings= is meant",
}

Address = str | os.PathLike[str]


def load(model: Address) -> Embeddings:
    """Load a trained model. Needs no TensorFlow.

    Args:
        model: An output or the place that its models are served from, of which the newest version
            is meant, or a SavedModel: a directory, gs://bucket/path or s3://bucket/path.

    Raises:
        SkipstreamError: There is none, or it is damaged.
    """
    address = _address(model, "model")
    return Embeddings.load(places.local(address), address)


def train(
    input: Address | Sequence[Address] = (),
    *,
    documents: Iterable[str] | None = None,
    output: Address = _OUTPUT,
    settings: Mapping[str, Any] | Address | None = None,
    progress: bool = True,
    dimensions: int | None = None,
    epochs: int | None = None,
    window: int | None = None,
    negatives: int | None = None,
    sample: float | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    min_count: int | None = None,
    max_size: int | None = None,
    min_ngram: int | None = None,
    max_ngram: int | None = None,
    tokenizer: Literal["words", "whitespace"] | None = None,
    lowercase: bool | None = None,
    phrase_passes: int | None = None,
    **more: Any,
) -> Embeddings:
    """Train a model: what the command `skipstream run` does, in a process of its own.

    The same call again reuses every finished stage. An interrupted call (Ctrl-C, or the stop button
    of a notebook) goes on where it was when it is made again.

    Args:
        input: File patterns of the corpus. Without it and `documents`, the docstrings of the
            installed dependencies.
        documents: The corpus itself, texts in their order, in place of `input`. They are written
            below the output first, as JSON Lines.
        output: Where artifacts and models go: a directory, gs://bucket/path or s3://bucket/path.
        settings: Settings by their full names, {"transform.min_count": 2}, or a TOML file.
            Keywords win over them.
        progress: Whether stages and a bar are shown, on stderr or in the notebook.
        dimensions: Length of a vector.
        epochs: Passes over the corpus.
        window: Most tokens between target and context, on either side.
        negatives: Noise words for each pair.
        sample: Share of the corpus above which a word is subsampled.
        learning_rate: Rate of the first step.
        seed: Everything random is a function of it.
        threads: CPU threads.
        min_count: Occurrences that a token needs to be kept.
        max_size: Most tokens in the vocabulary.
        min_ngram: Characters of the shortest n-grams.
        max_ngram: Characters of the longest n-grams; both are 0 for none.
        tokenizer: "words", or "whitespace" for text segmented before.
        lowercase: Whether letters become lower case.
        phrase_passes: How often pairs of tokens are joined to phrases.
        more: Any other setting by its name without the stage; see `skipstream settings`.

    Returns:
        The model that this run pushed.

    Raises:
        SettingsError: A keyword or a value is wrong.
        NotBlessedError: A gate refused the corpus or the model.
        SkipstreamError: Whatever else a user can mend.
    """
    typed = {
        "dimensions": dimensions,
        "epochs": epochs,
        "window": window,
        "negatives": negatives,
        "sample": sample,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": threads,
        "min_count": min_count,
        "max_size": max_size,
        "min_ngram": min_ngram,
        "max_ngram": max_ngram,
        "tokenizer": tokenizer,
        "lowercase": lowercase,
        "phrase_passes": phrase_passes,
    }
    given = {name: value for name, value in typed.items() if value is not None} | more
    overrides = {_full_name(name): value for name, value in given.items()}
    toml = None
    if isinstance(settings, Mapping):
        overrides = _flat(settings) | overrides
    elif isinstance(settings, str | os.PathLike):
        toml = Path(settings)
    elif settings is not None:
        raise SettingsError(
            'settings must be as {"trainer.epochs": 3}, or the path of a TOML file, got '
            f"{type(settings).__name__}"
        )
    patterns = _patterns(input)
    return _run(_address(output, "output"), patterns, documents, toml, overrides, progress)


def _run(
    output: str,
    patterns: Sequence[str],
    texts: Iterable[str] | None,
    toml: Path | None,
    overrides: Mapping[str, Any],
    progress: bool,
) -> Embeddings:
    words = [f"{name}={_written(value)}" for name, value in overrides.items()]
    # A mistake is told before anything starts.
    settings = config.load(toml, words, patterns)
    Store.open(output, "output")
    directory = None
    if texts is not None:
        if settings.example_gen.input:
            raise SettingsError(
                "input and documents are two corpora, got both: leave one of them out"
            )
        directory = documents.write(texts, output)
        patterns = [documents.pattern(directory)]
        words += ["example_gen.format=jsonl", "example_gen.field=text"]
    command = ["run", "--output", _no_option(output)]
    command += ["--config", _no_option(str(toml))] if toml else []
    command += ["--input", *map(_no_option, patterns)] if patterns else []
    command += ["--set", *words] if words else []
    made = child.run(command, progress=progress)
    if directory:
        documents.forget_others(directory)
    return load(made)


def _patterns(input: Address | Sequence[Address]) -> list[str]:
    try:
        several = [input] if isinstance(input, str | os.PathLike) else list(input)
    except TypeError as error:
        raise SettingsError(f"input takes file patterns, got {type(input).__name__}") from error
    for place, pattern in enumerate(several):
        if not isinstance(pattern, str | os.PathLike):
            raise SettingsError(
                f"input takes file patterns, got {type(pattern).__name__} at place {place}: texts "
                "themselves are given as documents="
            )
    patterns = [os.fspath(pattern) for pattern in several]
    for pattern in patterns:
        if _is_text(pattern):
            raise SettingsError(
                f"input takes file patterns, and no file matches {cut(pattern)!r}: texts "
                "themselves are given as documents="
            )
    return patterns


def _is_text(pattern: str) -> bool:
    """Whether it is several words, and neither they nor all of it could name files."""
    words = pattern.split()
    if len(words) < 2 or "://" in pattern or "{" in pattern:
        return False
    wanted = map(os.path.expanduser, (pattern, *words))
    return not any(
        any(glob.iglob(path, recursive=True)) or os.path.lexists(path) for path in wanted
    )


def _address(given: Address, name: str) -> str:
    """It as text."""
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise SettingsError(
            f"{name} must be a directory, gs://bucket/path or s3://bucket/path, got {given!r}"
        )
    return os.fspath(given)


def _no_option(path: str) -> str:
    """A path that a command does not take for one of its options."""
    return f"./{path}" if path.startswith("-") and path != "-" else path


def _full_name(keyword: str) -> str:
    """The setting that a keyword means.

    >>> _full_name("min_count")
    'transform.min_count'
    >>> _full_name("vector_size")
    Traceback (most recent call last):
    components.errors.SettingsError: train has no keyword 'vector_size': dimensions is meant
    """
    fulls = [full for full, _ in config.fields() if full.partition(".")[2] == keyword]
    if len(fulls) == 1:
        return fulls[0]
    if fulls:
        others = ", ".join(map(_setting, fulls))
        raise SettingsError(f"keyword {keyword!r} could be one of two settings: write {others}")
    raise SettingsError(f"train has no keyword {keyword!r}: {_hint(keyword, _keyword)}")


def _hint(name: str, written: Callable[[str], str]) -> str:
    """What an unknown name may mean; `written`: how Python writes a setting."""
    found = config.meant(name)
    if found in _OPTIONS:
        return _OPTIONS[found]
    if found:
        return f"{written(found)} is meant"
    if why := config.absent(name):
        return why
    if close := config.closest(name):
        return f"did you mean {written(close)}?"
    return "see help(skipstream.train) and 'skipstream settings'"


def _keyword(full: str) -> str:
    name = full.partition(".")[2]
    times = Counter(other.partition(".")[2] for other, _ in config.fields())
    return name if times[name] == 1 else _setting(full)


def _setting(full: str) -> str:
    return f'settings={{"{full}": …}}'


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by full names; a stage may have a table, too.

    >>> _flat({"trainer": {"epochs": 3}, "transform.min_count": 2})
    {'trainer.epochs': 3, 'transform.min_count': 2}
    """
    flat: dict[Any, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    for name in flat:
        if not isinstance(name, str):
            raise SettingsError(f"names of settings must be text, got {name!r}")
        _check_name(name)
    return flat


def _check_name(name: str) -> None:
    """Refuse a setting that does not exist."""
    known = [full for full, _ in config.fields()]
    if name in known or any(full.startswith(f"{name}.") for full in known):
        return  # A stage: that it takes a table is told later.
    raise SettingsError(f"unknown setting {name!r}: {_hint(name, _setting)}")


def _written(value: Any) -> str:
    """A value as --set takes it: JSON's are TOML's, too."""
    if value is None:
        return "none"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, tuple | list):
        value = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in value]
    elif hasattr(value, "tolist"):  # A number or an array of numpy's.
        value = value.tolist()
    try:
        written = config.toml(value)
        tomllib.loads(f"value = {written}")  # JSON has more: objects, null, infinity.
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"a setting must be a number, text or a list, got {value!r}") from error
    return written
