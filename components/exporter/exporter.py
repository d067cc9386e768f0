"""Trained vectors and the vocabulary become one SavedModel that takes strings."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components.artifacts import VOCABULARY, Examples, ExportedModel, Model, VersionBefore
from components.errors import SkipstreamError
from components.exporter import alignment
from components.exporter.served import COUNTS, Served
from components.exporter.signatures import EmbeddingModel
from components.graphs import no_bytecode
from components.phrases import FILE as PHRASES
from components.settings import ExporterSettings
from components.subwords import Buckets
from components.vocabulary import Vocabulary

MODEL_NAME = "skipstream"
_UNKNOWN = "zzzznotaword"  # to hardly any model
WARMUP = "assets.extra/tf_serving_warmup_requests"
_logger = logging.getLogger(__name__)


def build(
    model: Model,
    examples: Examples,
    *,
    settings: ExporterSettings,
    out: ExportedModel,
    before: VersionBefore | None = None,
) -> ExportedModel:
    """Write saved_model/: signatures, vocabulary, phrases, warm-up requests of TF Serving, counts.

    Args:
        model: The trained vectors.
        examples: Their vocabulary and phrases, and how the text was tokenised.
        settings: Which vectors are served.
        out: Where to write.
        before: The version onto whose space the vectors are turned, if any. Where they cannot be,
            the summary says why (`not_aligned`).

    Raises:
        SkipstreamError: Vectors and vocabulary are not of the same training, or averages are asked
            for and there are n-grams, of which there are no averages.
    """
    started = time.monotonic()
    text = examples.settings
    buckets = model.buckets
    if buckets and settings.vectors != "target":
        raise SkipstreamError(
            "exporter.vectors must be target for a model with n-grams, which have no context "
            f"vectors, got {settings.vectors}: --set exporter.vectors=target"
        )
    vectors = model.embeddings(settings)
    types = Vocabulary.load(examples / VOCABULARY)
    if len(vectors) != len(types):
        raise SkipstreamError(
            f"vectors and vocabulary must have one row per token, got {len(vectors)} vectors in "
            f"{model.address} and {len(types)} tokens in {examples.address}: train again"
        )
    aligned: dict[str, float | str] = {}
    if before and before.saved_model:
        found = _fit(vectors, types, before.saved_model)
        if isinstance(found, str):
            aligned = {"not_aligned": f"version {before.version} {found}"}
            _logger.warning("the vectors are not turned: %s", aligned["not_aligned"])
        else:
            np.save(out.path / alignment.ROTATION, found.rotation)
            vectors = alignment.turn(vectors, found.rotation)
            if buckets:
                turned = alignment.turn(buckets.rows, found.rotation)
                buckets = Buckets(buckets.subwords, buckets.ids, turned)
            aligned = {
                "aligned_to_version": before.version,
                "aligned_words": found.words,
                "alignment_residual": found.residual,
            }
    with TemporaryDirectory(dir=out.path) as scratch, _quiet():
        tokens = Path(scratch) / "vocabulary.txt"
        tokens.write_bytes(b"".join(token.encode() + b"\n" for token in types.tokens))
        module = EmbeddingModel(
            vectors,
            tokens,
            tokenizer=text.tokenizer,
            lowercase=text.lowered,
            phrases=examples / PHRASES,
            storage=settings.storage,
            buckets=buckets,
        )
        with no_bytecode():
            tf.saved_model.save(module, str(out.saved_model), signatures=dict(module.signatures))
    _write_warmup(out.saved_model, types.tokens, unknown=[_UNKNOWN] if buckets else [])
    counts = b"".join(b"%d\n" % count for count in types.counts.tolist())
    (out.saved_model / COUNTS).write_bytes(counts)
    size = sum(file.stat().st_size for file in out.saved_model.rglob("*") if file.is_file())
    return out.finish(
        settings,
        types=len(types),
        dimensions=int(vectors.shape[1]),
        **({"buckets": int(np.count_nonzero(buckets.rows.any(axis=1)))} if buckets else {}),
        bytes=size,
        **aligned,
        seconds=round(time.monotonic() - started, 3),
    )


def _fit(vectors: alignment.Vectors, types: Vocabulary, saved_model: Path) -> alignment.Fit | str:
    """How `vectors` are turned onto those of `saved_model`, or why they cannot be."""
    served = Served.load(saved_model)
    ids, served_ids = alignment.shared_words(types.tokens, served.words)
    frequent, onto = slice(alignment.FREQUENT), served.vectors
    if found := alignment.fit(vectors[ids[frequent]], onto[served_ids[frequent]]):
        return found
    if onto.shape[1] != vectors.shape[1]:
        return f"has {onto.shape[1]} dimensions, not {vectors.shape[1]}"
    return f"has {len(ids)} of the words, fewer than the {vectors.shape[1]} dimensions"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep saving's "Assets written to" from the screen; warnings still get through."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def _write_warmup(saved_model: Path, tokens: Sequence[str], unknown: Sequence[str]) -> None:
    """One request per signature, so that no user's request pays for the first run of the graph.

    Args:
        saved_model: Where it lies.
        tokens: The vocabulary.
        unknown: Words that are asked for besides, if there are vectors for such.
    """
    frequent = [tokens[i % len(tokens)] for i in range(3)]
    requests: dict[str, dict[str, list[str] | int]] = {
        "serving_default": {"words": [*frequent, *unknown]},
        "embed_text": {"text": [" ".join([*frequent, *unknown])]},
        "nearest": {"words": [*frequent[:1], *unknown], "k": 10},
        "analogy": {"a": frequent[:1], "b": frequent[1:2], "c": frequent[2:], "k": 10},
    }
    path = saved_model / WARMUP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                dtype = tf.int32 if isinstance(value, int) else tf.string
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
