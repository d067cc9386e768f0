"""TF Serving's gRPC API, quicker than REST for vectors: needs tensorflow-serving-api.

    python grpc_client.py localhost:8500 king queen

prints the nearest words of each. `ask` is the whole client.
"""

import sys
from collections.abc import Sequence
from typing import Any

import grpc
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# gRPC takes answers of 4 MiB, 10,000 vectors of 100 numbers, unless told otherwise.
UNLIMITED = [("grpc.max_receive_message_length", -1)]


def ask(
    channel: grpc.Channel, signature: str, **inputs: Sequence[str | bytes] | int
) -> dict[str, npt.NDArray[Any]]:
    """Call a signature of the newest version.

    Args:
        channel: A connection to the server, to be kept: to open one takes longer than a request.
        signature: `serving_default`, `embed_text`, `nearest` or `analogy`.
        inputs: By name: strings, or an integer for `k`.

    Returns:
        The outputs by name; `neighbors` are bytes, UTF-8.

    Raises:
        grpc.RpcError: The server is not there, or refused the request.
    """
    predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
    return outputs(predict(request(signature, **inputs), timeout=10))


def request(signature: str, **inputs: Sequence[str | bytes] | int) -> predict_pb2.PredictRequest:
    """What `Predict` takes.

    >>> print(request("nearest", words=["king"], k=3).inputs["k"])
    dtype: DT_INT32
    tensor_shape {
    }
    int_val: 3
    <BLANKLINE>
    """
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "skipstream"
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        if isinstance(value, int):
            tensor = tf.make_tensor_proto(value, tf.int32)
        else:
            tensor = tf.make_tensor_proto(list(value), tf.string, [len(value)])
        message.inputs[name].CopyFrom(tensor)
    return message


def outputs(response: predict_pb2.PredictResponse) -> dict[str, npt.NDArray[Any]]:
    """The outputs by name, as arrays."""
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1], options=UNLIMITED) as connection:
        answer = ask(connection, "nearest", words=sys.argv[2:], k=10)
    for word, neighbors, cosines in zip(
        sys.argv[2:], answer["neighbors"], answer["similarity"], strict=True
    ):
        for neighbor, cosine in zip(neighbors, cosines, strict=True):
            print(word, neighbor.decode(), f"{cosine:.4f}", sep="\t")
