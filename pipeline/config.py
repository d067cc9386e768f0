"""Settings from a TOML file and from `--set stage.name=value`, all mistakes in one line.

A TOML file has a table for each stage::

    [trainer]
    epochs = 3
"""

import difflib
import json
import os
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from components.errors import SettingsError, SkipstreamError
from components.names import encodable
from components.settings import (
    EvaluatorSettings,
    ExampleGenSettings,
    ExporterSettings,
    PusherSettings,
    StageSettings,
    StatisticsGenSettings,
    TrainerSettings,
    TransformSettings,
)
from pipeline import aliases

_TYPES = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a table",
    "string_type": "text",
    "tuple_type": "a list",
}
_LIMITS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


class Settings(StageSettings):
    """The settings of all stages, by the stage's name."""

    example_gen: ExampleGenSettings = ExampleGenSettings()
    transform: TransformSettings = TransformSettings()
    statistics_gen: StatisticsGenSettings = StatisticsGenSettings()
    trainer: TrainerSettings = TrainerSettings()
    exporter: ExporterSettings = ExporterSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    pusher: PusherSettings = PusherSettings()

    @model_validator(mode="after")
    def _ngrams_have_no_contexts(self) -> Self:
        if self.trainer.max_ngram and self.exporter.vectors != "target":
            raise ValueError(
                "exporter.vectors must be target with n-grams, which have no context vectors, got "
                f"{self.exporter.vectors}: leave it out, or trainer.max_ngram"
            )
        return self


def load(config: Path | None, overrides: Sequence[str] = (), input: Sequence[str] = ()) -> Settings:
    """Read settings; what is not mentioned keeps its default.

    Args:
        config: A TOML file.
        overrides: `stage.name=value`, later ones win. The value is TOML; what is not valid TOML
            is text, so words and paths need no quotes.
        input: File patterns of the corpus; they win over `example_gen.input`. Bytes that are not
            UTF-8 are escaped, as settings are text.

    Raises:
        SettingsError: A name is unknown, a value out of range, the file missing or not TOML.
        SkipstreamError: The file cannot be read.

    >>> load(None, ["trainer.epochs=3", "evaluator.word_pairs=ws353.tsv"]).evaluator.word_pairs
    ('ws353.tsv',)
    >>> load(None, ["trainer.window=0"])
    Traceback (most recent call last):
    components.errors.SettingsError: trainer.window must be at least 1, got 0
    """
    tree = _read(config) if config else {}
    given: dict[str, str] = {}
    for place, override in enumerate(overrides):
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise SettingsError(_no_override(override, *overrides[place + 1 : place + 2]))
        if encodable(override) != override:
            raise SettingsError(
                f"--set takes text in UTF-8, got {override}: rename the file or directory"
            )
        given[name.strip()] = text
        _put(tree, name.strip(), _parse(text))
    if input:
        _put(tree, "example_gen.input", list(map(encodable, input)))
    for name, field in fields():
        _spell_out(tree, name, field)
    try:
        written = json.dumps(tree, default=str)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"settings must be numbers, texts and lists, got one that cannot be written: {error}"
        ) from error
    try:
        # JSON's strict mode is the one that takes a list for a tuple, yet no "3" for 3.
        return Settings.model_validate_json(written, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # An unknown name comes first: it often explains the rest.
        details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
        raise SettingsError("; ".join(_explain(detail, given) for detail in details)) from error


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting's full name, such as "trainer.window", with its definition."""
    for stage, table in Settings.model_fields.items():
        settings = table.annotation
        if isinstance(settings, type) and issubclass(settings, StageSettings):
            for name, field in settings.model_fields.items():
                yield f"{stage}.{name}", field


def meant(name: str) -> str | None:
    """The setting, or the option of `run`, that a user means by `name`; None if nobody knows.

    >>> meant("min-count"), meant("trainer.minCount"), meant("vector_size"), meant("corpus_file")
    ('transform.min_count', 'transform.min_count', 'trainer.dimensions', '--input')
    """
    key = aliases.normal(name.rpartition(".")[2])
    ours = {aliases.normal(full.partition(".")[2]): full for full, _ in fields()}
    return ours.get(key) or aliases.HERE.get(key)


def absent(name: str) -> str | None:
    """Why there is no setting of a name that other programs know; None if none of them does.

    >>> absent("hs")
    'skip-gram with negative sampling is the only model: leave it out'
    """
    why = aliases.NOT_HERE.get(aliases.normal(name.rpartition(".")[2]))
    return why and f"{why}: leave it out"


def close(name: str) -> str:
    """What a misspelt setting could be.

    >>> close("windw"), close("q.zzzz")
    ("did you mean 'trainer.window'?", "see 'skipstream settings'")
    """
    found = closest(name)
    return f"did you mean '{found}'?" if found else "see 'skipstream settings'"


def closest(name: str) -> str | None:
    """The setting whose name is spelled nearly like `name`, which may lack the stage."""
    known = {full: full for full, _ in fields()}
    # A stage that was left out: "window" means "trainer.window".
    known |= {full.partition(".")[2]: full for full in known}
    found = difflib.get_close_matches(name, known, n=1)
    return known[found[0]] if found else None


# What a setting cannot be without.
_WITH = {
    "trainer.min_ngram": ["trainer.max_ngram=20"],
    "trainer.max_ngram": ["trainer.min_ngram=1"],
}


def override(setting: str, text: str) -> str:
    """`text`, the value that somebody gave to `setting` under another name, as --set takes it.

    Raises:
        SettingsError: The setting cannot have it.

    >>> override("transform.lowercase", "False"), override("trainer.epochs", "3")
    ('transform.lowercase=false', 'trainer.epochs=3')
    """
    written = f"{setting}={text.lower() if text in ('True', 'False', 'None') else text}"
    partner = _WITH.get(setting, []) if text.strip() != "0" else []
    load(None, [written, *partner])
    return written


def template(settings: Settings) -> str:
    """`settings` as a TOML file that `load` takes, each with its meaning and its range."""
    lines = []
    written = ""
    for name, field in fields():
        stage, _, key = name.partition(".")
        if stage != written:
            lines += ["", f"[{stage}]"] if written else [f"[{stage}]"]
            written = stage
        note = " ".join(part for part in (field.description or "", _range(field)) if part)
        lines += textwrap.wrap(note, 100, initial_indent="# ", subsequent_indent="# ")
        value = getattr(getattr(settings, stage), key)
        if value is None and field.default is None:
            lines.append(f"# {key} =")
        else:
            lines.append(f"{key} = {toml('none' if value is None else value)}")
    return "\n".join(lines) + "\n"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names of the settings, as `model_dump` has them, that differ.

    >>> differences({"trainer": {"epochs": 5, "seed": 1}}, {"trainer": {"epochs": 3, "seed": 1}})
    ['trainer.epochs (5, now 3)']
    """
    return [
        f"{stage}.{name} ({json.dumps(before)}, now {json.dumps(value)})"
        for stage, table in new.items()
        for name, value in table.items()
        if (before := old.get(stage, {}).get(name)) != value
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"config file {path} does not exist") from error
    except OSError as error:
        raise SkipstreamError(f"config file {path} is not readable: {error.strerror}") from error
    except RecursionError as error:
        raise SettingsError(f"config file {path} is nested too deeply: write it flat") from error
    except ValueError as error:  # Not TOML, not UTF-8, thousands of digits.
        raise SettingsError(f"config file {path} is not TOML: {error}") from error


def _parse(text: str) -> Any:
    """A TOML value, or the text itself.

    >>> _parse("1e-4"), _parse(".05"), _parse("[1, 2]"), _parse("words"), _parse("./a*.txt")
    (0.0001, 0.05, [1, 2], 'words', './a*.txt')
    """
    complete = re.sub(r"^([+-]?)(?=\.\d)", r"\g<1>0", text.strip())  # TOML has no bare ".05".
    try:
        parsed = tomllib.loads(f"value = {complete}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    stage, dot, key = name.partition(".")
    if not dot:
        tree[stage] = value
    elif isinstance(table := tree.setdefault(stage, {}), dict):  # Else validation complains.
        table[key] = value


def toml(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    r"""JSON's numbers, strings, lists and booleans are TOML's, too, but for escaped emoji and DEL.

    Args:
        value: What is written.
        default: What makes a value of what JSON has not; none: that is an error.

    >>> print(toml(["é", "\x7f", 0.5, True]))
    ["é", "\u007f", 0.5, true]
    """
    return json.dumps(value, ensure_ascii=False, default=default).replace("\x7f", "\\u007f")


def _spell_out(tree: dict[str, Any], name: str, field: FieldInfo) -> None:
    """Let one text stand for a list of it, and "none" for no value, which TOML cannot say."""
    stage, _, key = name.partition(".")
    table = tree.get(stage)
    if isinstance(table, dict) and isinstance(value := table.get(key), str):
        if get_origin(field.annotation) is tuple:
            table[key] = [value]
        elif type(None) in get_args(field.annotation) and value.lower() == "none":
            table[key] = None


def _no_override(text: str, after: str = "") -> str:
    """What is wrong with a word behind --set, given the one after it."""
    hint = ""
    if os.path.exists(text):
        hint = f": files are given with --input {shlex.quote(text)}"
    elif after and "=" not in text + after:
        hint = f": write {shlex.quote(f'{meant(text) or text}={after}')}"
    return f"--set takes stage.name=value, got {text!r}{hint}"


def _explain(detail: ErrorDetails, given: Mapping[str, str]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = ".".join(str(part) for part in detail["loc"])
    if kind == "extra_forbidden":
        names = {name: value}
        if isinstance(value, dict) and value and name not in given:
            # Of a misspelt table, what it holds helps to guess.
            names = {f"{name}.{key}": inner for key, inner in value.items()}
        return "; ".join(_unknown(full, found, given.get(full)) for full, found in names.items())
    if kind == "string_too_short":
        return f"{name} must not be empty"
    if kind == "value_error":  # Of several settings together: says all itself.
        return str(context["error"])
    rule = context["expected"] if kind == "literal_error" else _TYPES.get(kind)
    for limit in _LIMITS.keys() & context:
        rule = f"{_LIMITS[limit]} {context[limit]:.10g}"
    said = f"{name} must be {rule}" if rule else f"{name}: {detail['msg']}"
    return f"{said}, got {value!r}"


def _unknown(name: str, value: Any, text: str | None) -> str:
    """What an unknown setting may be here.

    Args:
        name: It.
        value: Its value.
        text: The same, as it stands behind --set; None: it is in a file.
    """
    if (found := meant(name)) is None:
        hint = absent(name) or close(name)
    elif text is None:
        found = "example_gen.input" if found == "--input" else found
        stage, dot, key = found.partition(".")
        file = f"write {key} = {toml(value, str)} below [{stage}]"
        hint = file if dot else f"give {found} on the command line"
    elif found.startswith("--"):
        hint = f"use {found} {shlex.quote(text)}"
    else:
        try:
            hint = f"use --set {shlex.quote(override(found, text))}"
        except SettingsError as error:  # That it has another name is the smaller mistake.
            hint = str(error)
    return f"unknown setting '{name}': {hint}"


def _range(field: FieldInfo) -> str:
    """The values that a setting takes, for a reader.

    >>> _range(dict(fields())["trainer.sample"])
    '(at least 0, at most 1)'
    """
    limits = [
        f"{words} {getattr(constraint, limit):.10g}"
        for constraint in field.metadata
        for limit, words in _LIMITS.items()
        if hasattr(constraint, limit)
    ]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    text = ", ".join(limits) or ", ".join(map(str, choices))
    return f"({text})" if text else ""
