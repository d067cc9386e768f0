"""`skipstream.train` and `skipstream.load`."""

import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from components.errors import SettingsError
from components.exporter.embeddings import Embeddings
from pipeline import child, config, documents
from pipeline.commands import places

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
    address = os.fspath(model)
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
        negatives: Noise words that each pair is worth.
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
    elif settings is not None:
        toml = Path(settings)
    patterns = _patterns(input)
    return _run(os.fspath(output), patterns, documents, toml, overrides, progress)


def _run(
    output: str,
    patterns: Sequence[str],
    texts: Iterable[str] | None,
    toml: Path | None,
    overrides: Mapping[str, Any],
    progress: bool,
) -> Embeddings:
    words = [f"{name}={_written(value)}" for name, value in overrides.items()]
    config.load(toml, words, patterns)  # A mistake is told before anything starts.
    directory = None
    if texts is not None:
        if patterns or "example_gen.input" in overrides:
            raise SettingsError(
                "input and documents are two corpora, got both: leave one of them out"
            )
        directory = documents.write(texts, output)
        patterns = [documents.pattern(directory)]
        words += ["example_gen.format=jsonl", "example_gen.field=text"]
    command = ["run", "--output", output]
    command += ["--config", str(toml)] if toml else []
    command += ["--input", *patterns] if patterns else []
    command += ["--set", *words] if words else []
    made = child.run(command, progress=progress)
    if directory:
        documents.forget_others(directory)
    return load(made)


def _patterns(input: Address | Sequence[Address]) -> list[str]:
    several = [input] if isinstance(input, str | os.PathLike) else list(input)
    for place, pattern in enumerate(several):
        if not isinstance(pattern, str | os.PathLike):
            raise SettingsError(
                f"input takes file patterns, got {type(pattern).__name__} at place {place}: texts "
                "themselves are given as documents="
            )
    return [os.fspath(pattern) for pattern in several]


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
        others = ", ".join(f'settings={{"{full}": …}}' for full in fulls)
        raise SettingsError(f"keyword {keyword!r} could be one of two settings: write {others}")
    meant = config.meant(keyword)
    if meant in _OPTIONS:
        hint = _OPTIONS[meant]
    elif meant:
        hint = f"{_keyword(meant)} is meant"
    else:
        hint = config.absent(keyword) or config.close(keyword)
    raise SettingsError(f"train has no keyword {keyword!r}: {hint}")


def _keyword(full: str) -> str:
    name = full.partition(".")[2]
    times = Counter(other.partition(".")[2] for other, _ in config.fields())
    return name if times[name] == 1 else f'settings={{"{full}": …}}'


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by full names; a stage may have a table, too.

    >>> _flat({"trainer": {"epochs": 3}, "transform.min_count": 2})
    {'trainer.epochs': 3, 'transform.min_count': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


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
