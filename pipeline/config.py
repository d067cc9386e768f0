"""Settings from a TOML file and from `--set stage.name=value`, all mistakes in one line.

A TOML file has a table for each stage::

    [trainer]
    epochs = 3
"""

import difflib
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
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
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


class Settings(StageSettings):
    """The settings of all stages, by the stage's name."""

    example_gen: ExampleGenSettings = ExampleGenSettings()
    transform: TransformSettings = TransformSettings()
    statistics_gen: StatisticsGenSettings = StatisticsGenSettings()
    trainer: TrainerSettings = TrainerSettings()
    exporter: ExporterSettings = ExporterSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    pusher: PusherSettings = PusherSettings()


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
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(f"--set takes stage.name=value, got {override!r}")
        if encodable(override) != override:
            raise SettingsError(
                f"--set takes text in UTF-8, got {override}: rename the file or directory"
            )
        _put(tree, name.strip(), _parse(text))
    if input:
        _put(tree, "example_gen.input", list(map(encodable, input)))
    for name, field in fields():
        _spell_out(tree, name, field)
    try:
        # JSON's strict mode is the one that takes a list for a tuple, yet no "3" for 3.
        return Settings.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # An unknown name comes first: it often explains the rest.
        details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
        raise SettingsError("; ".join(_explain(detail) for detail in details)) from error


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting's full name, such as "trainer.window", with its definition."""
    for stage, table in Settings.model_fields.items():
        settings = table.annotation
        if isinstance(settings, type) and issubclass(settings, StageSettings):
            for name, field in settings.model_fields.items():
                yield f"{stage}.{name}", field


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
        lines.append(f"# {key} =" if value is None else f"{key} = {_toml(value)}")
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {path} is not TOML: {error}") from error


def _parse(text: str) -> Any:
    """A TOML value, or the text itself.

    >>> _parse("1e-4"), _parse(".05"), _parse("[1, 2]"), _parse("words"), _parse("./a*.txt")
    (0.0001, 0.05, [1, 2], 'words', './a*.txt')
    """
    complete = re.sub(r"^([+-]?)(?=\.\d)", r"\g<1>0", text.strip())  # TOML has no bare ".05".
    try:
        parsed = tomllib.loads(f"value = {complete}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    stage, dot, key = name.partition(".")
    if not dot:
        tree[stage] = value
    elif isinstance(table := tree.setdefault(stage, {}), dict):  # Else validation complains.
        table[key] = value


def _toml(value: Any) -> str:
    """JSON's numbers, strings, lists and booleans are TOML's, too, but for escaped emoji."""
    return json.dumps(value, ensure_ascii=False)


def _spell_out(tree: dict[str, Any], name: str, field: FieldInfo) -> None:
    """Let one text stand for a list of it, and "none" for no value, which TOML cannot say."""
    stage, _, key = name.partition(".")
    table = tree.get(stage)
    if isinstance(table, dict) and isinstance(value := table.get(key), str):
        if get_origin(field.annotation) is tuple:
            table[key] = [value]
        elif type(None) in get_args(field.annotation) and value.lower() == "none":
            table[key] = None


def _explain(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = ".".join(str(part) for part in detail["loc"])
    if kind == "extra_forbidden":
        return _unknown(name, value)
    if kind in _TYPES:
        rule = _TYPES[kind]
    elif kind in _LIMITS:
        words, key = _LIMITS[kind]
        rule = f"{words} {context[key]:.10g}"
    elif kind == "literal_error":
        rule = context["expected"]
    elif kind == "string_too_short":
        return f"{name} must not be empty"
    else:
        return f"{name}: {detail['msg']}, got {value!r}"
    return f"{name} must be {rule}, got {value!r}"


def _unknown(name: str, value: Any) -> str:
    if isinstance(value, dict) and value:  # A misspelt table: its first key helps to guess.
        name = f"{name}.{next(iter(value))}"
    known = {full: full for full, _ in fields()}
    # A stage that was left out: "window" means "trainer.window".
    known |= {full.partition(".")[2]: full for full in known}
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{known[close[0]]}'?" if close else "see 'skipstream settings'"
    return f"unknown setting '{name}': {hint}"


def _range(field: FieldInfo) -> str:
    """The values that a setting takes, for a reader.

    >>> _range(dict(fields())["trainer.sample"])
    '(at least 0, at most 1)'
    """
    limits = []
    for limit in field.metadata:
        if isinstance(limit, Ge):
            limits.append(f"at least {limit.ge:.10g}")
        elif isinstance(limit, Gt):
            limits.append(f"more than {limit.gt:.10g}")
        elif isinstance(limit, Le):
            limits.append(f"at most {limit.le:.10g}")
        elif isinstance(limit, Lt):
            limits.append(f"less than {limit.lt:.10g}")
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    text = ", ".join(limits) or ", ".join(map(str, choices))
    return f"({text})" if text else ""
