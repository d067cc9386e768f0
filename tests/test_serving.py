"""deploy/serving: configuration that TF Serving reads, and clients that get the model's answers."""

import doctest
import runpy
import shutil
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import serving_stand_in
import tensorflow as tf
import yaml
from commands import free_port, loaded
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from test_exporter import export

from components.exporter.exporter import MODEL_NAME
from components.infra_validator.model_server import BINARY

SERVING = Path(__file__).resolve().parents[1] / "deploy" / "serving"
sys.path.insert(0, str(SERVING))
import grpc_client  # noqa: E402
import rest_client  # noqa: E402

REQUESTS: dict[str, dict[str, Any]] = {
    "serving_default": {"words": ["north", "nowhere"]},
    "embed_text": {"text": ["North and EAST", "", "東"]},
    "nearest": {"words": ["south", "nowhere"], "k": 3},
    "analogy": {"a": ["north"], "b": ["east"], "c": ["south"], "k": 2},
}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serving directory with one version."""
    root = tmp_path_factory.mktemp("export")
    shutil.copytree(export(root).saved_model, root / "serving" / "1")
    return root / "serving"


@pytest.fixture(scope="module")
def signatures(models: Path) -> Any:
    return loaded(tf.saved_model.load, str(models / "1")).signatures


@pytest.fixture(scope="module", params=["stand-in", "real"])
def server(request: pytest.FixtureRequest, models: Path) -> Iterator[tuple[str, str]]:
    """Addresses of gRPC and REST, of the stand-in and of the real server."""
    ports = free_port(), free_port()
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", f"--model_name={MODEL_NAME}"]
    flags.append(f"--model_base_path={models}")
    with ExitStack() as stack:
        if request.param == "stand-in":
            stack.enter_context(serving_stand_in.serve(flags))
        elif shutil.which(BINARY):
            stack.callback(stack.enter_context(subprocess.Popen([BINARY, *flags])).kill)
            channel = stack.enter_context(grpc.insecure_channel(f"localhost:{ports[0]}"))
            grpc.channel_ready_future(channel).result(timeout=120)
        else:
            pytest.skip(f"no {BINARY} on the PATH: TensorFlow Serving's image has it")
        yield f"localhost:{ports[0]}", f"http://localhost:{ports[1]}"


@pytest.fixture(params=["gRPC", "REST"])
def ask(request: pytest.FixtureRequest, server: tuple[str, str]) -> Iterator[Ask]:
    if request.param == "REST":
        yield lambda *names, **inputs: rest_client.ask(server[1], *names, **inputs)
    else:
        with grpc.insecure_channel(server[0], options=grpc_client.UNLIMITED) as channel:
            yield lambda *names, **inputs: grpc_client.ask(channel, *names, **inputs)


def texts(array: Any) -> list[list[str]]:
    return [[w if isinstance(w, str) else w.decode() for w in row] for row in array]


@pytest.mark.parametrize("signature", REQUESTS)
def test_clients_get_what_the_model_answers(ask: Ask, signatures: Any, signature: str) -> None:
    inputs = REQUESTS[signature]
    _, specs = signatures[signature].structured_input_signature
    tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
    expected = {name: tensor.numpy() for name, tensor in signatures[signature](**tensors).items()}
    answer = ask(signature, **inputs)
    assert answer.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype == object:
            assert texts(answer[name]) == texts(values)
        else:
            # JSON's numbers read back as the same float32.
            got = np.asarray(answer[name], values.dtype)
            np.testing.assert_array_equal(got, values, strict=True)


def test_a_client_hears_of_a_signature_that_is_not_there(ask: Ask) -> None:
    with pytest.raises((grpc.RpcError, urllib.error.URLError, ConnectionError)):
        ask("classify", words=["north"])


@pytest.mark.parametrize("signature", REQUESTS)
def test_requests_have_the_signature_s_names_dtypes_and_shapes(
    signatures: Any, signature: str
) -> None:
    _, specs = signatures[signature].structured_input_signature
    request = grpc_client.request(signature, **REQUESTS[signature])
    assert request.model_spec.name == MODEL_NAME
    assert request.inputs.keys() == specs.keys()
    for name, spec in specs.items():
        sent = tf.TensorSpec.from_tensor(tf.constant(tf.make_ndarray(request.inputs[name])))
        assert spec.is_compatible_with(sent)
    empty = {name: value if name == "k" else [] for name, value in REQUESTS[signature].items()}
    for tensor in grpc_client.request(signature, **empty).inputs.values():
        assert tensor.dtype in (tf.string.as_datatype_enum, tf.int32.as_datatype_enum)


@pytest.mark.parametrize("client", [grpc_client, rest_client])
def test_the_clients_examples_are_true(client: Any) -> None:
    failed, tried = doctest.testmod(client)
    assert (failed, tried > 0) == (0, True)


def test_the_clients_are_programs_too(
    server: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["grpc_client.py", server[0], "south"])
    runpy.run_path(str(SERVING / "grpc_client.py"), run_name="__main__")
    by_grpc = capsys.readouterr().out
    assert by_grpc.startswith("south\t")
    nothing_but_python = [sys.executable, "-IS", SERVING / "rest_client.py"]
    assert by_grpc == subprocess.check_output([*nothing_but_python, server[1], "south"], text=True)


def test_the_server_gives_the_model_the_name_that_clients_use() -> None:
    (container,) = yaml.safe_load((SERVING / "deployment.yaml").read_text())["spec"]["template"][
        "spec"
    ]["containers"]
    assert f"--model_name={MODEL_NAME}" in container["args"]


def message_type(name: str, **fields: tuple[int, str]) -> Any:
    """A message of TF Serving's that tensorflow-serving-api leaves out: number and type by name."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="tensorflow.serving")
    value = file.message_type.add(name="Int64Value")
    value.field.add(name="value", number=1, type=types.TYPE_INT64, label=types.LABEL_OPTIONAL)
    message = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        if kind == "value":
            full = ".tensorflow.serving.Int64Value"
            message.field.add(
                name=field,
                number=number,
                type=types.TYPE_MESSAGE,
                type_name=full,
                label=types.LABEL_OPTIONAL,
            )
        else:
            message.field.add(
                name=field, number=number, type=types.TYPE_INT64, label=types.LABEL_REPEATED
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


@pytest.fixture
def batching() -> Any:
    """batching.config, as session_bundle_config.proto has it."""
    kind = message_type(
        "BatchingParameters",
        max_batch_size=(1, "value"),
        batch_timeout_micros=(2, "value"),
        max_enqueued_batches=(3, "value"),
        num_batch_threads=(4, "value"),
        allowed_batch_sizes=(6, "repeated"),
    )
    return text_format.Parse((SERVING / "batching.config").read_text(), kind())


def test_batches_have_sizes_that_the_server_allows(batching: Any) -> None:
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(sizes)
    assert sizes[-1] == batching.max_batch_size.value


def test_two_signatures_can_be_batched(signatures: Any) -> None:
    """The server joins requests along the first dimension of each input; `k` has none."""
    inputs = {name: s.structured_input_signature[1].values() for name, s in signatures.items()}
    assert {name for name, specs in inputs.items() if all(spec.shape.rank for spec in specs)} == {
        "serving_default",
        "embed_text",
    }


@pytest.mark.parametrize(
    ("signature", "requests"),
    [
        ("serving_default", [["north"], ["nowhere", "east"], ["south"]]),
        ("embed_text", [["north"], ["a text, north and east", ""], ["東"]]),
    ],
)
def test_a_batch_has_the_answers_of_its_requests(
    signatures: Any, batching: Any, signature: str, requests: list[list[str]]
) -> None:
    function = signatures[signature]
    (name,) = function.structured_input_signature[1]
    joined = [text for texts in requests for text in texts]
    # What is missing to the next allowed size is filled with the first row of the last request.
    padding = [requests[-1][0]] * (batching.allowed_batch_sizes[0] - len(joined))
    together = function(**{name: tf.constant(joined + padding)})
    row = 0
    for texts in requests:
        for output, expected in function(**{name: tf.constant(texts)}).items():
            part = together[output][row : row + len(texts)]
            np.testing.assert_array_equal(part, expected, strict=True)
        row += len(texts)
