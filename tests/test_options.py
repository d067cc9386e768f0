"""Mistakes in Beam's options are told before anything runs."""

import socket

import pytest

from components.errors import SkipstreamError
from components.transform.options import runner_and_options


@pytest.mark.parametrize(
    "flag",
    [
        "--dry_run=True",
        "--no_wait_until_finish",
        "--output_executable_path=job.jar",
        "--template_location=gs://bucket/job",
    ],
)
def test_a_job_is_waited_for(flag: str) -> None:
    name = flag.partition("=")[0]
    with pytest.raises(SkipstreamError, match=f"must be waited for, got {name}="):
        runner_and_options(["--runner=PortableRunner", flag])


def test_what_a_runner_needs_is_named() -> None:
    with pytest.raises(SkipstreamError, match="Missing required option: project"):
        runner_and_options(["--runner=DataflowRunner", "--region=europe-west1"])


def test_a_prism_that_is_not_there() -> None:
    with pytest.raises(SkipstreamError, match="must be the Prism binary, no file /no/prism"):
        runner_and_options(["--runner=PrismRunner", "--prism_location=/no/prism"])


def test_a_job_server_that_does_not_answer() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        endpoint = f"--job_endpoint=localhost:{listener.getsockname()[1]}"
        runner_and_options(["--runner=PortableRunner", endpoint])
    with pytest.raises(SkipstreamError, match=f"no job server answers at {endpoint} "):
        runner_and_options(["--runner=PortableRunner", endpoint])
