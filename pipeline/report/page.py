"""The text of report.html: the template, its data, and what keeps both in the page.

Nothing of the corpus is ever markup: Jinja escapes it, the data are JSON without `<`, `>` and `&`,
and the page's own policy lets a browser run the two scripts with these digests alone, and load
nothing at all.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report import sections, text
from pipeline.report.facts import Facts, Words
from pipeline.report.words import MAPPED, nearest, positions

_ASSETS = Path(__file__).parent / "assets"
_COLORS = {
    "light": {
        "paper": "#fffdf8", "ink": "#1f2328", "soft": "#5b626b", "faint": "#a3a8ae",
        "line": "#e3dfd6", "accent": "#0f6b6b", "warm": "#c2571a",
    },
    "dark": {
        "paper": "#16181b", "ink": "#e8e6e1", "soft": "#a4a9b0", "faint": "#6a7077",
        "line": "#34383d", "accent": "#5cc2bd", "warm": "#f0965a",
    },
}  # fmt: skip
_MOST_CONTENT = 4_000  # Characters of what else an artifact was made of.


def render(facts: Facts) -> str:
    """The page.

    Args:
        facts: What the last run made.

    Returns:
        HTML, the same for the same artifacts.
    """
    words = facts.words()
    corpus, learning = sections.corpus(facts), sections.learning(facts)
    probes = sections.probes(facts.evaluation)
    first = _first(words, probes)
    charts = dict(corpus["charts"]) if corpus else {}
    if learning:
        charts["loss"] = learning["chart"]
    data = {
        "colors": _COLORS,
        "charts": charts,
        "words": _words(words, first) if words else None,
    }
    scripts = {name: _read(name) for name in ("echarts.min.js", "app.js")}
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        text.word, text.number, text.percent, text.size, text.duration, text.moment, text.phrase,
    ):  # fmt: skip
        environment.filters[function.__name__] = function
    return environment.get_template("page.html").render(
        digest=facts.digest(),
        address=facts.address,
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src {' '.join(map(_source, scripts.values()))}",
                "style-src 'unsafe-inline'",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        colors=_COLORS,
        style=Markup(_read("style.css")),
        scripts=[Markup(script) for script in scripts.values()],
        data=Markup(_json(data)),
        made=sections.made(facts, words.tokens[first:] if words else ()),
        verdict=sections.verdict(facts),
        words=words,
        mapped=min(MAPPED, len(words.tokens)) if words else 0,
        probes=probes,
        learning=learning,
        corpus=corpus,
        moved=sections.moved(facts),
        costs=sections.costs(facts),
        settings=sections.settings(facts),
        origin=list(sections.origin(facts)),
        most_content=_MOST_CONTENT,
    )


def _words(words: Words, first: int) -> dict[str, Any]:
    """What the map and the box ask: see app.js."""
    rows, cosines = nearest(words.vectors)
    return {
        "tokens": list(map(text.word, words.tokens)),
        "counts": words.counts,
        "k": rows.shape[1],
        "neighbors": _bytes(rows.astype("<u2")),
        "cosines": _bytes(np.rint(cosines * 10_000).astype("<i2")),
        "map": positions(words.vectors[:MAPPED]).tolist(),
        "first": first,
        "cut": text.CUT,
    }


def _first(words: Words | None, probes: list[Any]) -> int:
    """The word that the page begins with: one that means something."""
    names = {word for word, _ in probes}
    tokens = words.tokens if words else ()
    return next((id_ for id_, token in enumerate(tokens) if token in names), 0)


def _bytes(numbers: Any) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _json(value: Any) -> str:
    r"""JSON that no HTML parser sees an end of a script in.

    >>> print(_json({"word": "</script>&\u2028"}))
    {"word":"\u003c/script\u003e\u0026\u2028"}
    """
    found = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        found = found.replace(char, f"\\u{ord(char):04x}")
    return found


def _read(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


def _source(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
