"""Times the signatures of an exported model, in process, beside gensim's `most_similar`.

    make benchmark-serving MODEL=OUT/serving

Both answer for the same words from the same vectors, one request after the other, on all cores.
Words are taken evenly from the vocabulary's frequent half. What Python and TensorFlow take for any
request is shown by a signature that answers zeros and looks nothing up. Unknown words are known
ones written twice; a batch of mixed words has half of each.

Of a model stored as float32, a second table says what the other storages cost: how many of the ten
nearest words of frequent words stay, as `skipstream drift` counts them, what takes how long, and
bytes on disk.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

from components.evaluator.drift import Space, compare
from components.exporter.embeddings import Embeddings
from components.exporter.served import resolve
from components.settings import Storage

K = 10
BATCH = 64
LONG = 10_000  # characters


def timed(call: Callable[[int], Any], requests: int) -> dict[str, float]:
    """Milliseconds of a request: median, 99th percentile; the first ten are not counted."""
    times = []
    for number in range(requests + 10):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    p50, p99 = np.quantile(times[10:], [0.5, 0.99]) * 1000
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}


def nothing(dimensions: int) -> Any:
    """A loaded signature of `serving_default`'s inputs and outputs, all of them zeros."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words")])
    def zeros(words: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "embedding": tf.zeros([tf.size(words), dimensions]),
            "in_vocabulary": tf.zeros_like(words, tf.bool),
        }

    module = tf.Module()
    module.zeros = zeros
    with TemporaryDirectory() as scratch:
        tf.saved_model.save(module, scratch, signatures=zeros)
        return tf.saved_model.load(scratch)


def stored(
    embeddings: Embeddings, storage: Storage, words: Any, batches: Any, requests: int
) -> dict[str, Any]:
    """What it costs to serve `embeddings` from `storage`."""
    import tensorflow as tf

    from components.exporter.signatures import EmbeddingModel

    space = Space(embeddings.words, embeddings.vectors)
    with TemporaryDirectory() as scratch:
        vocabulary, path = Path(scratch, "vocabulary.txt"), Path(scratch, "model")
        vocabulary.write_bytes(b"".join(token.encode() + b"\n" for token in space.tokens))
        module = EmbeddingModel(
            space.vectors,
            vocabulary,
            tokenizer="words",
            lowercase=True,
            storage=storage,
            buckets=embeddings.buckets(),
        )
        tf.saved_model.save(module, str(path), signatures=dict(module.signatures))
        start = time.perf_counter()
        nearest = tf.saved_model.load(str(path)).signatures["nearest"]
        load = time.perf_counter() - start
        k = tf.constant(K)
        one = timed(lambda n: nearest(words=words[n % len(words)], k=k), requests)
        many = timed(lambda n: nearest(words=batches[n % len(batches)], k=k), 50)
        drift = compare(Space.load(path), space)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return {
            "storage": storage,
            "megabytes": round(size / 1e6, 1),
            "load_ms": round(1000 * load, 1),
            "nearest_p50_ms": one["p50_ms"],
            f"nearest_{BATCH}_p50_ms": many["p50_ms"],
            "nearest_kept": drift["neighbors"]["overlap"],
        }


def main() -> None:
    """Parse, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a SavedModel or a serving directory")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-serving.json"))
    parser.add_argument("--requests", type=int, default=300)
    flags = parser.parse_args()

    import tensorflow as tf
    from gensim.models import KeyedVectors

    path = resolve(flags.model)
    start = time.perf_counter()
    model = tf.saved_model.load(str(path))
    rows: list[dict[str, Any]] = [
        {"what": "load", "p50_ms": round(1000 * (time.perf_counter() - start), 1)}
    ]
    embeddings = Embeddings.load(path)
    tokens, vectors = embeddings.words, embeddings.vectors
    step = max(1, len(tokens) // 2 // flags.requests)
    chosen = tokens[: len(tokens) // 2 : step]
    words = [tf.constant([word]) for word in chosen]
    batches = [
        tf.constant([chosen[(first + i) % len(chosen)] for i in range(BATCH)])
        for first in range(len(chosen))
    ]
    known = set(tokens)
    strange = [word + word for word in chosen if word + word not in known]
    unknown = [tf.constant([word]) for word in strange]
    mixed = [
        tf.constant([(chosen, strange)[i % 2][(first + i) % len(strange)] for i in range(BATCH)])
        for first in range(len(strange))
    ]
    long = tf.constant([strange[0] * (LONG // len(strange[0]))])
    texts = [tf.constant([" ".join(chosen[first : first + 20])]) for first in range(len(chosen))]
    look_up, embed = model.signatures["serving_default"], model.signatures["embed_text"]
    nearest, k = model.signatures["nearest"], tf.constant(K)

    def add(what: str, call: Callable[[int], Any], requests: int = flags.requests) -> None:
        rows.append({"what": what} | timed(call, requests))
        print(json.dumps(rows[-1]), flush=True)

    size = len(chosen)
    floor = nothing(vectors.shape[1])
    answer_zeros = floor.signatures["serving_default"]
    add("answer zeros, 1 word", lambda n: answer_zeros(words=words[n % size]))
    add("serving_default, 1 word", lambda n: look_up(words=words[n % size]))
    add(f"serving_default, {BATCH} words", lambda n: look_up(words=batches[n % size]))
    odd = len(strange)
    add("serving_default, 1 unknown word", lambda n: look_up(words=unknown[n % odd]))
    add(f"serving_default, {BATCH} words, half unknown", lambda n: look_up(words=mixed[n % odd]))
    add(f"serving_default, a word of {LONG:,} characters", lambda n: look_up(words=long), 20)
    add("embed_text, 1 text of 20 words", lambda n: embed(text=texts[n % size]))
    add(f"nearest {K}, 1 word", lambda n: nearest(words=words[n % size], k=k))
    add(f"nearest {K}, {BATCH} words", lambda n: nearest(words=batches[n % size], k=k), 50)
    peer = KeyedVectors(vectors.shape[1])
    peer.add_vectors(tokens, vectors)
    peer.fill_norms()
    add(f"gensim most_similar {K}, 1 word", lambda n: peer.most_similar(chosen[n % size], topn=K))

    print(f"{len(tokens):,} types of {vectors.shape[1]} dimensions")
    print("| | p50 ms | p99 ms | p50 ms a word |\n|---|---|---|---|")
    for row in rows:
        a_word = round(row["p50_ms"] / BATCH, 3) if f"{BATCH} words" in row["what"] else ""
        print(f"| {row['what']} | {row['p50_ms']} | {row.get('p99_ms', '')} | {a_word} |")
    costs: list[dict[str, Any]] = []
    if model.vectors.dtype == tf.float32:
        print(f"\n| storage | MB | load, ms | nearest {K}, 1 word | {BATCH} words | kept |")
        print("|---|---|---|---|---|---|")
        for storage in get_args(Storage):
            costs.append(stored(embeddings, storage, words, batches, flags.requests))
            print("|", " | ".join(map(str, costs[-1].values())), "|", flush=True)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"types": len(tokens), "rows": rows, "storages": costs}
    flags.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
