"""What deploy/ says is what the code is: versions, commands, the entry point of the image."""

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import cli, config

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
IMAGE = "registry/skipstream:1"
LAUNCHED = {
    "dataflow": {"PROJECT": "a-project", "REGION": "here", "BUCKET": "gs://bucket", "IMAGE": IMAGE},
    "flink": {"MASTER": "jobmanager:8081", "SHARED": "/shared", "PARALLELISM": "3", "JAR": "a.jar"},
    "spark": {"MASTER": "spark://master:7077", "SHARED": "/shared"},
}

# What all workers see: the output, or a directory beside a local one.
OUTPUT = "a directory"
SHARED = {"dataflow": ("gs://bucket", None)}


def executed(script: Path, *arguments: str, directory: Path, **environment: str) -> list[str]:
    """The command line that a script becomes."""
    for name in ("skipstream", "boot"):
        (directory / name).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\n')
        (directory / name).chmod(0o755)
    path = f"{directory}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [script, *arguments],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("runner", LAUNCHED)
def test_launching_is_a_command_line_that_skipstream_and_beam_take(
    runner: str, tmp_path: Path
) -> None:
    command = executed(
        DEPLOY / runner / "launch.sh",
        *("run", "--input", "a corpus/*.gz", "--set", "trainer.epochs=3"),
        *([] if runner in SHARED else ["--output", OUTPUT]),
        directory=tmp_path,
        BEAM_OPTIONS="--job_name=one --max_num_workers=4",
        **LAUNCHED[runner],
    )
    assert command[0] == "skipstream"
    arguments = cli._parse(command[1:])
    settings = config.load(None, arguments.set, arguments.input)
    assert settings.example_gen.input == ("a corpus/*.gz",)
    assert settings.trainer.epochs == 3
    shared = settings.transform.work_directory
    assert (arguments.output, shared) == SHARED.get(runner, (OUTPUT, "/shared"))
    options = PipelineOptions(arguments.beam_options)
    values = options.get_all_options(
        add_extra_args_fn=lambda parser: parser.parse_args(arguments.beam_options)
    )
    assert values["runner"].lower() == f"{runner}runner"
    assert values["job_name"] == "one"
    if runner == "dataflow":
        assert values["sdk_container_image"] == IMAGE
        assert values["temp_location"] == "gs://bucket/temp"


@pytest.mark.parametrize("runner", LAUNCHED)
def test_launching_says_what_is_missing(runner: str, tmp_path: Path) -> None:
    missing, *rest = LAUNCHED[runner].items()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        executed(DEPLOY / runner / "launch.sh", "run", directory=tmp_path, **dict(rest))
    assert missing[0] in caught.value.stderr


def test_the_image_starts_workers_for_runners_and_the_command_for_people(tmp_path: Path) -> None:
    script = tmp_path / "entrypoint.sh"
    text = (DEPLOY / "entrypoint.sh").read_text()
    script.write_text(text.replace("/opt/apache/beam/", ""))
    script.chmod(0o755)
    for arguments, program in (
        (["--id=1-1", "--provision_endpoint=localhost:1"], "boot"),
        (["--worker_pool"], "boot"),
        (["--help"], "skipstream"),
    ):
        assert executed(script, *arguments, directory=tmp_path) == [program, *arguments]
    command = ["skipstream", "run", "--input", "a b"]
    assert executed(script, *command, directory=tmp_path) == command


def test_the_image_has_the_beam_of_the_launcher() -> None:
    (version,) = re.findall(r"^ARG BEAM=(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert version == importlib.metadata.version("apache-beam")
