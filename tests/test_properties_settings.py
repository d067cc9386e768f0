"""Settings that Hypothesis made up: they load, or are refused in one line at once."""

import contextlib
import io
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

OVERRIDES = st.lists(
    st.builds(
        "{}{}{}".format,
        strategies.setting_names(),
        st.sampled_from(["=", "=", "=", "=", " = ", "", ":"]),
        strategies.written_values(),
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
    st.sampled_from([name.partition(".")[2] for name in strategies.NAMES]),
    strategies.written_values(),
    max_size=3,
)
CONFIG = st.one_of(
    st.dictionaries(
        st.sampled_from([name.partition(".")[0] for name in strategies.NAMES]), TABLE
    ).map(
        lambda tables: "".join(
            f"[{stage}]\n" + "".join(f"{name} = {value}\n" for name, value in table.items())
            for stage, table in tables.items()
        )
    ),
    strategies.texts(),
    strategies.written_values().map("trainer = {}".format),
)


@given(
    content=st.one_of(CONFIG.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())
)
def test_any_file_is_taken_or_refused_in_a_line(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    with refused_or_not():
        config.load(toml)


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
    settings=st.dictionaries(
        strategies.setting_names(), st.one_of(strategies.setting_values(), ODD_OBJECTS), max_size=3
    )
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
