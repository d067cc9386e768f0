"""The wheel alone, away from the source: what a container image or a colleague installs."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def call(*command: object, **options: Any) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=240, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"
    call(*build, "--quiet", "--wheel-dir", directory, ROOT)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it, and the dependencies of this one by reference."""
    path = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", path)
    python = path / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--python", python
    call(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    # What such a file names is searched last, and its own .pth files, as of editable installs of
    # this source, are not read.
    (site,) = path.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return path


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    names = {name.partition("/")[0] for name in files if ".dist-info/" not in name}
    assert names == {"components", "pipeline", "skipstream"}
    assert {f"{name}/py.typed" for name in names} <= set(files)  # PEP 561: mypy reads the types.


def test_the_installed_command_runs_the_job_without_the_source(
    environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\nthe cat\n")
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    elsewhere: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {name: value for name, value in os.environ.items() if name not in hidden},
    }
    python = environment / "bin" / "python"
    for package in ("components", "pipeline", "skipstream"):
        found = call(python, "-c", f"import {package}; print({package}.__file__)", **elsewhere)
        assert Path(found).is_relative_to(environment)
    output = call(
        environment / "bin" / "skipstream",
        *("transform", "--input", "corpus.txt", "--output", "out"),
        *("--set", "transform.min_count=2"),
        **elsewhere,
    )
    examples = Path(output.splitlines()[-1])
    assert (examples / "vocabulary.tsv").read_text() == "the\t3\ncat\t2\n"
