"""Texts that Hypothesis wrote: one tokeniser in four places, counts, and requests to a model."""

import functools
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import strategies
import tensorflow as tf
from hypothesis import event, example, given
from hypothesis import strategies as st
from test_transform import run, words_of

from components import spelling, text
from components.errors import SkipstreamError
from components.example_gen.formats import Block
from components.example_gen.split import held_out
from components.exporter.embeddings import Embeddings
from components.exporter.signatures import EmbeddingModel
from components.phrases import HEADER
from components.settings import TransformSettings
from components.subwords import Buckets, Subwords
from components.transform import preprocessing, records, segments
from components.transform.segment_ref import SegmentRef

OPTIONS = [
    {"tokenizer": tokenizer, "lowercase": lowercase}
    for tokenizer in ("words", "whitespace")
    for lowercase in (True, False)
]
DOCUMENTS = st.lists(
    st.one_of(strategies.texts().map(str.encode), strategies.odd_texts()), min_size=1, max_size=12
)
SUBWORDS = Subwords(2, 4, 3000)
DIMENSIONS = 6
MOST = 10_000  # answers to a request, of a small model


@functools.cache
def graph(function: Callable[..., Any], tokenizer: str, lowercase: bool) -> Callable[..., Any]:
    """A function of `text`, traced once."""
    options = {"tokenizer": tokenizer, "lowercase": lowercase}
    return tf.function(
        lambda texts: function(texts, **options),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def tokens_in_graph(documents: list[bytes], options: dict[str, Any]) -> list[list[str]]:
    ragged = graph(text.tokenize, **options)(tf.constant(documents, tf.string))
    return [[token.decode() for token in document] for document in ragged.to_list()]


def surrogates(documents: list[bytes]) -> list[str]:
    """As Python has bytes of the command line that are no text."""
    return [document.decode("utf-8", "surrogateescape") for document in documents]


def tokens_of(segment: segments.Segment) -> list[list[str]]:
    tokens = np.array([token.decode() for token in segment.types.to_pylist()], object)
    bounds = segment.bounds[1:-1]
    return [list(tokens[part]) for part in np.split(segment.tokens, bounds)]


def block_of(documents: list[bytes]) -> Block:
    size = sum(map(len, documents))
    return Block(pa.array(documents, pa.binary()), {"documents": len(documents), "bytes": size})


@strategies.examples(1 / 4)
@given(documents=DOCUMENTS, options=st.sampled_from(OPTIONS))
def test_tokens_are_the_same_in_the_job_the_graph_and_python(
    documents: list[bytes], options: dict[str, Any]
) -> None:
    expected = tokens_in_graph(documents, options)
    assert spelling.tokenize(surrogates(documents), **options) == expected
    settings = TransformSettings(**options)
    (segment,) = segments.tokenise([block_of(documents)], settings=settings, eval_share=0)
    assert tokens_of(segment) == expected
    event("no token" if not any(expected) else "tokens")


@strategies.examples(1 / 4)
@given(words=DOCUMENTS, options=st.sampled_from(OPTIONS))
def test_words_are_spelled_the_same_in_the_graph_and_in_python(
    words: list[bytes], options: dict[str, Any]
) -> None:
    spelled = graph(text.spell, **options)(tf.strings.strip(tf.constant(words, tf.string)))
    expected = [word.decode() for word in spelled.numpy()]
    assert spelling.spell(surrogates(words), **options) == expected
    # A token is spelled as it is, so that every word of a vocabulary is found.
    tokens = [token for document in tokens_in_graph(words, options) for token in document]
    assert spelling.spell(tokens, **options) == tokens


@pytest.fixture(scope="module")
def segment_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("segments") / "0")


@strategies.examples(1 / 4)
@given(
    documents=st.lists(DOCUMENTS, min_size=1, max_size=4),
    options=st.sampled_from(OPTIONS),
    limits=st.fixed_dictionaries(
        {
            "min_count": st.integers(1, 4),
            "max_size": st.none() | st.integers(1, 9),
            "min_tokens": st.integers(1, 3),
            "max_token_length": st.none() | st.integers(1, 6),
        }
    ),
    eval_share=st.sampled_from([0.0, 0.3, 0.5]),
    order=st.randoms(use_true_random=False),
)
def test_vocabulary_and_counts_equal_a_counter(
    segment_file: str,
    documents: list[list[bytes]],
    options: dict[str, Any],
    limits: dict[str, Any],
    eval_share: float,
    order: random.Random,
) -> None:
    settings = TransformSettings(**options, **limits)
    made = segments.tokenise(map(block_of, documents), settings=settings, eval_share=eval_share)
    segments.save(made, segment_file)
    refs = [SegmentRef(0, n, segment_file, False) for n in range(segments.count(segment_file))]
    summed = preprocessing.SumCounts()
    parts = [table for ref in refs for _, table in preprocessing.types_by_partition(ref)]
    order.shuffle(parts)  # Workers add up in any order.
    total = summed.extract_output(summed.merge_accumulators([[part] for part in parts]))
    _, (tokens, types, kept) = preprocessing._at_least(0, total, limits["min_count"])
    lines = b"".join(preprocessing.vocabulary_lines(kept, limits["max_size"]))

    flat = [document for block in documents for document in block]
    split = tokens_in_graph(flat, options)
    longest = limits["max_token_length"] or 10**9
    short = [[token for token in document if len(token) <= longest] for document in split]
    naive = [document for document in short if not 0 < len(document) < limits["min_tokens"]]
    counter = Counter(token.encode() for document in naive for token in document)
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = [item for item in ranked if item[1] >= limits["min_count"]][: limits["max_size"]]
    assert (tokens, types) == (counter.total(), len(counter))
    assert lines == b"".join(b"%s\t%d\n" % item for item in vocabulary)

    ids = {token: id_ for id_, (token, _) in enumerate(vocabulary)}
    counts: Counter[str] = Counter()
    for ref in refs:
        segment = ref.load()
        of_types = np.array([ids.get(token, -1) for token in segment.types.to_pylist()], np.int64)
        counts += records.measure(segment, records.known(segment, of_types)[1])
    known = [sum(token.encode() in ids for token in document) for document in naive]
    assert counts["dropped.no_token"] == sum(not document for document in naive)
    assert counts["dropped.no_known_token"] == sum(
        bool(document) and not count for document, count in zip(naive, known, strict=True)
    )
    assert counts["too_short"] == len(short) - len(naive)
    assert counts["tokens.too_long"] == sum(map(len, split)) - sum(map(len, short)) - sum(
        len(every) - len(kept)
        for every, kept in zip(split, short, strict=True)
        if 0 < len(kept) < limits["min_tokens"]
    )
    assert counts["train.tokens"] + counts["eval.tokens"] == counter.total()
    assert counts["train.kept_tokens"] + counts["eval.kept_tokens"] == sum(known)
    chosen = held_out(pa.array(flat, pa.binary()), eval_share)
    sides = [side for side, document in zip(chosen, short, strict=True) if document in naive]
    assert counts["eval.documents"] == sum(
        bool(side) and count > 0 for side, count in zip(sides, known, strict=True)
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@strategies.examples(1 / 200)  # A job takes seconds.
@given(
    documents=st.lists(strategies.plain_texts("\r\n"), min_size=20, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=2).map(sorted),
    packing=st.sampled_from(list(strategies.PACK)),
    options=st.sampled_from(OPTIONS),
    min_count=st.integers(1, 3),
)
def test_the_job_counts_what_a_counter_counts(
    outputs: Path,
    documents: list[str],
    cuts: list[int],
    packing: str,
    options: dict[str, Any],
    min_count: int,
) -> None:
    path = outputs / str(len(list(outputs.iterdir())))
    path.mkdir()
    bounds = [0, *cuts, len(documents)]
    for number, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        content = "".join(f"{document}\n" for document in documents[start:stop]).encode()
        (path / f"{number}.txt{packing}").write_bytes(strategies.PACK[packing](content))
    split = tokens_in_graph([document.encode() for document in documents], options)
    counter = Counter(token.encode() for document in split for token in document)
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = [(token, count) for token, count in ranked if count >= min_count]
    settings = TransformSettings(**options, min_count=min_count)
    pattern = f"{path}/*.txt{packing}"
    try:
        made = run(path / "out", pattern, settings=settings, format="lines", eval_share=0)
    except SkipstreamError as error:
        assert len(vocabulary) < 2, error
        return
    lines = b"".join(b"%s\t%d\n" % item for item in vocabulary)
    assert (made.path / "vocabulary.tsv").read_bytes() == lines
    assert made.statistics["tokens"] == counter.total()
    assert made.statistics["types"] == len(counter)
    known = {token.decode() for token, _ in vocabulary}
    kept = [[token for token in document if token in known] for document in split]
    assert words_of(made) == [document for document in kept if document]
    dropped = made.statistics["documents_dropped"]
    assert sum(dropped.values()) + made.statistics["splits"]["train"]["documents"] == len(documents)


def save(path: Path, words: list[str], **options: Any) -> tuple[Any, Embeddings]:
    """A model as TensorFlow serves it, and as it is read without."""
    path.mkdir()
    (path / "vocabulary.txt").write_bytes(b"".join(word.encode() + b"\n" for word in words))
    pairs = [b"1 %s %s\t2\t3.0\n" % (a.encode(), b.encode()) for a, b in pairwise(words)]
    if "buckets" in options:
        options["phrases"] = path / "phrases.tsv"
        options["phrases"].write_bytes(HEADER + b"".join(pairs[::3]))
    vectors = np.random.default_rng(1).normal(size=(len(words), DIMENSIONS)).astype(np.float32)
    vectors[5] = 0
    vectors[6] = vectors[7]
    module = EmbeddingModel(vectors, path / "vocabulary.txt", **options)
    tf.saved_model.save(module, str(path / "1"), signatures=dict(module.signatures))
    return tf.saved_model.load(str(path / "1")), Embeddings.load(path / "1")


@pytest.fixture(scope="module", params=["plain", "ngrams"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of float32 and words, and of int8, n-grams and phrases."""
    path = tmp_path_factory.mktemp("models") / request.param
    marks = list(strategies.AWKWARD)
    several = [a + b for a, b in zip(marks, marks[7:] + marks[:7], strict=True)]
    options: dict[str, Any] = {"tokenizer": "words", "lowercase": True}
    split = tokens_in_graph([part.encode() for part in [*marks, *several, "don't stop"]], options)
    words = list(dict.fromkeys(token for document in split for token in document))
    words += [f"w{number}" for number in range(300)]
    if request.param == "ngrams":
        draw = np.random.default_rng(2)
        ids = np.sort(draw.choice(SUBWORDS.buckets, 2000, replace=False)).astype(np.int32)
        rows = draw.normal(size=(2000, DIMENSIONS)).astype(np.float32)
        options |= {"storage": "int8", "buckets": Buckets(SUBWORDS, ids, rows)}
    return save(path, words, **options)


WORDS = st.lists(
    st.one_of(
        strategies.odd_texts(3),
        strategies.texts(max_size=3).map(str.encode),
        st.sampled_from([b"", b"\0", b" ", b"a" * 9000, "é".encode() * 10_000, b"\xff" * 300]),
    ),
    max_size=6,
)
ANY_K = st.one_of(
    st.integers(1, 12),
    st.sampled_from([0, -1, 128, 129, 400, 10_000, 10_001, 2**31 - 1, -(2**31)]),
    st.integers(-(2**31), 2**31 - 1),
)


# Many are in the vocabulary.
MANY = [
    *map(str.encode, strategies.AWKWARD[::3]),
    *(b"W%d" % number for number in range(0, 320, 40)),
]


@strategies.examples(1 / 10)
@given(words=WORDS, k=ANY_K)
@example(words=MANY, k=7)
@example(words=MANY[::5], k=390)
def test_any_words_are_answered(model: Any, words: list[bytes], k: int) -> None:
    served, embeddings = model
    rows = len(words)
    given = tf.constant(words, tf.string, [rows])
    answer = served.signatures["serving_default"](words=given)
    vectors, known = embeddings.vectors_of(surrogates(words))
    assert answer["embedding"].shape == (rows, DIMENSIONS)
    assert answer["in_vocabulary"].numpy().tolist() == known.tolist()
    np.testing.assert_array_equal(answer["embedding"].numpy()[known], vectors[known])
    np.testing.assert_allclose(answer["embedding"], vectors, rtol=1e-5, atol=1e-6)

    atol = 2e-5 if embeddings.buckets() else 2e-6  # With int8 and n-grams, more bits differ.
    asked = {"words": given}, {"a": given, "b": given[::-1], "c": tf.roll(given, 1, 0)}
    for name, inputs in zip(("nearest", "analogy"), asked, strict=True):
        signature = served.signatures[name]
        if not 0 < k <= MOST:
            with pytest.raises(tf.errors.InvalidArgumentError, match="k must be"):
                signature(**inputs, k=tf.constant(k))
            continue
        answer = signature(**inputs, k=tf.constant(k))
        assert answer["neighbors"].shape == answer["similarity"].shape == (rows, k)
        found, cosines = answer["neighbors"].numpy(), answer["similarity"].numpy()
        given_words = [surrogates(list(part.numpy())) for part in inputs.values()]
        if name == "nearest":
            expected = embeddings.nearest(given_words[0], k) if rows else []
        else:
            expected = [embeddings.analogy(*three, k) for three in zip(*given_words, strict=True)]
        for row, near in enumerate(expected):
            count = len(near or [])
            assert np.flatnonzero(found[row] != b"").tolist() == list(range(count))
            assert not cosines[row, count:].any()
            near_words = [word.decode() for word in found[row, :count]]
            assert_same(near or [], near_words, cosines[row, :count], atol)


def assert_same(
    ours: list[tuple[str, float]], words: list[str], cosines: np.ndarray, atol: float
) -> None:
    """Words may change places, the last one with others, where the last bits of cosines differ."""
    np.testing.assert_allclose([cosine for _, cosine in ours], cosines, atol=atol)
    table = dict(ours)
    for (word, _), other, cosine in zip(ours, words, cosines, strict=True):
        assert word == other or abs(table.get(other, ours[-1][1]) - cosine) < atol


@strategies.examples(1 / 10)
@given(texts=st.lists(DOCUMENTS.map(b" ".join), max_size=6))
@example(texts=[b" ".join(MANY[start : start + 8]) for start in range(len(MANY))])
def test_any_texts_are_answered(model: Any, texts: list[bytes]) -> None:
    served, embeddings = model
    answer = served.signatures["embed_text"](text=tf.constant(texts, tf.string, [len(texts)]))
    means, tokens, known = embeddings.means_of(surrogates(texts))
    assert answer["embedding"].shape == (len(texts), DIMENSIONS)
    assert answer["token_count"].numpy().tolist() == tokens.tolist()
    assert answer["known_count"].numpy().tolist() == known.tolist()
    np.testing.assert_allclose(answer["embedding"], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embeddings.embed(surrogates(texts)), means)
