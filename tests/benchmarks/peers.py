"""The peers of the benchmarks of training: gensim's and fastText's skip-gram, on our tokens.

Each writes what it learned as vectors.npy, float32, by our ids.
"""

import re
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scoring import Result

from components.artifacts import Examples
from components.settings import TrainerSettings
from components.vocabulary import Vocabulary

THREADS = 2


def peak_megabytes() -> int:
    """Peak resident memory of this process, in MB. (getrusage's begins with the parent's.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def save_by_id(
    examples: Examples,
    work: Path,
    settings: TrainerSettings,
    known: Container[str],
    vector_of: Callable[[str], np.ndarray],
    unknown: Sequence[str] = (),
) -> None:
    """Write what another system learned as vectors.npy, by our ids; zeros for the unknown.

    With subwords it answers all words, and those of `unknown` follow.
    """
    tokens = Vocabulary.load(examples.path / "vocabulary.tsv").tokens
    if settings.max_ngram:
        tokens = (*tokens, *unknown)
    vectors = np.zeros((len(tokens), settings.dimensions), np.float32)
    for id_, token in enumerate(tokens):
        if settings.max_ngram or token in known:
            vectors[id_] = vector_of(token)
    np.save(work / "vectors.npy", vectors)


def train_gensim(examples: Examples, work: Path, settings: TrainerSettings, alpha: float) -> Result:
    """gensim's Word2Vec."""
    from gensim.models import Word2Vec

    file = str(work / "tokens.txt")
    model = Word2Vec(
        vector_size=settings.dimensions,
        window=settings.window,
        negative=settings.negatives,
        ns_exponent=settings.noise_exponent,
        sample=settings.sample,
        seed=settings.seed,
        alpha=alpha,
        sg=1,
        min_count=1,
        workers=THREADS,
    )
    model.build_vocab(corpus_file=file)
    start = time.monotonic()
    model.train(
        corpus_file=file,
        total_examples=model.corpus_count,
        total_words=model.corpus_total_words,
        epochs=settings.epochs,
    )
    result = {"seconds": round(time.monotonic() - start, 1), "peak_mb": peak_megabytes()}
    save_by_id(examples, work, settings, model.wv, model.wv.get_vector)
    return result


def train_fasttext(
    examples: Examples,
    work: Path,
    settings: TrainerSettings,
    peer_threads: int,
    unknown: Sequence[str] = (),
) -> Result:
    """fastText's skip-gram, at its own default rate, which is ours, too; no seed."""
    import fasttext

    def train(epochs: int) -> tuple[Any, float]:
        start = time.monotonic()
        model = fasttext.train_unsupervised(
            str(work / "tokens.txt"),
            model="skipgram",
            lr=settings.learning_rate,
            dim=settings.dimensions,
            ws=settings.window,
            neg=settings.negatives,
            t=settings.sample,
            epoch=epochs,
            minCount=1,
            minn=settings.min_ngram,
            maxn=settings.max_ngram,
            bucket=settings.buckets if settings.max_ngram else 0,
            thread=peer_threads,
            verbose=0,
        )
        return model, time.monotonic() - start

    reading = train(0)[1]  # It reads the vocabulary in the same call.
    model, seconds = train(settings.epochs)
    result = {"seconds": round(seconds - reading, 1), "peak_mb": peak_megabytes()}
    save_by_id(examples, work, settings, set(model.words), model.get_word_vector, unknown)
    return result
