"""Ask a SavedModel the requests of a file: a process of its own, with TensorFlow and nothing else.

Run by path, `python probe.py`, so that nothing of skipstream is imported and the model has to stand
on its own. What to do is one line of stdin, `[SAVED_MODEL, REQUESTS, ANSWERS]` in JSON: TensorFlow
is loaded before that comes. If stdin ends without it, so does this process.

REQUESTS (JSON): `[{"signature": name, "inputs": {name: [string, ...] or integer}}, ...]`.
ANSWERS: a directory. answers.json holds the TensorFlow version, the seconds of the load and, for
each request, its seconds and its string outputs; `<request>.<output>.npy` each numeric output.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from queue import Queue


def main(saved_model: str, requests: str, answers: str) -> None:
    """Load, ask, write."""
    import numpy as np
    import tensorflow as tf

    started = time.perf_counter()
    signatures = tf.saved_model.load(saved_model).signatures
    loaded = time.perf_counter() - started
    answered = []
    for number, request in enumerate(json.loads(Path(requests).read_text(encoding="utf-8"))):
        inputs = {
            name: tf.constant(value, tf.int32)
            if isinstance(value, int)
            else tf.constant(
                [word.encode("utf-8", "surrogateescape") for word in value],
                tf.string,
                [len(value)],
            )
            for name, value in request["inputs"].items()
        }
        started = time.perf_counter()
        outputs = {
            name: tensor.numpy()
            for name, tensor in signatures[request["signature"]](**inputs).items()
        }
        seconds = time.perf_counter() - started
        strings = {}
        for name, values in outputs.items():
            if values.dtype == object:
                strings[name] = [[word.decode() for word in row] for row in values]
            else:
                np.save(Path(answers) / f"{number}.{name}.npy", values)
        answered.append({"seconds": seconds, "strings": strings})
    (Path(answers) / "answers.json").write_text(
        json.dumps({"tensorflow": tf.__version__, "load_seconds": loaded, "requests": answered}),
        encoding="utf-8",
    )


def _listen(told: "Queue[list[str]]") -> None:
    line = sys.stdin.readline()
    if not line:  # Whoever would have told us is gone.
        os._exit(1)
    told.put(json.loads(line))


if __name__ == "__main__":
    told: "Queue[list[str]]" = Queue()
    # A thread: it hears of the end of stdin while TensorFlow is being loaded.
    threading.Thread(target=_listen, args=(told,), daemon=True).start()
    # As `components.lean_keras`, which cannot be imported here, and for the same reason.
    for name in ("sklearn", "matplotlib", "IPython"):
        sys.modules[name] = None  # type: ignore[assignment]
    import tensorflow  # noqa: F401

    main(*told.get())
