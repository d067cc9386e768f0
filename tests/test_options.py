"""Mistakes in Beam's options are told before anything runs."""

import socket
import threading
import time
from typing import Any

import apache_beam as beam
import grpc
import pytest
from apache_beam.testing.util import assert_that, equal_to

from components import beam_options
from components.beam_options import runner_and_options
from components.errors import SettingsError, SkipstreamError


@pytest.mark.parametrize(
    "flag",
    [
        "--dry_run=True",
        "--output_executable_path=job.jar",
    ],
)
def test_a_job_runs(flag: str) -> None:
    with pytest.raises(SettingsError, match=f"must run, got {flag}"):
        runner_and_options(["--runner=PortableRunner", flag])


def test_what_a_runner_needs_is_named() -> None:
    with pytest.raises(SettingsError, match="Missing required option: project"):
        runner_and_options(["--runner=DataflowRunner", "--region=europe-west1"])


def test_a_prism_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="must be the Prism binary, no file /no/prism"):
        runner_and_options(["--runner=PrismRunner", "--prism_location=/no/prism"])


def test_a_job_server_that_does_not_answer() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        endpoint = f"--job_endpoint=localhost:{listener.getsockname()[1]}"
        runner_and_options(["--runner=PortableRunner", endpoint])
    with pytest.raises(SkipstreamError, match=f"no job server answers at {endpoint} ") as caught:
        runner_and_options(["--runner=PortableRunner", endpoint])
    assert caught.value.exit_code == 1  # It may answer the next time.


class SlowToWrite:
    """Takes longer to be pickled than Beam's threads wait before they send what they have."""

    def __reduce__(self) -> tuple[Any, ...]:
        time.sleep(1.5)
        return SlowToWrite, ()


def test_elements_come_whole_however_long_they_take_to_be_written() -> None:
    runner, options = runner_and_options([])
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        groups = (
            pipeline
            | beam.Create([1])
            | beam.Map(lambda number: (number, SlowToWrite()))
            | beam.GroupByKey()
            | beam.MapTuple(lambda number, values: (number, len(list(values))))
        )
        assert_that(groups, equal_to([(1, 1)]))


def test_a_job_ends_though_a_server_of_beams_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory ran out for one of the server's threads."""
    stop = grpc._server._Server.stop

    def never(server: Any, grace: float) -> threading.Event:
        stop(server, grace)
        return threading.Event()

    monkeypatch.setattr(grpc._server._Server, "stop", never)
    monkeypatch.setattr(beam_options, "_CLOSING_SECONDS", 0.1)
    runner, options = runner_and_options([])
    with pytest.raises(RuntimeError, match="division"), beam.Pipeline(runner, options) as pipeline:
        _ = pipeline | beam.Create([0]) | beam.Map(lambda zero: 1 / zero)
