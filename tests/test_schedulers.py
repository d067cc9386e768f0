"""deploy/: what cron, Kubernetes and Kubeflow are given does what the runbook says."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline import cli, config, metrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KUBEFLOW = ROOT / "build" / "kubeflow" / "bin" / "python"
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
        env=stand_in | {"SKIPSTREAM_HOME": str(tmp_path), "SKIPSTREAM_RETRY_SECONDS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (tmp_path / "codes.calls").read_text().splitlines()
    assert (done.returncode, len(calls), len(set(calls))) == (ends_with, tries, 1)
    check_command(["skipstream", *shlex.split(calls[0])])
    # cron mails what is printed: only what went wrong.
    run_id = calls[0].split()[-1]
    assert (done.stdout + done.stderr).splitlines() == [
        f"skipstream {run_id} exited with {code}: skipstream: error: it says {code}"
        for code in told
    ]
    assert (tmp_path / "nightly.log").read_text().count("something on the screen") == tries


def test_the_crontab_has_five_times_a_user_and_a_command() -> None:
    lines = (DEPLOY / "cron" / "skipstream").read_text().splitlines()
    entries = [line.split(None, 6) for line in lines if line[:1].isdigit()]
    assert [(len(entry), entry[5]) for entry in entries] == [(7, "skipstream")] * 2
    assert Path(entries[0][6]).name == "nightly.sh"
    check_command(shlex.split(entries[1][6].partition(">>")[0]))


def resources(directory: str) -> list[dict[str, Any]]:
    """What `kubectl apply --kustomize` would send."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH, which renders the kustomizations")
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / directory], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


def containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    spec = resource["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: list[dict[str, Any]] = spec["template"]["spec"]["containers"]
    return found


def by_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in found if resource["kind"] == kind]


MANIFESTS = [path for path in DEPLOY.glob("*/*.yaml") if path.stem != "kustomization"]


@pytest.mark.parametrize("file", sorted(MANIFESTS), ids=lambda file: file.name)
def test_manifests_have_the_schema_of_kubernetes(file: Path) -> None:
    for resource in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(resource, "1.37", strict=True)


def test_a_misspelt_field_is_found() -> None:
    (resource,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "nightly.yaml").read_text())
    resource["spec"]["concurencyPolicy"] = resource["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(resource, "1.37", strict=True)


def test_cron_jobs_run_commands_that_skipstream_takes_and_settings_that_it_knows() -> None:
    found = resources("kubernetes")
    jobs = by_kind(found, "CronJob")
    assert [job["metadata"]["name"] for job in jobs] == ["skipstream-cleanup", "skipstream-nightly"]
    for job in jobs:
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        (container,) = containers(job)
        assert container["image"] == "REGISTRY/skipstream:VERSION"
        # Kubernetes puts the name of the job there.
        check_command(
            [word.replace("$(RUN)", "skipstream-nightly-1") for word in container["args"]]
        )
        assert {"requests", "limits"} <= container["resources"].keys()
    (settings,) = by_kind(found, "ConfigMap")
    config.Settings.model_validate(tomllib.loads(settings["data"]["settings.toml"]))


def test_the_nightly_job_is_not_repeated_after_wrong_usage_or_a_refusal() -> None:
    nightly = by_kind(resources("kubernetes"), "CronJob")[1]["spec"]["jobTemplate"]["spec"]
    fail, ignore = nightly["podFailurePolicy"]["rules"]
    (container,) = nightly["template"]["spec"]["containers"]
    assert fail["onExitCodes"]["containerName"] == container["name"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert (ignore["action"], nightly["template"]["spec"]["restartPolicy"]) == ("Ignore", "Never")


def test_the_service_finds_the_pods_and_they_find_model_and_configuration() -> None:
    found = resources("serving")
    (deployment,), (service,), (configuration,), (disruption,) = (
        by_kind(found, kind)
        for kind in ("Deployment", "Service", "ConfigMap", "PodDisruptionBudget")
    )
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        disruption["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (container,) = containers(deployment)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    assert f"--port={ports['grpc']}" in container["args"]
    assert f"--rest_api_port={ports['rest']}" in container["args"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    files = [
        Path(argument.partition("=")[2])
        for argument in container["args"]
        if argument.endswith(".config")
    ]
    assert [str(file.parent) for file in files] == [mounts["config"]["mountPath"]] * len(files)
    assert {file.name for file in files} <= configuration["data"].keys()
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == configuration["metadata"]["name"]
    (claim,) = by_kind(resources("kubernetes"), "PersistentVolumeClaim")
    claimed = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert (claimed, claim["spec"]["accessModes"]) == (claim["metadata"]["name"], ["ReadWriteMany"])
    (nightly,) = containers(by_kind(resources("kubernetes"), "CronJob")[1])
    (data,) = [mount for mount in nightly["volumeMounts"] if mount["name"] == "data"]
    served = f"--output={data['mountPath']}/{Path(mounts['data']['subPath']).parent}"
    assert served in nightly["args"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and its platform, as KFP's compiler writes them."""
    if not KUBEFLOW.exists():
        pytest.skip(f"no {KUBEFLOW}: `make schedulers` installs Kubeflow's compiler there")
    path = tmp_path_factory.mktemp("kubeflow") / "skipstream.yaml"
    done = subprocess.run(
        [KUBEFLOW, DEPLOY / "kubeflow" / "pipeline.py", "REGISTRY/skipstream:1", path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    pipeline, platform = yaml.safe_load_all(path.read_text())
    return pipeline, platform


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


def test_kubeflow_s_containers_have_the_image_the_volume_and_limits(
    compiled: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    pipeline, platform = compiled
    executors = pipeline["deploymentSpec"]["executors"]
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {
        "REGISTRY/skipstream:1"
    }
    assert mounted.keys() == {f"exec-{stage}" for stage in STAGES}
    (claim,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "volume.yaml").read_text())
    for name in mounted:
        executor = executors[name]
        assert executor["container"]["resources"]["memoryLimit"] == 8.0
        (mount,) = mounted[name]["pvcMount"]
        assert mount["constant"] == claim["metadata"]["name"]


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
    written = set(re.findall(r"^(\w+)\{", metrics.exposition(report, {"output": "OUT"}), re.M))
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    runbook = (DEPLOY / "README.md").read_text()
    for rule in rules:
        assert set(re.findall(r"skipstream_\w+", rule["expr"])) <= written
        assert f"`{rule['alert']}`" in runbook
