"""deploy/: what cron and Kubeflow are given does what the runbook says; alarms, too."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli, metrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KUBEFLOW = ROOT / "build" / "kubeflow" / "bin" / "python"
OUT = "gs://BUCKET/skipstream"
STAGES = ["transform", "train", "evaluate", "validate", "push"]
# Exits with the next code of the file CODES.
STAND_IN = """#!/bin/sh
echo "$@" >> "$CODES.calls"
echo "something on the screen"
code=$(sed -n 1p "$CODES")
sed -i 1d "$CODES"
echo "skipstream: error: it says $code" >&2
exit $code
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `skipstream` exits with the codes that lie in tmp_path/codes."""
    (tmp_path / "skipstream").write_text(STAND_IN)
    (tmp_path / "skipstream").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CODES": str(tmp_path / "codes")}


def check_command(command: list[str]) -> None:
    """That skipstream takes the command line and its settings."""
    assert command[0] == "skipstream"
    arguments = cli._parse(command[1:])
    assert callable(arguments.command)


@pytest.mark.parametrize(
    ("codes", "tries", "ends_with", "told"),
    [
        ([0], 1, 0, []),
        ([143, 0], 2, 0, [143]),
        ([1, 1, 1], 3, 1, [1, 1, 1]),
        ([3], 1, 3, [3]),
        ([1, 2], 2, 2, [1, 2]),
    ],
)
def test_cron_tries_again_unless_that_is_no_use(
    stand_in: dict[str, str],
    tmp_path: Path,
    codes: list[int],
    tries: int,
    ends_with: int,
    told: list[int],
) -> None:
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    done = subprocess.run(
        [DEPLOY / "cron" / "nightly.sh"],
        env=stand_in
        | {"OUT": OUT, "SKIPSTREAM_HOME": str(tmp_path), "SKIPSTREAM_RETRY_SECONDS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (tmp_path / "codes.calls").read_text().splitlines()
    assert (done.returncode, len(calls), len(set(calls))) == (ends_with, tries, 1)
    check_command(["skipstream", *shlex.split(calls[0])])
    assert f" --output {OUT} " in calls[0]
    # cron mails what is printed: only what went wrong.
    run_id = calls[0].split()[-1]
    assert (done.stdout + done.stderr).splitlines() == [
        f"skipstream {run_id} exited with {code}: skipstream: error: it says {code}"
        for code in told
    ]
    assert (tmp_path / "nightly.log").read_text().count("something on the screen") == tries


def test_cron_s_script_wants_to_know_the_output(stand_in: dict[str, str]) -> None:
    script = DEPLOY / "cron" / "nightly.sh"
    done = subprocess.run([script], env=stand_in, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("OUT: must be a bucket and path, or a directory\n")


def test_the_crontab_has_an_output_and_five_times_a_user_and_a_command() -> None:
    lines = (DEPLOY / "cron" / "skipstream").read_text().splitlines()
    assert f"OUT={OUT}" in lines
    entries = [line.split(None, 6) for line in lines if line[:1].isdigit()]
    assert [(len(entry), entry[5]) for entry in entries] == [(7, "skipstream")] * 2
    assert Path(entries[0][6]).name == "nightly.sh"
    check_command(shlex.split(entries[1][6].partition(">>")[0].replace("$OUT", OUT)))


def compile_pipeline(directory: Path, *claim: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and its platform, as KFP's compiler writes them."""
    if not KUBEFLOW.exists():
        pytest.skip(f"no {KUBEFLOW}: `make schedulers` installs Kubeflow's compiler there")
    path = directory / "skipstream.yaml"
    done = subprocess.run(
        [KUBEFLOW, DEPLOY / "kubeflow" / "pipeline.py", "REGISTRY/skipstream:1", path, *claim],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    pipeline, platform = yaml.safe_load_all(path.read_text())
    return pipeline, platform


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline with its output in a bucket."""
    return compile_pipeline(tmp_path_factory.mktemp("kubeflow"))


def test_kubeflow_runs_the_stages_in_turn_as_long_as_none_is_refused(
    compiled: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    pipeline, _ = compiled
    graph, order = pipeline["root"]["dag"], []
    while graph:
        tasks = graph["tasks"]
        (stage,) = tasks.keys() & set(STAGES)
        order.append(stage)
        task = tasks.pop(stage)
        assert task["retryPolicy"]["maxRetryCount"] == 2
        assert not task["cachingOptions"].get("enableCache")
        follows = {}
        for condition in tasks.values():
            assert condition["dependentTasks"] == [stage]
            verdict, relation = condition["triggerPolicy"]["condition"].split("] ")
            assert verdict == f"inputs.parameter_values['pipelinechannel--{stage}-verdict'"
            follows[relation] = pipeline["components"][condition["componentRef"]["name"]]["dag"]
        (stop,) = follows.pop("!= 'passed'")["tasks"].values()
        assert stop["componentRef"]["name"].startswith("comp-not-pushed")
        assert not stop.get("retryPolicy")
        graph = follows.pop("== 'passed'", None)
        assert not follows
    assert order == STAGES


def pods_of(platform: dict[str, Any]) -> dict[str, Any]:
    """What Kubernetes mounts, by the name of the executor."""
    found: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return found


def default(pipeline: dict[str, Any], parameter: str) -> str:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    value: str = parameters[parameter]["defaultValue"]
    return value


def test_kubeflow_s_containers_have_the_image_limits_settings_and_a_cache(
    compiled: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    pipeline, platform = compiled
    executors = pipeline["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {
        "REGISTRY/skipstream:1"
    }
    pods = pods_of(platform)
    assert pods.keys() == {f"exec-{stage}" for stage in STAGES}
    for name, mounted in pods.items():
        container = executors[name]["container"]
        assert container["resources"]["memoryLimit"] == 8.0
        (scratch,) = mounted["emptyDirMounts"]
        (cache,) = (v["value"] for v in container["env"] if v["name"] == "SKIPSTREAM_CACHE")
        assert str(Path(cache).parent) == scratch["mountPath"]
        (settings,) = mounted["configMapAsVolume"]
        assert str(Path(default(pipeline, "config")).parent) == settings["mountPath"]
        assert "pvcMount" not in mounted
    assert default(pipeline, "output") == OUT


def test_kubeflow_has_its_output_on_a_volume_that_is_asked_for(tmp_path: Path) -> None:
    file = DEPLOY / "kubernetes" / "volume" / "claim.yaml"
    claim: str = yaml.safe_load(file.read_text())["metadata"]["name"]
    pipeline, platform = compile_pipeline(tmp_path, claim)
    for mounted in pods_of(platform).values():
        (mount,) = mounted["pvcMount"]
        assert mount["constant"] == claim
        assert default(pipeline, "output") == f"{mount['mountPath']}/out"


@pytest.mark.parametrize(
    ("code", "exit_code", "verdict"),
    [(0, 0, "passed"), (2, 0, "wrong usage"), (3, 0, "refused"), (1, 1, None)],
)
def test_kubeflow_s_stages_tell_a_refusal_from_a_failure(
    compiled: tuple[dict[str, Any], dict[str, Any]],
    stand_in: dict[str, str],
    tmp_path: Path,
    code: int,
    exit_code: int,
    verdict: str | None,
) -> None:
    container = compiled[0]["deploymentSpec"]["executors"]["exec-evaluate"]["container"]
    file = tmp_path / "outputs" / "verdict"
    values = {
        "{{$.outputs.parameters['verdict'].output_file}}": str(file),
        "{{$.inputs.parameters['config']}}": "settings.toml",
        "{{$.inputs.parameters['output']}}": "a directory",
        "{{$.inputs.parameters['run_id']}}": "skipstream-x7",
    }
    (tmp_path / "codes").write_text(f"{code}\n")
    done = subprocess.run(
        [*container["command"], *(values.get(word, word) for word in container["args"])],
        env=stand_in,
        capture_output=True,
        check=False,
    )
    assert done.returncode == exit_code
    assert (file.read_text() if file.exists() else None) == verdict
    (call,) = (tmp_path / "codes.calls").read_text().splitlines()
    assert call == (
        "evaluate --config settings.toml --output a directory --run-id skipstream-x7 "
        "--log-format=json"
    )
    check_command(["skipstream", *call.replace("a directory", "directory").split()])


def test_kubeflow_shows_a_refusal_as_a_failure(
    compiled: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    container = compiled[0]["deploymentSpec"]["executors"]["exec-not-pushed"]["container"]
    assert container["args"] == ["{{$.inputs.parameters['verdict']}}"]
    done = subprocess.run(
        [*container["command"], "wrong usage"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nothing was pushed: wrong usage: ")


def test_alarms_are_about_numbers_that_runs_write() -> None:
    report = {
        "run_id": "night",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "exit_code": 3,
        "last_finished": "2026-01-01T00:00:00+00:00",
        "stages": {},
    }
    exposition = metrics.exposition(report, {"output": "OUT"}).decode()
    written = set(re.findall(r"^(\w+)\{", exposition, re.M))
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    runbook = (DEPLOY / "README.md").read_text()
    for rule in rules:
        assert set(re.findall(r"skipstream_\w+", rule["expr"])) <= written
        assert f"`{rule['alert']}`" in runbook
