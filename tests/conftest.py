"""What tests of several modules need."""

import gc
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute  # noqa: F401 - before TensorFlow, whose RE2 it would use: see test_served
import pytest
import stores
from commands import Command, probe_in_this_process
from hypothesis import HealthCheck, settings

from components import lean_keras, threads
from pipeline import cache, cli

# As the command does.
gc.set_threshold(100_000)
lean_keras.install()
# Processes of tests run beside each other, and XLA compiles a program once for each thread.
threads.limit(1)

# A shell ignores Ctrl-C for what it starts in the background, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What Hypothesis draws for the tests of properties: in the suite, each time the same.
settings.register_profile(
    "suite",
    max_examples=200,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For campaigns."""
    parser.addoption(
        "--examples", type=int, help="inputs of each property, drawn anew (default: 200, the same)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw as many inputs as are asked for."""
    if number := config.getoption("--examples", None):
        settings.register_profile("campaign", max_examples=number, derandomize=False)
        settings.load_profile("campaign")


# These start first, so that no process is busy with one of them after the others are done.
LONGEST = (
    "test_cluster.py",
    "test_docs.py",
    "test_end_to_end.py",
    "test_face.py",
    "test_gate.py",
    "test_infra_validator.py",
    "test_interruptions.py",
    "test_transform.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files in front."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tests have their copies of what lies in buckets: never in the user's cache."""
    root = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(cache.DIRECTORY, str(root / "shared"))  # Of fixtures for many tests.
        yield root


@pytest.fixture(autouse=True)
def cache_directory(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test; buckets in memory have the same address in all of them."""
    directory = caches / secrets.token_hex(8)
    monkeypatch.setenv(cache.DIRECTORY, str(directory))
    return directory


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `corpora/` and `eval/`: SKIPSTREAM_SHARED, or ../shared of the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("SKIPSTREAM_SHARED", default))
    if not (path / "corpora").is_dir():
        pytest.skip(f"no corpora in {path}: set SKIPSTREAM_SHARED to the folder that has them")
    return path


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """`skipstream ARGUMENTS` in the process of the test, where TensorFlow and Beam are loaded.

    That takes seconds less than a process of its own, which `commands.skipstream` starts.
    """

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()  # What came before.
        code = cli.run(list(map(str, arguments)))
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture
def probe_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The InfraValidator's probe runs in the process of the test, which has TensorFlow loaded."""
    probe_in_this_process(monkeypatch)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[stores.Server]:
    """An S3 server of this process."""
    with stores.s3() as server:
        yield server


@pytest.fixture(scope="session")
def gs_server() -> Iterator[stores.Server]:
    """A Cloud Storage server of this process."""
    with stores.gs() as server:
        yield server


@pytest.fixture
def s3(s3_server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> stores.Bucket:
    """An empty S3 bucket, which the environment leads to."""
    return _reach(s3_server.bucket(), monkeypatch)


@pytest.fixture
def gs(gs_server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> stores.Bucket:
    """An empty bucket of Cloud Storage, which the environment leads to."""
    return _reach(gs_server.bucket(), monkeypatch)


def _reach(bucket: stores.Bucket, monkeypatch: pytest.MonkeyPatch) -> stores.Bucket:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket
