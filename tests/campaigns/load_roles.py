"""A process of `load.py`: one that writes, one that serves, or one that reads.

    load_roles.py ROLE SAID STOP ROOT DIRECTORY BUCKET

It goes on until the file STOP is there, and writes to SAID what it did.
"""

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import PAUSE

KEEP = 6  # As of the nights.


def main() -> int:
    """Run a role; the exit code."""
    role, *paths = sys.argv[1:]
    said, stop, root = map(Path, paths[:3])
    directory, bucket = paths[3:]
    act, newest = {
        "writer": _writer,
        "server": _server,
        "directory": _directory,
        "bucket": _bucket,
        "saved_model": _saved_model,
        "client": _client,
    }[role](root, directory, bucket)
    done = failures = overtaken = 0
    examples: list[str] = []
    while not stop.exists():
        before = newest()
        try:
            act()
            done += 1
        except Exception as error:
            # So many were pushed meanwhile that the one that was meant is gone.
            if newest() - before >= KEEP - 1:
                overtaken += 1
            else:
                failures += 1
                examples = [*examples, f"{type(error).__name__}: {error}"][-3:]
        result = {"done": done, "failures": failures, "overtaken": overtaken, "examples": examples}
        said.write_text(json.dumps(result))
        time.sleep(PAUSE)
    return 0


Role = tuple[Callable[[], None], Callable[[], int]]


def _newest(output: str) -> Callable[[], int]:
    """What tells the newest version of an output in a directory."""
    serving = Path(output, "serving")
    return lambda: max(int(path.name) for path in serving.iterdir() if path.name.isdecimal())


def _ask(model: Any) -> None:
    word = model.words[0]
    if model.most_similar(word, topn=3)[0][0] == word or not model.embed([word]).any():
        raise ValueError("a wrong answer")


def _directory(root: Path, directory: str, bucket: str) -> Role:
    import skipstream

    return lambda: _ask(skipstream.load(f"{directory}/serving")), _newest(directory)


def _bucket(root: Path, directory: str, bucket: str) -> Role:
    import skipstream
    from pipeline.commands.places import destination_of

    destination = destination_of(bucket)
    return lambda: _ask(skipstream.load(bucket)), destination.highest


def _saved_model(root: Path, directory: str, bucket: str) -> Role:
    import tensorflow as tf

    newest = _newest(directory)
    loaded, model = 0, None

    def act() -> None:
        nonlocal loaded, model
        # Once each: TensorFlow never frees the table of words of a model that it has loaded.
        if (version := newest()) != loaded:
            model = tf.saved_model.load(f"{directory}/serving/{version}")
            loaded = version
        answer = model.signatures["serving_default"](words=tf.constant(["f1", "no such word"]))
        if answer["in_vocabulary"].numpy().tolist() != [True, False]:
            raise ValueError("a wrong answer")

    return act, newest


def _server(root: Path, directory: str, bucket: str) -> Role:
    """TensorFlow Serving's stand-in, given each new version as TensorFlow Serving finds it."""
    import serving_stand_in
    import tensorflow as tf

    newest = _newest(directory)
    loaded = newest()
    service = serving_stand_in.Service("words", f"{directory}/serving/{loaded}")
    server = serving_stand_in.rest(service, 0)
    (root / "port.new").write_text(str(server.server_port))
    (root / "port.new").rename(root / "port")

    def act() -> None:
        nonlocal loaded
        if (version := newest()) != loaded:
            service._model = tf.saved_model.load(f"{directory}/serving/{version}")
            loaded = version

    return act, newest


def _client(root: Path, directory: str, bucket: str) -> Role:
    while not (root / "port").exists():
        time.sleep(PAUSE)
    url = f"http://localhost:{(root / 'port').read_text()}/v1/models/words:predict"

    def act() -> None:
        asked = {"signature_name": "serving_default", "inputs": {"words": ["f1", "no such word"]}}
        with urllib.request.urlopen(url, json.dumps(asked).encode(), timeout=60) as response:
            if json.loads(response.read())["outputs"]["in_vocabulary"] != [True, False]:
                raise ValueError("a wrong answer")

    return act, lambda: 0


def _writer(root: Path, directory: str, bucket: str) -> Role:
    """Pushes, rolls back and tidies up, in a directory and a bucket, by turns."""
    import tempfile

    from components.artifacts import Evaluation, ExportedModel, InfraBlessing, PushedModel
    from components.errors import SkipstreamError
    from components.pusher import pusher
    from components.settings import PusherSettings
    from pipeline.commands import versions
    from pipeline.commands.places import destination_of
    from pipeline.store import Store

    turn = 0

    def push(output: str) -> None:
        store = Store.open(output)
        kinds = (ExportedModel, Evaluation, InfraBlessing)
        found = [store.last(kind) for kind in kinds]
        if None in found:
            return  # A night is making them.
        exported, evaluation, validation = found
        with tempfile.TemporaryDirectory() as out:
            pusher.build(
                exported,
                evaluation,
                validation,
                settings=PusherSettings(keep=KEEP),
                destination=destination_of(output),
                out=PushedModel(Path(out), "1"),
                force=True,
            )

    def roll_back(output: str) -> None:
        destination = destination_of(output)
        history = pusher.read(destination)
        if len(history.versions) > 1:
            pusher.rollback(destination, history.versions[-2], "load")

    def tidy(output: str) -> None:
        try:
            list(versions.collect_garbage(Store.open(output), dry_run=False))
        except SkipstreamError as error:
            if "in use" not in str(error):  # By a night.
                raise

    def act() -> None:
        nonlocal turn
        output = (directory, bucket)[turn % 2]
        (push, roll_back, tidy)[turn // 2 % 3](output)
        turn += 1

    return act, lambda: 0


if __name__ == "__main__":
    sys.exit(main())
