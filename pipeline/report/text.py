"""How numbers, words and settings are written on the page. Jinja escapes what these return."""

import json
import re
import unicodedata
from typing import Any

from components.names import encodable

CUT = 48  # Characters of a word that are shown.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # Persian and Hindi words and emoji hold them.
_TAGS = re.compile("[\U000e0020-\U000e007f\ufe0f]")


def word(token: str) -> str:
    r"""A token as a page shows it: cut, and with what cannot be seen as escapes.

    >>> print(word("don't"), word("a\u202eb\x00"), word("x" * 60))
    don't a\u202eb\x00 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
    """
    cut = token if len(token) <= CUT else f"{token[:CUT]}…"
    return "".join(map(_seen, cut))


def _seen(char: str) -> str:
    harmless = char in _JOINERS or _TAGS.match(char)
    if unicodedata.category(char) not in _HIDDEN or harmless:
        return char
    return char.encode("unicode_escape", "backslashreplace").decode()


def number(value: float | None) -> str:
    """A count, or a measure with four digits.

    >>> number(1637510), number(2.12145), number(2e-05), number(None)
    ('1,637,510', '2.121', '2e-05', 'none')
    """
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one.

    >>> percent(0.988276), percent(0.00004), percent(0)
    ('98.8 %', '< 0.1 %', '0.0 %')
    """
    if share is None:
        return "not measured"
    least = 10.0 ** -(digits + 2)
    return f"< {100 * least:.{digits}f} %" if 0 < share < least else f"{100 * share:.{digits}f} %"


def size(value: float | None) -> str:
    """Bytes, in the largest unit of which there is one.

    >>> size(2418619), size(900), size(None)
    ('2.4 MB', '900 B', '–')
    """
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float | None) -> str:
    """Seconds, for a person.

    >>> duration(0.017), duration(59.107), duration(4000), duration(None)
    ('0.02 s', '59.1 s', '1 h 7 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.2f} s" if seconds < 0.1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: str | None) -> str:
    """An ISO time in UTC, without its seconds.

    >>> moment("2026-11-29T00:06:55+00:00")
    '2026-11-29 00:06 UTC'
    """
    return f"{text[:10]} {text[11:16]} UTC" if text else "–"


def phrase(name: str) -> str:
    """A name with underscores as words.

    >>> phrase("below_min_count_or_beyond_max_size")
    'below min count or beyond max size'
    """
    return name.replace("_", " ")


def value(setting: Any) -> str:
    """A setting as TOML and `--set` have it; what is not set is none."""
    return "none" if setting is None else encodable(json.dumps(setting, ensure_ascii=False))
