"""A server that polls, beside pushes and rollbacks: it never fails and never sees a mixture."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import tensorflow as tf

from components.artifacts import Evaluation, ExportedModel, InfraBlessing, PushedModel, write_json
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.settings import PusherSettings

SECONDS = 3
# As TF Serving: list the directory, and load the highest number when it is a new one. The number of
# the model is in the graph, in the variables and in an asset; an answer must have the same thrice.
READER = """if True:
    import json, pathlib, sys, time
    import tensorflow as tf
    serving, log = map(pathlib.Path, sys.argv[1:])
    loaded = 0
    with log.open("a") as out:
        while True:
            newest = max(int(path.name) for path in serving.iterdir() if path.name.isdecimal())
            if newest == loaded:
                time.sleep(0.001)
                continue
            loaded = newest
            model = tf.saved_model.load(str(serving / str(newest)))
            answer = model.signatures["serving_default"]()
            found = sorted({int(part) for value in answer.values() for part in value.numpy()})
            out.write(json.dumps([newest, found]) + "\\n")
            out.flush()
"""


class Three(tf.Module):
    def __init__(self, number: int, asset: Path) -> None:
        self.number = number
        self.weights = tf.Variable(tf.fill([1_000_000], number))
        asset.write_text(str(number))
        self.asset = tf.saved_model.Asset(str(asset))

    @tf.function(input_signature=[])
    def serve(self) -> dict[str, tf.Tensor]:
        text = tf.io.read_file(self.asset.asset_path)
        return {
            "graph": tf.constant([self.number]),
            "variables": tf.unique(self.weights).y,
            "asset": tf.strings.to_number([text], tf.int32),
        }


def loads(log: Path) -> list[tuple[int, list[int]]]:
    lines = log.read_text().rpartition("\n")[0].splitlines()  # The last may be cut off.
    return [tuple(json.loads(line)) for line in lines]


def test_a_reader_beside_pushes_and_rollbacks(tmp_path: Path) -> None:
    serving, log = tmp_path / "serving", tmp_path / "log"
    destination = open_destination(serving)
    for name in ("evaluation", "validation"):
        (tmp_path / name).mkdir()
    write_json(tmp_path / "evaluation" / "evaluation.json", {"blessed": True})
    for number in (1, 2):
        saved = Three(number, tmp_path / "asset.txt")
        tf.saved_model.save(
            saved,
            str(tmp_path / f"model{number}" / "saved_model"),
            {"serving_default": saved.serve},
        )

    def push(number: int, fingerprint: str) -> None:
        out = tmp_path / f"pushed{fingerprint}"
        out.mkdir()
        pusher.build(
            ExportedModel(tmp_path / f"model{number}", fingerprint),
            Evaluation(tmp_path / "evaluation", "1"),
            InfraBlessing(tmp_path / "validation", "1"),
            settings=PusherSettings(keep=3),
            destination=destination,
            out=PushedModel(out, "1"),
        )

    push(1, "first")
    log.touch()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(serving), str(log)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        actions, deadline = 0, math.inf
        while time.monotonic() < deadline:
            # With keep = 3, a version goes when it was overtaken three times: before that its load
            # has to end, as it has in any night.
            newest = destination.versions()[-1]
            while not (found := loads(log)) or found[-1][0] < newest:
                assert reader.poll() is None, reader.communicate()[1]
                time.sleep(0.001)
            deadline = min(deadline, time.monotonic() + SECONDS)
            for _ in range(2):
                if actions % 3 == 2:
                    pusher.rollback(destination)
                else:
                    push(1 + actions % 2, f"{actions}")
                actions += 1
    finally:
        reader.kill()
        _, errors = reader.communicate()
    found = loads(log)
    assert "Traceback" not in errors
    assert all(len(numbers) == 1 for _, numbers in found), found
    assert {number for _, (number,) in found} == {1, 2}
    versions = [version for version, _ in found]
    assert versions == sorted(versions)  # A reader never goes back, whatever is rolled back.
    assert actions >= 6
    assert versions[-1] >= actions - 1
