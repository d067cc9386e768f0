"""Stands in for tensorflow_model_server, which no registry has: its flags, gRPC and REST APIs.

It answers from the SavedModel by TensorFlow, in the forms of tensorflow-serving-api and of TF
Serving's documentation of REST (requests and responses in columns).
"""

import argparse
import json
import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from commands import loaded
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, name: str, saved_model: str) -> None:
        self.name = name
        self._model = loaded(tf.saved_model.load, saved_model)

    def call(self, signature: str, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        found: dict[str, tf.Tensor] = self._model.signatures[signature](**inputs)
        return found

    def dtypes(self, signature: str) -> dict[str, tf.DType]:
        _, inputs = self._model.signatures[signature].structured_input_signature
        return {name: spec.dtype for name, spec in inputs.items()}

    def Predict(self, request: Any, context: Any) -> Any:
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name}")
        inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        try:
            answer = self.call(request.model_spec.signature_name, inputs)
        except Exception as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        for name, tensor in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor))
        return response


def rest(service: Service, port: int) -> ThreadingHTTPServer:
    """A server that is at work, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != f"/v1/models/{service.name}:predict":
                return self.send_error(404)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            dtypes = service.dtypes(asked["signature_name"])
            inputs = {k: tf.constant(v, dtypes[k]) for k, v in asked["inputs"].items()}
            answer = service.call(asked["signature_name"], inputs)
            outputs = {
                name: [[word.decode() for word in row] for row in tensor.numpy()]
                if tensor.dtype == tf.string
                else tensor.numpy().tolist()
                for name, tensor in answer.items()
            }
            content = json.dumps({"outputs": outputs}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def serve(arguments: Sequence[str]) -> Iterator[None]:
    """Serve as the flags say, by threads of this process, as long as the block lasts."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--model_base_path", type=Path, required=True)
    parser.add_argument("--max_num_load_retries", type=int, default=5)
    flags = parser.parse_args(arguments)
    newest = max(int(path.name) for path in flags.model_base_path.glob("[0-9]*"))
    service = Service(flags.model_name, str(flags.model_base_path / str(newest)))
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    server.add_insecure_port(f"localhost:{flags.port}")
    with ExitStack() as stack:
        if flags.rest_api_port:
            by_rest = stack.enter_context(rest(service, flags.rest_api_port))
            stack.callback(by_rest.shutdown)
        server.start()
        stack.callback(server.stop, None)
        yield


@contextmanager
def program(script: Path, *flags: str) -> Iterator[None]:
    """Make a script the server's program.

    It hands the flags that it is given, and more, to this process, which has TensorFlow and serves,
    and waits to be killed.
    """
    given, stopped = script.with_name("given"), threading.Event()
    os.mkfifo(given)
    script.write_text(f'#!/bin/sh\necho "$@" {shlex.join(flags)} > {given}\nexec sleep 60\n')
    script.chmod(0o755)

    def work() -> None:
        if flags := given.read_text().split():
            with serve(flags):
                stopped.wait()

    with futures.ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            stopped.set()
            os.close(os.open(given, os.O_RDWR))  # Nobody has started the script.
            working.result()
