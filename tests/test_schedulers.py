"""deploy/: what cron, Kubernetes and Kubeflow are given does what the runbook says."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline import cli, config, metrics
from pipeline.store import SERVING

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


@pytest.fixture(params=["bucket", "volume"])
def where(request: pytest.FixtureRequest) -> str:
    """Where the output is."""
    place: str = request.param
    return place


@pytest.fixture
def resources(where: str, tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """What `kubectl apply --kustomize` would send of a directory."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH, which renders the kustomizations")

    def render(directory: str) -> list[dict[str, Any]]:
        path = tmp_path / directory
        shutil.copytree(DEPLOY / directory, path)
        if where == "volume":  # As the runbook says.
            file = path / "kustomization.yaml"
            text, count = re.subn("^# (components: )", r"\1", file.read_text(), flags=re.MULTILINE)
            assert count == 1
            file.write_text(text)
        done = subprocess.run(
            ["kubectl", "kustomize", path], capture_output=True, text=True, check=True
        )
        found = list(yaml.safe_load_all(done.stdout))
        for resource in found:
            kubernetes_validate.validate(resource, "1.37", strict=True)
        return found

    return render


def pod(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def by_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in found if resource["kind"] == kind]


def arguments(container: dict[str, Any], configuration: dict[str, Any]) -> list[str]:
    """The command line, with what Kubernetes puts into it."""
    words: list[str] = container["args"]
    for variable in container["env"]:
        value = variable.get("value", "skipstream-nightly-1")
        if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
            assert reference["name"] == configuration["metadata"]["name"]
            value = configuration["data"][reference["key"]]
        words = [word.replace(f"$({variable['name']})", value) for word in words]
    assert not any("$(" in word for word in words)
    return words


def claims(pod: dict[str, Any]) -> dict[str, str]:
    """By the name of the volume."""
    volumes = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    return {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in volumes}


MANIFESTS = [path for path in DEPLOY.glob("*/**/*.yaml") if path.stem != "kustomization"]


@pytest.mark.parametrize("file", sorted(MANIFESTS), ids=lambda file: file.name)
def test_manifests_have_the_schema_of_kubernetes(file: Path) -> None:
    for resource in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(resource, "1.37", strict=True)


def test_a_misspelt_field_is_found() -> None:
    (resource,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "nightly.yaml").read_text())
    resource["spec"]["concurencyPolicy"] = resource["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(resource, "1.37", strict=True)


def test_cron_jobs_run_commands_that_skipstream_takes_and_settings_that_it_knows(
    resources: Callable[[str], list[dict[str, Any]]], where: str
) -> None:
    found = resources("kubernetes")
    jobs = by_kind(found, "CronJob")
    assert [job["metadata"]["name"] for job in jobs] == ["skipstream-cleanup", "skipstream-nightly"]
    (configuration,) = by_kind(found, "ConfigMap")
    (account,) = by_kind(found, "ServiceAccount")
    output = OUT if where == "bucket" else "/srv/skipstream/out"
    for job in jobs:
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        (container,) = pod(job)["containers"]
        assert container["image"] == "REGISTRY/skipstream:VERSION"
        command = arguments(container, configuration)
        check_command(command)
        assert {output, f"--output={output}"} & set(command)
        assert {"requests", "limits"} <= container["resources"].keys()
        # A bucket's credentials are those of the account.
        assert pod(job)["serviceAccountName"] == account["metadata"]["name"]
    config.Settings.model_validate(tomllib.loads(configuration["data"]["settings.toml"]))


def test_the_cache_is_scratch_and_the_output_lasts(
    resources: Callable[[str], list[dict[str, Any]]], where: str
) -> None:
    found = resources("kubernetes")
    claimed = [claim["metadata"]["name"] for claim in by_kind(found, "PersistentVolumeClaim")]
    for job in by_kind(found, "CronJob"):
        (container,) = pod(job)["containers"]
        volumes = {volume["name"]: volume for volume in pod(job)["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert "emptyDir" in mounts[str(Path(values["SKIPSTREAM_CACHE"]).parent)]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        if where == "bucket":
            assert claims(pod(job)) == {}
        else:
            assert list(claims(pod(job)).values()) == claimed == ["skipstream"]
            assert "persistentVolumeClaim" in mounts["/srv/skipstream"]


@pytest.mark.parametrize("where", ["bucket"], indirect=True)
def test_the_nightly_job_is_not_repeated_after_wrong_usage_or_a_refusal(
    resources: Callable[[str], list[dict[str, Any]]],
) -> None:
    nightly = by_kind(resources("kubernetes"), "CronJob")[1]["spec"]["jobTemplate"]["spec"]
    fail, ignore = nightly["podFailurePolicy"]["rules"]
    (container,) = nightly["template"]["spec"]["containers"]
    assert fail["onExitCodes"]["containerName"] == container["name"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert (ignore["action"], nightly["template"]["spec"]["restartPolicy"]) == ("Ignore", "Never")


@pytest.mark.parametrize("where", ["bucket"], indirect=True)
def test_the_service_finds_the_pods_and_they_find_their_configuration(
    resources: Callable[[str], list[dict[str, Any]]],
) -> None:
    found = resources("serving")
    (deployment,), (service,), (configuration,), (disruption,), (account,) = (
        by_kind(found, kind)
        for kind in ("Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "ServiceAccount")
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        disruption["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (container,) = pod(deployment)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    assert f"--port={ports['grpc']}" in container["args"]
    assert f"--rest_api_port={ports['rest']}" in container["args"]
    (mount,) = container["volumeMounts"]
    files = [
        Path(argument.partition("=")[2])
        for argument in container["args"]
        if argument.endswith(".config")
    ]
    assert [str(file.parent) for file in files] == [mount["mountPath"]] * len(files)
    assert {file.name for file in files} <= configuration["data"].keys()
    (volume,) = pod(deployment)["volumes"]
    assert volume["configMap"]["name"] == configuration["metadata"]["name"]
    assert pod(deployment)["serviceAccountName"] == account["metadata"]["name"]


def test_servers_find_what_the_nightly_job_serves(
    resources: Callable[[str], list[dict[str, Any]]], where: str
) -> None:
    served, made = resources("serving"), resources("kubernetes")
    (deployment,), (configuration,) = by_kind(served, "Deployment"), by_kind(served, "ConfigMap")
    (container,) = pod(deployment)["containers"]
    command = arguments(container, configuration)
    (output,) = (found["data"]["OUTPUT"] for found in by_kind(made, "ConfigMap"))
    if where == "bucket":
        assert f"--model_base_path={output}/{SERVING}" in command
        assert claims(pod(deployment)) == {}
        return
    (name,) = claims(pod(deployment))
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == name)
    assert f"--model_base_path={mount['mountPath']}" in command
    nightly = by_kind(made, "CronJob")[1]
    (container,) = pod(nightly)["containers"]
    (data,) = (found for found in container["volumeMounts"] if found["name"] == name)
    assert f"{data['mountPath']}/{mount['subPath']}" == f"{output}/{SERVING}"
    (claim,) = by_kind(made, "PersistentVolumeClaim")
    assert claims(pod(deployment)) == claims(pod(nightly)) == {name: claim["metadata"]["name"]}
    assert (mount["readOnly"], claim["spec"]["accessModes"]) == (True, ["ReadWriteMany"])


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
    written = set(re.findall(r"^(\w+)\{", metrics.exposition(report, {"output": "OUT"}), re.M))
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    runbook = (DEPLOY / "README.md").read_text()
    for rule in rules:
        assert set(re.findall(r"skipstream_\w+", rule["expr"])) <= written
        assert f"`{rule['alert']}`" in runbook
