"""The candidate in the model server: a stand-in with its interfaces, and the real one if there."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serving_stand_in import program
from test_infra_validator import Run, tokens, vectors

from components.artifacts import ExportedModel
from components.errors import NotBlessedError, SkipstreamError
from components.infra_validator import model_server


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ExportedModel]:
    run = Run(tmp_path_factory.mktemp("run")).train(tokens(), vectors())
    return run, run.export()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the test writes the script that is the server."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = tmp_path / model_server.BINARY
    path.touch(0o755)
    return path


@pytest.mark.usefixtures("probe_here")
def test_a_server_on_the_path_is_asked_everything(
    trained: tuple[Run, ExportedModel], installed: Path
) -> None:
    run, exported = trained
    with program(installed):
        run.validate(exported)
    assert (run.report["model_server"], run.report["differences"]) == (str(installed), [])


@pytest.mark.usefixtures("probe_here")
def test_a_server_that_answers_otherwise_refuses_the_candidate(
    trained: tuple[Run, ExportedModel], installed: Path, tmp_path: Path
) -> None:
    run, exported = trained
    table = vectors()
    table[7, 3] = np.nextafter(table[7, 3], np.float32(9))
    other = Run(tmp_path / "other").train(tokens(), table).export()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "1").symlink_to(other.saved_model)
    answer = r"tensorflow_model_server: serving_default of 200 tokens: embedding\[7, 3\] must be "
    served_models = f"--model_base_path={tmp_path / 'models'}"
    with program(installed, served_models), pytest.raises(NotBlessedError, match=answer):
        run.validate(exported)
    assert run.report["blessed"] is False


def test_a_server_that_does_not_load_the_candidate_refuses_it(
    trained: tuple[Run, ExportedModel], installed: Path, tmp_path: Path
) -> None:
    installed.write_text("#!/bin/sh\necho 'Op type not registered'\nexit 1\n")
    (tmp_path / "scratch").mkdir()
    answers = model_server.ask(installed, trained[1].saved_model, [], tmp_path / "scratch")
    message = r"must load .* ended with code 1 \(Op type not registered\)"
    with pytest.raises(NotBlessedError, match=message):
        list(answers)


def test_a_server_that_does_not_answer_refuses_the_candidate(
    trained: tuple[Run, ExportedModel], installed: Path, tmp_path: Path
) -> None:
    case: Any = SimpleNamespace(
        name="a word", signature="serving_default", inputs={"words": ["the"]}
    )
    (tmp_path / "scratch").mkdir()
    message = r"serving_default of a word gave NOT_FOUND \(no model candidate\)"
    with (
        program(installed, "--model_name=another"),
        pytest.raises(NotBlessedError, match=message),
    ):
        list(model_server.ask(installed, trained[1].saved_model, [case], tmp_path / "scratch"))


@pytest.mark.parametrize(
    ("server", "said"),
    [("kill -9 $$", "ended with code -9"), ("exit 1", "ended with code 1"), ("sleep 9", "did not")],
    ids=["killed", "port taken", "slow"],
)
def test_a_machine_at_fault_refuses_nothing(
    trained: tuple[Run, ExportedModel],
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    said: str,
) -> None:
    installed.write_text(f"#!/bin/sh\nexec 2>&1; {server}\n")
    monkeypatch.setattr(model_server, "START_SECONDS", 1)
    (tmp_path / "scratch").mkdir()
    with socket.create_server(("localhost", 0)) as taken:
        if server == "exit 1":
            port = taken.getsockname()[1]
            monkeypatch.setattr(model_server, "_free_port", lambda: port)
        answers = model_server.ask(installed, trained[1].saved_model, [], tmp_path / "scratch")
        with pytest.raises(SkipstreamError, match=f"it {said} .*validate again") as caught:
            list(answers)
    assert caught.value.exit_code == 1


def test_another_server_asks_for_another_validation(installed: Path) -> None:
    installed.write_text("one")
    first = model_server.stamp()
    installed.write_text("another")
    assert first != model_server.stamp()
    installed.unlink()
    if not shutil.which(model_server.BINARY):
        assert model_server.stamp() is None


def test_the_real_server_answers_as_the_tables_say(trained: tuple[Run, ExportedModel]) -> None:
    if not shutil.which(model_server.BINARY):
        pytest.skip(f"no {model_server.BINARY} on the PATH: TensorFlow Serving's image has it")
    run, exported = trained
    run.validate(exported)
    assert run.report["model_server"]
