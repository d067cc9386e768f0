"""Prints what SavedModels answer: SHA-256 of the vectors of all words, by directory, as JSON."""

import hashlib
import json
import sys
from pathlib import Path

import tensorflow as tf


def main(root: Path) -> None:
    """`root` holds a SavedModel a directory."""
    found = {}
    for path in sorted(root.iterdir()):
        model = tf.saved_model.load(str(path))
        words = (path / "assets" / "vocabulary.txt").read_bytes().split(b"\n")
        answer = model.signatures["serving_default"](words=tf.constant(words))
        found[path.name] = hashlib.sha256(answer["embedding"].numpy().tobytes()).hexdigest()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
