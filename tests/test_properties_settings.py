"""Settings that Hypothesis made up: they load, or are refused in one line at once."""

import contextlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies
from hypothesis import event, given
from hypothesis import strategies as st

from components.errors import SkipstreamError
from pipeline import cli, config, face

NAMES = [name for name, _ in config.fields()]
_ODD_NAMES = (
    "trainer",
    "transform.",
    ".window",
    "windw",
    "trainer.windw",
    "a.b.c",
    "trainer.window.x",
    "vector_size",
    "trainer.hs",
    "input",
    "sg",
    "TRAINER.WINDOW",
    " trainer.window ",
)


def setting_names() -> st.SearchStrategy[str]:
    """Mostly those that there are."""
    known = st.sampled_from(NAMES)
    return st.one_of(known, known, known, st.sampled_from(_ODD_NAMES), strategies.texts(max_size=8))


def setting_values() -> st.SearchStrategy[Any]:
    """What a setting may be given, right and wrong, as JSON has it."""
    number = st.one_of(st.integers(0, 9), st.integers(), st.floats(), st.floats(0, 1))
    word = st.sampled_from(
        ["none", "auto", "jsonl", "fail", "skip", "words", "whitespace", "latest", "int8", "true"]
    )
    one = st.one_of(number, st.booleans(), word, strategies.texts(max_size=8), st.just("\x7f"))
    return st.one_of(one, one, st.none(), st.lists(one, max_size=3))


def written_values() -> st.SearchStrategy[str]:
    """What may stand behind the equals sign of --set."""
    depth = st.sampled_from([1, 50, 5000])
    odd = [
        "'", '"', "[", "{", "'''", "1979-05-27", "07:32:00", "9" * 5000, "0x" + "f" * 5000, "0x1F",
        "1_000", "1e999", "-inf", "nan", ".5", "+.5", "-1", "5,3", "--", "a = 1", "[1, 2", "{a=1}",
        "1\nwindow = 3", "\ud800",
    ]  # fmt: skip
    return st.one_of(
        setting_values().map(lambda value: json.dumps(value, ensure_ascii=False)),
        strategies.texts(max_size=12),
        st.sampled_from(odd),
        depth.map(lambda deep: "[" * deep + "]" * deep),
        depth.map(lambda deep: "{a=" * deep + "1" + "}" * deep),
    )


OVERRIDES = st.lists(
    st.builds(
        "{}{}{}".format,
        setting_names(),
        st.sampled_from(["=", "=", "=", "=", " = ", "", ":"]),
        written_values(),
    ),
    min_size=1,
    max_size=3,
)


@contextlib.contextmanager
def refused_or_not() -> Iterator[None]:
    """Takes a refusal of one line, within a second."""
    started = time.process_time()
    try:
        yield
        event("taken")
    except SkipstreamError as error:
        event("refused")
        said = str(error)
        assert said
        assert len(said.splitlines()) == 1
    assert time.process_time() - started < 1


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "settings.toml"


@given(overrides=OVERRIDES)
def test_any_override_is_taken_or_refused_in_a_line(toml: Path, overrides: list[str]) -> None:
    with refused_or_not():
        settings = config.load(None, overrides)
        toml.write_text(config.template(settings), encoding="utf-8")
        assert config.load(toml) == settings


TABLE = st.dictionaries(
    st.sampled_from([name.partition(".")[2] for name in NAMES]),
    written_values(),
    max_size=3,
)
CONFIG = st.one_of(
    st.dictionaries(st.sampled_from([name.partition(".")[0] for name in NAMES]), TABLE).map(
        lambda tables: "".join(
            f"[{stage}]\n" + "".join(f"{name} = {value}\n" for name, value in table.items())
            for stage, table in tables.items()
        )
    ),
    strategies.texts(),
    written_values().map("trainer = {}".format),
)


@given(
    content=st.one_of(CONFIG.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())
)
def test_any_file_is_taken_or_refused_in_a_line(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    with refused_or_not():
        config.load(toml)


@strategies.examples(1 / 3)
@given(
    words=st.lists(
        st.one_of(
            OVERRIDES.map(lambda some: some[0]),
            strategies.texts(),
            st.sampled_from(
                [
                    "--",
                    "--set",
                    "--config",
                    "--input",
                    "-h.",
                    "-min-count",
                    "--epochs=3",
                    "-lr",
                    "0.1",
                    "x=1",
                ]
            ),
        ),
        max_size=4,
    )
)
def test_any_command_line_is_taken_or_refused_in_a_line(words: list[str]) -> None:
    out, errors = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = cli.run(["settings", "--set", *words])
        except SystemExit as ended:
            code = ended.code
    last = errors.getvalue().rstrip("\n").rpartition("\n")[2]
    assert code in (0, 1, 2)
    if code:
        event("refused")
        assert last.startswith("skipstream: error: ")
        assert "bug" not in last.partition("got")[0]
        assert "Traceback" not in errors.getvalue()
    assert time.process_time() - started < 1


class Started(Exception):
    """A training would begin now."""


@pytest.fixture(scope="module", autouse=True)
def no_training() -> Iterator[list[list[str]]]:
    commands: list[list[str]] = []

    def run(command: list[str], progress: bool) -> None:
        commands.append(command)
        raise Started

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face.child, "run", run)
        yield commands


ODD_OBJECTS = st.sampled_from(
    [
        b"x",
        {1, 2},
        np.int64(3),
        np.float32(0.5),
        np.zeros(3),
        1j,
        object,
        Path("a"),
        [Path("a")],
        {"a": 1},
    ]
)


@given(
    settings=st.dictionaries(setting_names(), st.one_of(setting_values(), ODD_OBJECTS), max_size=3)
)
def test_any_settings_of_train_are_taken_as_they_are_or_refused(
    no_training: list[list[str]], settings: dict[str, Any]
) -> None:
    with refused_or_not():
        try:
            face.train("a.txt", output="OUT", settings=settings, progress=False)
        except Started:
            command = no_training.pop()
            loaded = config.load(None, command[command.index("--set") + 1 :] if settings else [])
            for name, value in settings.items():
                stage, _, key = name.strip().partition(".")
                found = getattr(getattr(loaded, stage), key)
                if isinstance(value, str):
                    unset = value.lower() == "none" and found is None
                    assert found in (value, (value,)) or unset
                elif isinstance(value, bool | int | float):
                    assert found == value
