"""A server that polls, beside pushes and rollbacks: it never fails and never sees a mixture."""

import math
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

from components.artifacts import Evaluation, ExportedModel, InfraBlessing, PushedModel, write_json
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.settings import PusherSettings

SECONDS = 2


def publish(root: Path, reader: Connection) -> None:
    """Push and roll back for some seconds, in a process of its own, which loads no TensorFlow.

    Args:
        root: Has two models and what blesses them.
        reader: Sends each version that it has loaded, and receives how many actions there were
            after the first push.
    """
    destination = open_destination(root / "serving")

    def push(number: int, fingerprint: str) -> None:
        out = root / f"pushed{fingerprint}"
        out.mkdir()
        pusher.build(
            ExportedModel(root / f"model{number}", fingerprint),
            Evaluation(root / "evaluation", "1"),
            InfraBlessing(root / "validation", "1"),
            settings=PusherSettings(keep=3),
            destination=destination,
            out=PushedModel(out, "1"),
        )

    push(1, "first")
    actions, deadline = 0, math.inf
    while actions < 6 or time.monotonic() < deadline:
        # With keep = 3, a version goes when it was overtaken three times: before that its load has
        # to end, as it has in any night.
        newest = destination.versions()[-1]
        while reader.recv() < newest:
            pass
        deadline = min(deadline, time.monotonic() + SECONDS)
        for _ in range(2):
            if actions % 3 == 2:
                pusher.rollback(destination)
            else:
                push(1 + actions % 2, f"{actions}")
            actions += 1
    reader.send(actions)
    time.sleep(60)  # Until it is killed, so that the reader's last word is no error.


def save(number: int, model: Path) -> None:
    """Save a model whose number is in the graph, in the variables and in an asset."""
    import tensorflow as tf

    class Three(tf.Module):
        def __init__(self) -> None:
            self.weights = tf.Variable(tf.fill([1_000_000], number))
            asset = model.with_suffix(".txt")
            asset.write_text(str(number))
            self.asset = tf.saved_model.Asset(str(asset))

        @tf.function(input_signature=[])
        def serve(self) -> dict[str, tf.Tensor]:
            text = tf.io.read_file(self.asset.asset_path)
            return {
                "graph": tf.constant([number]),
                "variables": tf.unique(self.weights).y,
                "asset": tf.strings.to_number([text], tf.int32),
            }

    three = Three()
    tf.saved_model.save(three, str(model / "saved_model"), {"serving_default": three.serve})


def numbers(version: Path) -> set[int]:
    """What a version answers, which must be the same thrice."""
    import tensorflow as tf

    answer = tf.saved_model.load(str(version)).signatures["serving_default"]()
    return {int(part) for value in answer.values() for part in value.numpy()}


def test_a_reader_beside_pushes_and_rollbacks(tmp_path: Path) -> None:
    for name in ("evaluation", "validation", "serving"):
        (tmp_path / name).mkdir()
    write_json(tmp_path / "evaluation" / "evaluation.json", {"blessed": True})
    for number in (1, 2):
        save(number, tmp_path / f"model{number}")
    processes = multiprocessing.get_context("spawn")
    publisher, there = processes.Pipe()
    process = processes.Process(target=publish, args=(tmp_path, there))
    process.start()
    there.close()
    found: list[tuple[int, set[int]]] = []
    end = time.monotonic() + 120
    try:
        while not publisher.poll():
            assert process.is_alive() and time.monotonic() < end
            # As TF Serving: list the directory, and load the highest number when it is a new one.
            versions = [int(p.name) for p in (tmp_path / "serving").iterdir() if p.name.isdecimal()]
            if versions and (not found or max(versions) != found[-1][0]):
                newest = max(versions)
                found.append((newest, numbers(tmp_path / "serving" / str(newest))))
                publisher.send(newest)
            else:
                time.sleep(0.001)
        actions = publisher.recv()
    finally:
        process.kill()
        process.join()
    assert all(len(numbers) == 1 for _, numbers in found), found
    assert {number for _, (number,) in found} == {1, 2}
    loaded = [version for version, _ in found]
    assert loaded == sorted(loaded)  # A reader never goes back, whatever is rolled back.
    assert loaded[-1] >= actions - 1
