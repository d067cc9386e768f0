"""deploy/kubernetes and deploy/serving: what would be applied, with a bucket and with a volume."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from test_schedulers import DEPLOY, OUT, check_command

from pipeline import config
from pipeline.store import SERVING


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
