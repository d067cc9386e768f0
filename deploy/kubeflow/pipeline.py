"""Kubeflow pipeline (KFP v2): text to served model, a task for each stage.

    python pipeline.py IMAGE skipstream.yaml [CLAIM]

compiles it for the image of deploy/Dockerfile; `make kubeflow IMAGE=…` does that in an environment
of its own. The output is in a bucket, and pods keep nothing; with a CLAIM, that of a volume, it is
there. Settings come from a ConfigMap, credentials from the account that runs the pipeline. A gate
that refuses (exit code 3) and wrong usage (2) lead to the task `not_pushed`, which fails, and the
run with it. What fails otherwise is tried again, and goes on where it was.
"""

import sys

from kfp import compiler, dsl, kubernetes

STAGES = ("transform", "train", "evaluate", "validate", "push")
OUTPUT = "gs://BUCKET/skipstream"
SETTINGS = "skipstream"  # A ConfigMap with settings.toml.
SCRATCH, SCRATCH_SIZE = "/scratch", "20Gi"  # deploy/kubernetes/nightly.yaml says how much it takes.
VOLUME = "/srv/skipstream"
RETRIES = 2
CPU, MEMORY = "2", "8G"
# Kubeflow tries again whatever ends with another exit code than 0. What no second try would change
# becomes a verdict.
SCRIPT = """
verdict="$1"; shift
skipstream "$@" --log-format=json
code=$?
mkdir -p "$(dirname "$verdict")"
case $code in
0) printf passed > "$verdict" ;;
2) printf "wrong usage" > "$verdict" ;;
3) printf refused > "$verdict" ;;
*) exit $code ;;
esac
"""


def stage(name: str, image: str) -> dsl.base_component.BaseComponent:
    """`skipstream NAME` as a component with the output `verdict`: `passed`, or why not."""

    def component(
        config: str, output: str, run_id: str, verdict: dsl.OutputPath(str)
    ) -> dsl.ContainerSpec:
        arguments = ["--config", config, "--output", output, "--run-id", run_id]
        return dsl.ContainerSpec(
            image=image,
            command=["sh", "-c", SCRIPT, "skipstream"],
            args=[verdict, name, *arguments],
        )

    component.__name__ = name
    component.__doc__ = f"skipstream {name}"
    return dsl.container_component(component)


def not_pushed(image: str) -> dsl.base_component.BaseComponent:
    """A component that fails, and so shows that the run has pushed nothing."""

    def not_pushed(verdict: str) -> dsl.ContainerSpec:
        script = 'echo "nothing was pushed: $1: the log of the stage before says why" >&2; exit 1'
        return dsl.ContainerSpec(
            image=image, command=["sh", "-c", script, "skipstream"], args=[verdict]
        )

    return dsl.container_component(not_pushed)


def build(image: str, claim: str | None = None) -> dsl.base_component.BaseComponent:
    """The pipeline.

    Args:
        image: What the stages run in.
        claim: A PersistentVolumeClaim for the output; None: a bucket has it.
    """
    components = [stage(name, image) for name in STAGES]
    stop = not_pushed(image)

    @dsl.pipeline(name="skipstream", description="Text to served model.")
    def skipstream(
        config: str = "/etc/skipstream/settings.toml",
        output: str = f"{VOLUME}/out" if claim else OUTPUT,
    ) -> None:
        def follow(remaining: list[dsl.base_component.BaseComponent]) -> None:
            run_id = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
            task = remaining[0](config=config, output=output, run_id=run_id)
            # skipstream knows itself what is finished, and has what it made.
            task.set_caching_options(False)
            task.set_retry(num_retries=RETRIES, backoff_duration="300s")
            task.set_cpu_request(CPU).set_memory_request(MEMORY).set_memory_limit(MEMORY)
            kubernetes.use_config_map_as_volume(task, SETTINGS, mount_path="/etc/skipstream")
            kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=SCRATCH_SIZE)
            task.set_env_variable("SKIPSTREAM_CACHE", f"{SCRATCH}/cache")
            if claim:
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=VOLUME)
            with dsl.If(task.outputs["verdict"] != "passed"):
                stop(verdict=task.outputs["verdict"]).set_caching_options(False)
            if len(remaining) > 1:
                with dsl.If(task.outputs["verdict"] == "passed"):
                    follow(remaining[1:])

        follow(components)

    return skipstream


if __name__ == "__main__":
    image, path, *claim = sys.argv[1:]
    compiler.Compiler().compile(build(image, *claim), path)
