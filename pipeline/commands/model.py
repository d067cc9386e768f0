"""`skipstream neighbors`, `analogy`, `embed`, `export` and `drift`: what models answer."""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import SettingsError, SkipstreamError
from components.names import cut
from pipeline import results
from pipeline.commands import places

if TYPE_CHECKING:
    from components.exporter.embeddings import Embeddings

TEXTS_A_CALL = 256  # Of `embed`.


def drift(arguments: argparse.Namespace) -> None:
    """`skipstream drift`."""
    from components.evaluator.drift import Space, compare

    old, new = (
        Space.load(places.local(address), address) for address in (arguments.old, arguments.new)
    )
    report = compare(new, old)
    text = json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else None
    print(text or results.drift(report))


def neighbors(arguments: argparse.Namespace) -> None:
    """`skipstream neighbors`."""
    _check_order("neighbors", arguments.model, arguments.words)
    embeddings = _load(arguments.model)

    def answer(words: Sequence[str]) -> None:
        unknown = []
        for word, nearest in zip(words, embeddings.nearest(words, arguments.k), strict=True):
            if nearest is None:
                unknown.append(word)
            elif word not in embeddings:
                _mark(word)
            for neighbor, similarity in nearest or ():
                print(word, neighbor, f"{similarity:.4f}", sep="\t")
        embeddings.refuse(unknown)

    _ask(answer, arguments.words, "a word a line")


def analogy(arguments: argparse.Namespace) -> None:
    """`skipstream analogy`."""
    _check_order("analogy", arguments.model, arguments.words)
    if arguments.words:
        _check_three(arguments.words)
    embeddings = _load(arguments.model)

    def answer(words: Sequence[str]) -> None:
        _check_three(words)
        vectors, known = embeddings.vectors_of(words)
        embeddings.refuse(list(itertools.compress(words, ~known & ~vectors.any(axis=1))))
        for word in itertools.compress(words, ~known):
            _mark(word)
        a, b, c = words
        for word, similarity in embeddings.analogy(a, b, c, arguments.k) or ():
            print(word, f"{similarity:.4f}", sep="\t")

    _ask(answer, arguments.words, "three words a line, A B C")


def embed(arguments: argparse.Namespace) -> None:
    """`skipstream embed`."""
    embeddings = _load(arguments.model)
    lines = _lines()
    while texts := list(itertools.islice(lines, TEXTS_A_CALL)):
        for vector, tokens, known in zip(*embeddings.means_of(texts), strict=True):
            # numpy's text of a float32 is the shortest that reads back as the same.
            numbers = ", ".join(map(str, vector))
            counts = json.dumps({"token_count": int(tokens), "known_count": int(known)})
            print(f'{{"embedding": [{numbers}], {counts[1:]}')


def export(arguments: argparse.Namespace) -> None:
    """`skipstream export`."""
    from components.exporter import formats

    formats.check(arguments.format, arguments.output)  # Before the model is loaded.
    embeddings = _load(arguments.model)
    for path in formats.write(embeddings, format=arguments.format, output=arguments.output):
        print(path)


def _load(model: str) -> "Embeddings":
    from components.exporter.embeddings import Embeddings

    return Embeddings.load(places.local(model), model)


def _ask(answer: Callable[[Sequence[str]], None], words: Sequence[str], hint: str) -> None:
    """Answer `words`; without any, those of each line of stdin at once, whatever is unknown."""
    if words:
        answer(words)
        return
    if sys.stdin.buffer.isatty():
        print(f"{hint}; Ctrl-D ends", file=sys.stderr)
    for line in _lines():
        if words := line.split():
            try:
                answer(words)
            except SkipstreamError as error:
                print(error, file=sys.stderr)
            sys.stdout.flush()


def _lines() -> Iterator[str]:
    """Those of stdin; what is no UTF-8 as surrogates."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _check_order(command: str, model: str, words: Sequence[str]) -> None:
    def is_model(word: str) -> bool:
        return "://" in word or Path(word).is_dir()

    if not is_model(model) and (models := [word for word in words if is_model(word)]):
        others = [word for word in (model, *words) if word != models[0]]
        right = shlex.join(["skipstream", command, models[0], *others])
        raise SettingsError(f"MODEL comes first, got {model}, which is not there: {right}")


def _check_three(words: Sequence[str]) -> None:
    if len(words) != 3:
        raise SettingsError(f"an analogy takes three words, A B C, got {' '.join(map(cut, words))}")


def _mark(word: str) -> None:
    """Say, beside the answer, of what it was made."""
    print(f"{cut(word)} (not in the vocabulary: from its n-grams)", file=sys.stderr)
