"""What a SavedModel answers."""

import hashlib
import json
import sys
from pathlib import Path


def of(path: Path) -> str:
    """SHA-256 of the vectors of all words of a SavedModel."""
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    words = (path / "assets" / "vocabulary.txt").read_bytes().split(b"\n")
    answer = model.signatures["serving_default"](words=tf.constant(words))
    return hashlib.sha256(answer["embedding"].numpy().tobytes()).hexdigest()


if __name__ == "__main__":  # Of all directories in one, by their names, as JSON.
    print(json.dumps({path.name: of(path) for path in sorted(Path(sys.argv[1]).iterdir())}))
