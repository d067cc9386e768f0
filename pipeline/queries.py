"""`skipstream stats`, `drift`, `neighbors`, `analogy`, `embed` and `export`: what models answer."""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence

from components.artifacts import Statistics
from components.errors import SkipstreamError
from components.settings import StatisticsGenSettings
from pipeline import lookup, results

TEXTS_A_CALL = 256  # Of `embed`.


def stats(arguments: argparse.Namespace) -> None:
    """`skipstream stats`."""
    examples = lookup.examples(arguments.run)
    finished = lookup.last(arguments.run, "statistics_gen", Statistics)
    path = arguments.output
    if finished and not arguments.against and not path:
        path, report = finished.path, finished.report
    else:
        from components.statistics_gen import statistics_gen

        against = lookup.examples(arguments.against) if arguments.against else None
        if path:
            path.mkdir(parents=True, exist_ok=True)
        report = statistics_gen.describe(
            examples, against, settings=StatisticsGenSettings(), directory=path
        )
    print(results.corpus(report))
    if path:
        print(path)


def drift(arguments: argparse.Namespace) -> None:
    """`skipstream drift`."""
    from components.evaluator.drift import Space, compare

    old, new = Space.load(arguments.old), Space.load(arguments.new)
    report = compare(new, old)
    text = json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else None
    print(text or results.drift(report))


def neighbors(arguments: argparse.Namespace) -> None:
    """`skipstream neighbors`."""
    from components.exporter.embeddings import Embeddings

    answers = Embeddings.load(arguments.model).nearest(arguments.words, arguments.k)
    unknown = []
    for word, answer in zip(arguments.words, answers, strict=True):
        if answer is None:
            unknown.append(word)
        for neighbor, similarity in answer or ():
            print(word, neighbor, f"{similarity:.4f}", sep="\t")
    _refuse_unknown(unknown)


def analogy(arguments: argparse.Namespace) -> None:
    """`skipstream analogy`."""
    from components.exporter.embeddings import Embeddings

    embeddings = Embeddings.load(arguments.model)
    words = (arguments.a, arguments.b, arguments.c)
    _, known = embeddings.vectors_of(words)
    _refuse_unknown([word for word, found in zip(words, known, strict=True) if not found])
    for word, similarity in embeddings.analogy(*words, k=arguments.k) or ():
        print(word, f"{similarity:.4f}", sep="\t")


def embed(arguments: argparse.Namespace) -> None:
    """`skipstream embed`."""
    from components.exporter.embeddings import Embeddings

    embeddings = Embeddings.load(arguments.model)
    lines = (line.rstrip(b"\r\n").decode("utf-8", "surrogateescape") for line in sys.stdin.buffer)
    while texts := list(itertools.islice(lines, TEXTS_A_CALL)):
        for vector, tokens, known in zip(*embeddings.embed(texts), strict=True):
            # numpy's text of a float32 is the shortest that reads back as the same.
            numbers = ", ".join(map(str, vector))
            counts = json.dumps({"token_count": int(tokens), "known_count": int(known)})
            print(f'{{"embedding": [{numbers}], {counts[1:]}')


def export(arguments: argparse.Namespace) -> None:
    """`skipstream export`."""
    from components.exporter import formats
    from components.exporter.embeddings import Embeddings

    embeddings = Embeddings.load(arguments.model)
    for path in formats.write(embeddings, format=arguments.format, output=arguments.output):
        print(path)


def _refuse_unknown(words: Sequence[str]) -> None:
    if words:
        raise SkipstreamError(
            f"not in the model's vocabulary: {', '.join(words)}: "
            "look for the form that the tokeniser makes of it"
        )
