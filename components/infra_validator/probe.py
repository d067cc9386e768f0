"""Ask a SavedModel the requests of a file: a process of its own, with TensorFlow and nothing else.

Run by path, `python probe.py SAVED_MODEL REQUESTS ANSWERS`, so that nothing of skipstream is
imported and the model has to stand on its own.

REQUESTS (JSON): `[{"signature": name, "inputs": {name: [string, ...] or integer}}, ...]`.
ANSWERS: a directory. answers.json holds the TensorFlow version, the seconds of the load and, for
each request, its seconds and its string outputs; `<request>.<output>.npy` each numeric output.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(saved_model: str, requests: str, answers: str) -> None:
    """Load, ask, write."""
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


if __name__ == "__main__":
    main(*sys.argv[1:])
