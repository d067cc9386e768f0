"""deploy/airflow in a real Airflow: its own environment, SQLite, mails to a server on loopback.

`make schedulers` installs that environment below build/airflow; without it the tests are skipped.
"""

import email
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from commands import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "build" / "airflow" / "bin"
DAG = "skipstream_nightly"
STAGES = ["transform", "train", "evaluate", "validate", "push"]
# Runs the DAG in its own process, once for each CASE, and says how that ended. Airflow 3.3.2 cannot
# end a `dag.test()` of a DAG with deadlines: they are tested by the scheduler.
TEST = f"""
import json, os, sys
from {DAG} import dag
dag.deadline = None
ends = []
for os.environ["CASE"] in sys.argv[2:]:
    run = dag.test()
    found = run.get_task_instances()
    tasks = {{task.task_id: [str(task.state), task.try_number] for task in found}}
    ends.append([run.run_id, run.state, tasks])
json.dump(ends, open(sys.argv[1], "w"))
"""
# Notes what it is called with, and exits with the next code in the file of the stage's name.
STAND_IN = """#!/bin/sh
cd "$CASE"
echo "$@" >> calls
code=$(sed -n 1p "$1")
sed -i 1d "$1"
echo "$1 says ${code:=0}"
exit $code
"""


class Mails:
    """A mail server that keeps the subjects."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=default)
        self.subjects.append(f"{','.join(envelope.rcpt_tos)}: {message['Subject']}")
        return "250 OK"


@pytest.fixture
def mails() -> Iterator[tuple[Mails, int]]:
    sink, port = Mails(), free_port()
    server = Controller(sink, hostname="127.0.0.1", port=port)
    server.start()
    yield sink, port
    server.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new one, with all tables."""
    if not (BIN / "airflow").exists():
        pytest.skip(f"no Airflow in {BIN}: `make schedulers` installs it")
    home = tmp_path_factory.mktemp("home")
    call("airflow", "db", "migrate", env={**os.environ, "AIRFLOW_HOME": str(home)})
    return home / "airflow.db"


@pytest.fixture
def environment(tmp_path: Path, mails: tuple[Mails, int], database: Path) -> dict[str, str]:
    """What Airflow finds in its environment: a new home, our DAG, our mail server."""
    home = tmp_path / "airflow"
    home.mkdir()
    shutil.copy(database, home)
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mails[1]}
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "deploy" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(
            mail | {"extra": {"disable_ssl": True, "disable_tls": True}}
        ),
        "SKIPSTREAM_ALERTS": "nightly@example.org",
        "SKIPSTREAM_RETRY_SECONDS": "0",
        "SKIPSTREAM_OUTPUT": str(tmp_path / "out"),
        "SKIPSTREAM_CONFIG": str(tmp_path / "settings.toml"),
    }


def call(command: str, *arguments: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        [BIN / command, *arguments], capture_output=True, text=True, timeout=600, env=env
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run_dag(
    environment: dict[str, str], out: Path, *cases: Path | str
) -> list[tuple[str, str, dict[str, list[Any]]]]:
    """Of one run for each case: its id, its state, and each task's state and number of tries."""
    path = {"PYTHONPATH": environment["AIRFLOW__CORE__DAGS_FOLDER"]}
    call("python", "-c", TEST, str(out), *map(str, cases), env=environment | path)
    ends: list[tuple[str, str, dict[str, list[Any]]]] = json.loads(out.read_text())
    return ends


def test_exit_codes_lead_where_the_runbook_says(
    environment: dict[str, str], mails: tuple[Mails, int], tmp_path: Path
) -> None:
    stand_in = tmp_path / "skipstream"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    codes = [{"transform": "1", "evaluate": "3"}, {"push": "3"}, {"train": "2"}]
    cases = [tmp_path / f"case-{number}" for number in range(len(codes))]
    for case, given in zip(cases, codes, strict=True):
        case.mkdir()
        for stage in STAGES:
            (case / stage).write_text(given.get(stage, "") + "\n")
    more = {"SKIPSTREAM_COMMAND": str(stand_in), "SKIPSTREAM_BEAM_OPTIONS": "--runner='a b' -x"}
    again, refused, wrong = run_dag(environment | more, tmp_path / "ends.json", *cases)

    assert again[1:] == [
        "success",
        {
            "transform": ["success", 2],  # A failure is tried again,
            "train": ["success", 1],
            "evaluate": ["success", 1],  # a refusal is none.
            "validate": ["skipped", 0],
            "push": ["skipped", 0],
            "not_pushed": ["success", 1],
        },
    ]
    assert refused[1:] == [
        "success",
        {stage: ["success", 1] for stage in [*STAGES, "not_pushed"]},
    ]
    assert (
        wrong[1:]
        == [
            "failed",
            {
                "transform": ["success", 1],
                "train": ["failed", 1],  # Wrong usage is not tried again.
                **{stage: ["upstream_failed", 0] for stage in [*STAGES[2:], "not_pushed"]},
            },
        ]
    )
    called = [["transform", "transform", "train", "evaluate"], STAGES, ["transform", "train"]]
    for case, stages, (run_id, *_) in zip(cases, called, (again, refused, wrong), strict=True):
        same = f"--config {tmp_path}/settings.toml --output {tmp_path}/out --run-id {run_id}"
        assert (case / "calls").read_text().splitlines() == [
            f"{stage} {same}" + (" -- --runner=a b -x" if stage == "transform" else "")
            for stage in stages
        ]
    # A notifier renders itself only once: in this one process, the second mail repeats the reason.
    kept = "nightly@example.org: skipstream: nothing was pushed: evaluate says 3"
    failed = f"nightly@example.org: skipstream: train of {wrong[0]} failed"
    assert mails[0].subjects == [kept, kept, failed]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A corpus of two topics, and settings that train on it in seconds."""
    corpus = tmp_path / "corpus.txt"
    lines = ["the cat sat on the mat with the dog", "a king and a queen ruled the land"]
    corpus.write_text("".join(f"{lines[i % 2]} {i % 7}\n" for i in range(400)))
    path = tmp_path / "settings.toml"
    path.write_text(
        f'[example_gen]\ninput = ["{corpus}"]\neval_share = 0.1\n'
        "[trainer]\ndimensions = 8\nsample = 0\nepochs = 40\n"
    )
    return path


class Api:
    """Airflow's REST API, as the administrator."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._headers = {"Content-Type": "application/json"}

    def __call__(self, path: str, method: str = "GET", body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            self._address + path, data=data, headers=self._headers, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def sign_in(self) -> str:
        token: str = self("/auth/token")["access_token"]
        self._headers["Authorization"] = f"Bearer {token}"
        return token


@contextmanager
def standalone(environment: dict[str, str], log: Path) -> Iterator[None]:
    """Scheduler, DAG processor, API server and triggerer, while the block runs."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [BIN / "airflow", "standalone"], env=environment, stdout=file, stderr=file
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)  # It ends the others.
        process.wait(60)


def eventually(ask: Callable[[], Any], seconds: int, log: Path) -> Any:
    """What `ask` returns, once that is neither nothing nor an HTTP error."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := ask():
                return found
        except urllib.error.URLError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-5000:])


def test_the_stages_run_by_hand_and_by_the_scheduler(
    environment: dict[str, str], mails: tuple[Mails, int], settings: Path, tmp_path: Path
) -> None:
    environment["SKIPSTREAM_COMMAND"] = str(Path(sys.executable).with_name("skipstream"))
    ((run_id, state, tasks),) = run_dag(environment, tmp_path / "ends.json", "the corpus")
    assert state == "success", tasks
    assert tasks.pop("not_pushed") == ["skipped", 0]
    assert tasks == {stage: ["success", 1] for stage in STAGES}
    out = tmp_path / "out"
    assert json.loads((out / "serving" / ".versions" / "1.json").read_text())["run_id"] == run_id
    assert mails[0].subjects == []

    # The night after, no model is good enough, and the run is late as soon as it has begun.
    with settings.open("a") as file:
        file.write("[evaluator]\nmax_loss = 1e-9\n")
    port = free_port()
    address = f"http://localhost:{port}"
    environment |= {
        "SKIPSTREAM_DEADLINE_HOURS": "0.0001",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    log, api = tmp_path / "standalone.log", Api(address)
    with standalone(environment, log):
        eventually(api.sign_in, 180, log)
        eventually(lambda: api(f"/api/v2/dags/{DAG}"), 120, log)
        # The scheduler begins with the night before.
        api(f"/api/v2/dags/{DAG}", "PATCH", {"is_paused": False})
        runs = f"/api/v2/dags/{DAG}/dagRuns"
        ended = f"{runs}?run_type=scheduled&state=success&state=failed"
        (run,) = eventually(lambda: api(ended)["dag_runs"], 300, log)
        late = r"skipstream: the run takes more than 0:00:00\.36"
        eventually(lambda: any(re.search(late, text) for text in mails[0].subjects), 60, log)
        found = api(f"{runs}/{run['dag_run_id']}/taskInstances")["task_instances"]
    assert {task["task_id"]: task["state"] for task in found} == {
        **{stage: "success" for stage in STAGES[:3]},
        **{stage: "skipped" for stage in STAGES[3:]},
        "not_pushed": "success",
    }
    (kept,) = [text for text in mails[0].subjects if "nothing was pushed" in text]
    assert re.search(r"skipstream: error: the evaluation refused the model: .*max_loss", kept)
    assert [path.name for path in (out / "serving").glob("[0-9]*")] == ["1"]
