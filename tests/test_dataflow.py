"""The job as Dataflow would get it: sent by its real client, to a stand-in on this machine."""

import base64
import bz2
import json
import re
import runpy
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stores
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from commands import Command
from tensorflow_transform import beam as tft_beam

from components.transform import storage

DEPLOY = Path(__file__).resolve().parents[1] / "deploy" / "dataflow"
IMAGE = "europe-docker.pkg.dev/some-project/some-repository/skipstream:1"


class Dataflow(BaseHTTPRequestHandler):
    """A service that takes jobs, all of which fail."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def respond(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if "/messages" in self.path:
            text = {"messageText": "no quota left", "messageImportance": "JOB_MESSAGE_ERROR"}
            self.respond({"jobMessages": [{"id": "1", "time": "2026-01-01T00:00:00Z", **text}]})
        else:
            self.respond({"id": "job-1", "currentState": "JOB_STATE_FAILED"})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.jobs.append((self.path, sent))
        self.respond({"id": "job-1", "currentState": "JOB_STATE_PENDING"})


def pickled_functions(pipeline: beam_runner_api_pb2.Pipeline) -> Iterator[bytes]:
    """The DoFns of a job, as pickles."""
    for step in pipeline.components.transforms.values():
        if step.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
            yield bz2.decompress(base64.b64decode(payload.do_fn.payload))


@pytest.fixture
def cloud(gs: stores.Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The service, whose `bucket` is on Cloud Storage."""
    # TensorFlow, which traces graphs there, knows only the real Cloud Storage.
    here = partial(tft_beam.Context, str(tmp_path / "traces"))
    monkeypatch.setattr(tft_beam, "Context", lambda temp_dir: here())
    with ThreadingHTTPServer(("localhost", 0), Dataflow) as server:
        server.url = f"http://localhost:{server.server_port}"
        server.jobs, server.bucket = [], gs.url
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def test_dataflow_gets_one_image_and_nothing_to_install_and_writes_below_the_output(
    cloud: Any, tmp_path: Path, cache_directory: Path, command: Command
) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 99)
    output = f"{cloud.bucket}/out"
    done = command(
        *("transform", "--output", output, "--input", tmp_path / "corpus.txt"),
        *("--", "--runner=DataflowRunner"),
        *("--project=some-project", "--region=europe-west1", f"--temp_location={cloud.bucket}/tmp"),
        *(f"--sdk_container_image={IMAGE}", "--sdk_location=container", "--no_auth"),
        *(f"--dataflow_endpoint={cloud.url}", "--max_num_workers=7", "--labels=team=words"),
        *("--dataflow_service_options=enable_prime", "--number_of_worker_harness_threads=2"),
    )
    ((path, job),) = cloud.jobs
    assert path.startswith("/v1b3/projects/some-project/locations/europe-west1/jobs")
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]

    # What passed through.
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 7
    assert job["labels"] == {"team": "words"}
    assert "enable_prime" in environment["serviceOptions"]
    options = environment["sdkPipelineOptions"]["options"]
    assert options["number_of_worker_harness_threads"] == 2

    # Beam's own list of what is installed here is all there is beside the job.
    files = storage.files_in(f"{cloud.bucket}/tmp")
    staged = {name.rpartition("/")[2]: storage.read(name) for name in files}
    assert staged.keys() == {"pipeline.pb", "submission_environment_dependencies.txt"}
    assert not options["save_main_session"]
    assert not options.get("setup_file")
    pipeline = beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])
    (worker,) = pipeline.components.environments.values()
    assert worker.urn == common_urns.environments.DOCKER.urn
    docker = beam_runner_api_pb2.DockerPayload.FromString(worker.payload)
    assert docker.container_image == IMAGE
    functions = b"".join(pickled_functions(pipeline))
    assert b"components.transform" in functions  # Looked up in the image's wheel.
    assert b"__main__" not in functions
    assert f"{output}/tokens".encode() in functions
    assert f"{output}/work/".encode() in functions
    assert str(cache_directory).encode() not in functions

    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "skipstream: error: the Beam job failed (no quota left): see the logs of its runner"
    )
    assert not [name for name in storage.files_in(f"{output}/transform") if "manifest" in name]


def test_workers_in_the_cloud_cannot_write_here(
    cloud: Any, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 99)
    start = "transform", "--output", tmp_path / "out", "--input", tmp_path / "corpus.txt"
    options = "--", "--runner=DataflowRunner", "--project=some-project", "--region=europe-west1"
    done = command(*start, *options, f"--temp_location={cloud.bucket}/tmp", "--no_auth")
    assert done.returncode == 2
    said = (
        "workers on Dataflow must write to gs://, got no place there: set --output or "
        "transform.work_directory to one"
    )
    assert done.stderr.splitlines()[-1] == f"skipstream: error: {said}"
    assert not cloud.jobs and not storage.files_in(cloud.bucket)


def test_the_flex_template_launches_the_job(
    cloud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 99)
    template = json.loads((DEPLOY / "template.json").read_text())
    values = {
        "input": str(tmp_path / "corpus.txt"),
        "work_directory": f"{cloud.bucket}/work",
        "settings": "transform.min_count=2 transform.lowercase=false",
        "sdk_container_image": IMAGE,
        "sdk_location": "container",
    }
    assert {parameter["name"] for parameter in template["metadata"]["parameters"]} == set(values)
    values |= {  # What the launcher adds; --no_auth is for the stand-in.
        "runner": "DataflowRunner",
        "project": "some-project",
        "region": "europe-west1",
        "temp_location": f"{cloud.bucket}/temp",
        "template_location": str(tmp_path / "job_object"),
    }
    arguments = [f"--{name}={value}" for name, value in values.items()]
    monkeypatch.setattr(sys, "argv", ["template.py", "--no_auth", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(DEPLOY / "template.py"), run_name="__main__")
    assert ended.value.code == 0
    job = json.loads((tmp_path / "job_object").read_text())
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert not cloud.jobs  # Dataflow starts it, not we.
    (marker,) = storage.files_in(f"{cloud.bucket}/work")
    assert re.fullmatch(rf"{cloud.bucket}/work/\w+/launched", marker)
