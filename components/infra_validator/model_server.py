"""TF Serving, where it is installed: the candidate is asked in the very server, over gRPC."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import NotBlessedError, SkipstreamError

if TYPE_CHECKING:  # That imports TensorFlow.
    from components.infra_validator.cases import Answer, Case

BINARY = "tensorflow_model_server"
START_SECONDS = 600
ANSWER_SECONDS = 600
_MODEL = "candidate"
_MACHINE = "look at the load, the memory and the ports of this machine and validate again"
# 10,000 vectors are more than the 4 MiB that gRPC takes unless told otherwise.
_OPTIONS = [("grpc.max_receive_message_length", -1)]


def find() -> Path | None:
    """The server on the PATH; None: there is none, and the candidate is asked without it."""
    found = shutil.which(BINARY)
    return Path(found) if found else None


def stamp() -> list[Any] | None:
    """What tells one server on the PATH from another: path, bytes, time of change; None: none."""
    server = find()
    if not server:
        return None
    stat = server.stat()
    return [str(server.resolve()), stat.st_size, stat.st_mtime_ns]


def ask(
    server: Path, saved_model: Path, asked: "Sequence[Case]", scratch: Path
) -> "Iterator[Answer]":
    """The answers of the server, one for each case, over gRPC.

    Args:
        server: The program.
        saved_model: The candidate.
        asked: What it is asked.
        scratch: An empty directory.

    Raises:
        NotBlessedError: The server does not load the candidate, or refuses a request.
        SkipstreamError: This machine kills the server, or is too slow for it.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with _serving(server, saved_model, scratch) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        for case in asked:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = _MODEL
            request.model_spec.signature_name = case.signature
            for name, value in case.inputs.items():
                if isinstance(value, int):
                    tensor = tf.make_tensor_proto(value, tf.int32)
                else:
                    words = [word.encode("utf-8", "surrogateescape") for word in value]
                    tensor = tf.make_tensor_proto(words, tf.string, [len(words)])
                request.inputs[name].CopyFrom(tensor)
            try:
                response = predict(request, timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                said = f"{error.code().name} ({' '.join(str(error.details()).split())})"
                if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                    raise SkipstreamError(
                        f"{BINARY} must answer within {ANSWER_SECONDS} seconds, {case.signature} "
                        f"of {case.name} gave {said}: {_MACHINE}"
                    ) from error
                raise NotBlessedError(
                    f"{BINARY} must answer every signature, {case.signature} of {case.name} gave "
                    f"{said}: export again, or use a version of "
                    f"the server that knows TensorFlow {tf.__version__}"
                ) from error
            yield {name: _values(tf.make_ndarray(out)) for name, out in response.outputs.items()}


def _values(array: Any) -> Any:
    return [[word.decode() for word in row] for row in array] if array.dtype == object else array


@contextmanager
def _serving(server: Path, saved_model: Path, scratch: Path) -> Iterator[Any]:
    """A connection to the server, which ends with the block."""
    import grpc

    (scratch / "1").symlink_to(saved_model.resolve(), target_is_directory=True)
    port = _free_port()
    command = [str(server), f"--port={port}", "--rest_api_port=0", "--max_num_load_retries=0"]
    command += [f"--model_name={_MODEL}", f"--model_base_path={scratch}"]
    log = scratch / "server.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file) as process,
        grpc.insecure_channel(f"localhost:{port}", options=_OPTIONS) as channel,
    ):
        try:
            _wait(channel, process, port, log)
            yield channel
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_taken(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("localhost", port)) == 0


def _wait(channel: Any, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """The server opens its port when the candidate is loaded and warmed up, or ends."""
    import grpc

    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            grpc.channel_ready_future(channel).result(timeout=0.5)
            return
        except grpc.FutureTimeoutError:
            continue
    lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
    how = f"ended with code {process.returncode}"
    if process.returncode is None:
        how = f"did not within {START_SECONDS} seconds"
    if process.returncode is None or process.returncode < 0 or _is_taken(port):
        raise SkipstreamError(
            f"{BINARY} must load the candidate, it {how} ({lines[-1]}): {_MACHINE}"
        )
    raise NotBlessedError(
        f"{BINARY} must load the candidate, it {how} ({lines[-1]}): export again, or use a version "
        "of the server that knows the TensorFlow of the export"
    )
