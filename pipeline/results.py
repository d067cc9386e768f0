"""What a person sees: a corpus in numbers, a model's scores, the neighbours of a few words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from components.artifacts import by_reason
from components.names import cut

_WORDS = 8
_NEIGHBORS = 6
_TOKENS = 20
_SCRIPTS = 12
_JOINERS = "\u200c\u200d"  # Of Persian and Indian words, and of emoji.
_BAR = 40  # Columns of the longest bar of a histogram.


def summary(report: Mapping[str, Any]) -> str:
    """The content of evaluation.json as lines of text.

    >>> print(summary({
    ...     "neighbors": {"tensor": [["tensors", 0.81], ["array", 0.7]], "gradient": []},
    ...     "loss": 2.5, "loss_of": "held-out", "frequency_loss": 2.65,
    ...     "word_pairs": {
    ...         "ws353": {"spearman": 0.61, "covered": 340, "total": 353},
    ...         "rare": {"spearman": 0.41, "covered": 40, "total": 200,
    ...                  "spearman_with_ngrams": 0.36, "covered_with_ngrams": 198},
    ...     },
    ...     "analogies": {"google": {"accuracy": 0.25, "covered": 9000, "total": 19544}},
    ... }))
    tensor    tensors, array
    gradient
    held-out loss  2.5000 nats a pair, guessing by frequency 2.6500
    ws353          0.610 Spearman, 340 of 353 pairs covered
    rare           0.410 Spearman, 40 of 200 pairs covered; 0.360 over 198 with n-grams
    google         25.0 % right, 9,000 of 19,544 questions covered
    """
    neighbors = list(report.get("neighbors", {}).items())[:_WORDS]
    lines = _aligned(
        (_word(word), ", ".join(_word(neighbor) for neighbor, _ in found[:_NEIGHBORS]))
        for word, found in neighbors
    )
    scores = {}
    if (loss := report["loss"]) is not None:
        guessing = f"guessing by frequency {report['frequency_loss']:.4f}"
        scores[f"{report['loss_of']} loss"] = f"{loss:.4f} nats a pair, {guessing}"
    for name, score in report.get("word_pairs", {}).items():
        value = _number(score["spearman"], ".3f")
        scores[name] = f"{value} Spearman, {_coverage(score)} pairs covered"
        if covered := score.get("covered_with_ngrams"):
            value = _number(score["spearman_with_ngrams"], ".3f")
            scores[name] += f"; {value} over {covered:,} with n-grams"
    for name, score in report.get("analogies", {}).items():
        scores[name] = f"{_share(score['accuracy'])} right, {_coverage(score)} questions covered"
        if covered := score.get("covered_with_ngrams"):
            value = _share(score["accuracy_with_ngrams"])
            scores[name] += f"; {value} over {covered:,} with n-grams"
    lines += _aligned(scores.items())
    if before := report.get("before"):
        lines += _beside(before)
    return "\n".join(lines)


def _beside(before: Mapping[str, Any]) -> Iterator[str]:
    """What the evaluation says of the version before."""
    yield f"beside version {before['version']}"
    for part in before["missing"]:
        yield f"  not compared: there is no {part}"
    for whose, losses in before["losses"].items():
        now, then = (_number(losses[when], ".4f") for when in ("now", "before"))
        documents = "own" if whose == "own_documents" else "its"
        yield f"  loss on {documents} held-out documents  {now}, was {then}, of the words of both"
    if drift := before["drift"]:
        overlap = _share(drift["neighbors"]["overlap"])
        coverage = f"{_share(drift['words']['coverage'])} of the words"
        if (answered := drift["words"]["coverage_with_ngrams"]) is not None:
            coverage += f" ({_share(answered)} with n-grams)"
        yield f"  {overlap} of the neighbours of frequent words stayed, {coverage}"


def drift(report: Mapping[str, Any]) -> str:
    """The report of components.evaluator.drift as lines of text."""
    now, before, words = report["now"], report["before"], report["words"]
    near, fit, cosines = report["neighbors"], report["procrustes"], report["self_cosine"]
    lines = [
        f"{'before':>12}  {'now':>12}",
        *(
            f"{before[key]:>12,.6g}  {now[key]:>12,.6g}  {name}"
            for key, name in (
                ("types", "words"),
                ("dimensions", "dimensions"),
                ("median_norm", "median length of the vectors of frequent words"),
                ("largest_norm", "length of the longest vector"),
                ("mean_cosine", "mean cosine of two frequent words"),
            )
        ),
        "",
        _row(
            f"{words['shared']:,}", "shared words", f"{_share(words['coverage'])} of those before"
        ),
    ]
    for kind in ("new", "vanished"):
        listed = " ".join(map(_word, words[kind]["top"]))
        lines.append(_row(f"{words[kind]['types']:,}", f"{kind} words", listed))
        if composed := words[kind]["composed"]:
            lines.append(_by_ngrams(composed, "had" if kind == "new" else "have"))
    lines += [
        "",
        _row(
            _share(near["overlap"]),
            f"of the {near['of']} nearest words stayed",
            f"mean of the {near['words']:,} most frequent words",
        ),
        _row(
            f"{near['churned']['words']:,}",
            "words kept none",
            " ".join(map(_word, near["churned"]["top"])),
        ),
    ]
    if fit:
        note = f"0: the same, 1.414: unrelated; by {fit['words']:,} frequent words"
        lines.append(_row(f"{fit['residual']:.4f}", "Procrustes residual", note))
    if cosines:
        lines += ["", f"{'':>12}  cosine of each shared word with itself, quantiles"]
        for name, quantiles in cosines.items():
            numbers = "  ".join(f"{q}: {value:.3f}" for q, value in quantiles.items())
            lines.append(f"{name.replace('_', ' '):>12}  {numbers}")
    if report["moved"]:
        lines += ["", f"{'cosine':>12}  {'kept':>4}  moved most"]
    for word in report["moved"]:
        was, are = (" ".join(map(_word, word[when])) for when in ("before", "now"))
        cosine = _number(word["cosine"], ".3f")
        lines.append(f"{cosine:>12}  {word['kept']:>4}  {_word(word['token'])}: {was} -> {are}")
    return "\n".join(lines)


def _by_ngrams(composed: Mapping[str, Any], had: str) -> str:
    """What the n-grams of the other model make of new or vanished words."""
    note = ""
    if composed["self_cosine"]:
        *_, (how, quantiles) = composed["self_cosine"].items()
        note = f"median cosine with their own, {how.replace('_', ' ')}: {quantiles['0.5']:.3f}"
    return _row(f"{composed['types']:,}", f"of them {had} a vector of n-grams", note)


def corpus(report: Mapping[str, Any]) -> str:
    """The content of a Statistics artifact's report.json as lines of text.

    Numbers are right-aligned, words come last: how wide a terminal shows them is unknown.
    """
    facts = report["corpus"]
    blocks: list[Iterator[str]] = [
        _totals(facts),
        _drops(facts),
        _lengths(facts["document_lengths"]),
        _scripts(facts["scripts"]),
        _top(facts["top_tokens"], facts["kept_tokens"]),
    ]
    if drift := report["drift"]:
        blocks += [_drift(facts, drift), _moved(drift["moved"])]
    blocks.append(f"not to be trained on: {reason}" for reason in report["reasons"])
    return "\n\n".join("\n".join(lines) for block in blocks if (lines := list(block)))


def _totals(facts: Mapping[str, Any]) -> Iterator[str]:
    splits = ", ".join(f"{split['documents']:,} {name}" for name, split in facts["splits"].items())
    mean = facts["tokens"] / sum(bucket["documents"] for bucket in facts["document_lengths"])
    yield _row(f"{facts['documents']:,}", "documents", splits)
    yield _row(f"{facts['bytes']:,}", "bytes")
    yield _row(f"{facts['tokens']:,}", "tokens", f"{mean:,.1f} a document")
    yield _row(f"{facts['types']:,}", "types")
    yield _row(f"{facts['vocabulary']:,}", "types in the vocabulary")
    kept = _percent(facts["kept_share"]).strip()
    yield _row(f"{facts['kept_tokens']:,}", "tokens kept", kept)


def _drops(facts: Mapping[str, Any]) -> Iterator[str]:
    """Every `…_skipped`, `…_dropped` and `…_repaired` of statistics.json, by reason; phrases."""
    for name, reasons in by_reason(facts).items():
        for reason, count in reasons.items():
            if count:
                yield f"{count:>12,}  {name.replace('_', ' ')}: {reason.replace('_', ' ')}"
    if phrases := facts.get("phrases"):
        yield _row(f"{phrases['pairs_joined']:,}", "pairs joined", f"{phrases['types']:,} phrases")


def _lengths(lengths: Sequence[Mapping[str, int]]) -> Iterator[str]:
    yield f"{'documents':>12}  tokens a document"
    documents = {bucket["up_to"]: bucket["documents"] for bucket in lengths}
    most = max(documents.values())
    bound = min(documents)
    while bound <= max(documents):
        count = documents.get(bound, 0)
        bar = "#" * -(-_BAR * count // most)
        yield f"{count:>12,}  {f'{bound // 2 + 1:,} to {bound:,}':<20} {bar}".rstrip()
        bound *= 2


def _scripts(scripts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"{'types':>12}  share of the kept tokens, by script"
    for group in scripts[:_SCRIPTS]:
        yield f"{group['types']:>12,}  {_percent(group['share'])}  {group['script'] or 'no letter'}"
    if rest := scripts[_SCRIPTS:]:
        share = sum(group["share"] for group in rest)
        types = sum(group["types"] for group in rest)
        yield f"{types:>12,}  {_percent(share)}  {len(rest)} more"


def _top(tokens: Sequence[Mapping[str, Any]], total: int) -> Iterator[str]:
    yield f"{'count':>12}  share of the kept tokens"
    for entry in tokens[:_TOKENS]:
        share = _percent(entry["count"] / total)
        yield f"{entry['count']:>12,}  {share}  {_word(entry['token'])}"


def _drift(facts: Mapping[str, Any], drift: Mapping[str, Any]) -> Iterator[str]:
    yield f"beside the examples {drift['reference']}"
    before = drift["before"]
    for name in ("documents", "tokens", "types", "vocabulary"):
        change = f"{facts[name] / before[name] - 1:+.1%}".replace("%", " %")
        yield _row(f"{facts[name]:,}", name, f"was {before[name]:,}, {change}")
    was = _percent(before["kept_share"]).strip()
    yield _row(_percent(facts["kept_share"]), "kept tokens", f"was {was}")
    widest = drift["l_infinity"]
    yield _row(f"{widest['distance']:g}", "L-infinity distance", f"by '{_word(widest['token'])}'")
    distance = f"{drift['jensen_shannon']:g}"
    yield _row(distance, "Jensen-Shannon distance", "0: the same, 1: no word in common")
    for kind, when in (("new", "now"), ("vanished", "before")):
        words = drift[kind]
        note = f"{_percent(words['share']).strip()} of the tokens {when}"
        if words["top"]:
            note += f": {' '.join(_word(entry['token']) for entry in words['top'])}"
        yield _row(f"{words['types']:,}", f"{kind} words", note)


def _moved(words: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if words:
        yield f"{'before':>12}  {'now':>12}  moved most"
    for word in words:
        before, now = (f"{100 * word[when]:.4f} %" for when in ("before", "now"))
        yield f"{before:>12}  {now:>12}  {_word(word['token'])}"


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    r"""Lines of two columns, as wide as a terminal shows them.

    >>> print(*_aligned([("漢字", "ok"), ("a", "b")]), sep="\n")
    漢字  ok
    a     b
    """
    rows = list(rows)
    width = max((cell_len(name) for name, _ in rows), default=0)
    return [f"{set_cell_size(name, width)}  {text}".rstrip() for name, text in rows]


def _row(number: str, name: str, note: str = "") -> str:
    return f"{number:>12}  {f'{name} ({note})' if note else name}"


def _percent(share: float) -> str:
    """Seven columns wide up to 99.99 %.

    >>> _percent(0.5), _percent(0.00001), _percent(0)
    ('50.00 %', '<0.01 %', ' 0.00 %')
    """
    return "<0.01 %" if 0 < share < 0.00005 else f"{100 * share:5.2f} %"


def _share(value: float | None) -> str:
    return _number(value, ".1%").replace("%", " %")


def _word(token: str) -> str:
    r"""A token as a terminal may show it: cut, control characters escaped, joiners of letters kept.

    >>> _word("3\x1b[m\u202e"), _word("\u0645\u06cc\u200c") == "\u0645\u06cc\u200c"
    ('3\\x1b[m\\u202e', True)
    """
    return "".join(
        char if char.isprintable() or char in _JOINERS else ascii(char)[1:-1] for char in cut(token)
    )


def _number(value: float | None, form: str) -> str:
    return "no score" if value is None else format(value, form)


def _coverage(score: Mapping[str, Any]) -> str:
    return f"{score['covered']:,} of {score['total']:,}"
