"""Text that is not UTF-8: which encoding it is in, and how it is converted."""

import codecs
import re

from components.example_gen import remedies

# What is in use for files without a mark, and what iconv calls it: each has a language or a system
# that wrote in it for years. Fewer names to choose from are fewer wrong guesses.
_ICONV = {
    "cp1252": "CP1252",
    "cp1250": "CP1250",
    "cp1251": "CP1251",
    "cp1253": "CP1253",
    "cp1254": "CP1254",
    "cp1255": "CP1255",
    "cp1256": "CP1256",
    "cp866": "CP866",
    "cp932": "CP932",
    "cp949": "CP949",
    "big5": "BIG5",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "iso8859_2": "ISO-8859-2",
    "iso8859_5": "ISO-8859-5",
    "iso8859_7": "ISO-8859-7",
    "koi8_r": "KOI8-R",
    "mac_roman": "MACINTOSH",
}
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
# Escape is none of them: terminals' colours are in many logs.
CONTROL = frozenset(range(32)) - frozenset(b"\0\t\n\v\f\r\x1b")
_SHIFT_TO_KANJI = re.compile(rb"\x1b\$[@B]")


def marked(sample: bytes) -> str | None:
    r"""The encoding that the beginning of a file names: by its byte order mark, or an escape.

    >>> marked("é".encode("utf-16")), marked("東京".encode("iso2022_jp")), marked(b"text")
    ('UTF-16', 'ISO-2022-JP', None)
    """
    for mark, encoding in _MARKS.items():
        if sample.startswith(mark):
            return encoding
    return "ISO-2022-JP" if _SHIFT_TO_KANJI.search(sample) else None


def wide(sample: bytes) -> str | None:
    r"""UTF-16 or UTF-32 without a mark: that in which almost all of `sample` can be printed.

    >>> wide("Мама мыла раму".encode("utf-16-be")), wide("Mama".encode("utf-32-le"))
    ('UTF-16BE', 'UTF-32LE')
    >>> wide(b"Mama\0")
    """
    # Two ASCII letters are one Chinese character.
    if (
        4 * sample.count(b"\0") < len(sample)
        and not (CONTROL & set(sample))
        and starts_utf8(sample)
    ):
        return None
    shares = {encoding: _printable(sample[: 2**13], encoding) for encoding in _WIDE}
    best = max(shares, key=lambda encoding: shares[encoding])
    return best if shares[best] > 0.97 else None


def _printable(sample: bytes, encoding: str) -> float:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    return sum(char.isprintable() or char in "\t\r\n" for char in text) / max(1, len(text))


def guess(sample: bytes) -> list[str]:
    """What iconv calls the encodings that text without a mark may be in, the most likely first.

    >>> guess("Мама мыла раму, а собака бежит по улице и лает на кошку".encode("cp1251"))
    ['CP1251']
    """
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=list(_ICONV)))
    # The letters of neighbouring languages often make as much sense as the right ones.
    near = [
        match.encoding
        for match in matches
        if match.chaos <= matches[0].chaos + 0.01 and match.coherence >= matches[0].coherence - 0.06
    ]
    # Many texts are the same in several; then that of most computers is meant.
    if near and sample.decode("cp1252", "replace") == sample.decode(near[0], "replace"):
        near = ["cp1252"]
    return [_ICONV[encoding] for encoding in _ICONV if encoding in near]


def advice(path: str, sample: bytes) -> str:
    r"""What invalid UTF-8 in a file means, and what to do; what it says is said of the file.

    Args:
        path: The file.
        sample: Some lines of it, that with invalid UTF-8 among them.

    >>> print(advice("a.txt", "Käse\n".encode("latin-1") * 9).partition(" and ")[0])
    looks like CP1252: convert it with `iconv -f CP1252 -t UTF-8 a.txt > a.utf8.txt`
    """
    lines = [line for line in sample.splitlines() if not line.isascii()]
    bad = b"\n".join(line for line in lines if not is_utf8(line))
    good = sum(map(is_utf8, lines))
    repaired = bad.decode("utf-8", "replace")
    if sum(not char.isascii() for char in repaired) > 2 * repaired.count("\ufffd"):
        how = remedies.iconv(path, "UTF-8", "-c")
        return f"is UTF-8 with damaged bytes: drop them with `{how}` and {_INSTEAD}"
    guesses = guess(bad)
    if not guesses:
        return "is in an encoding that cannot be guessed: convert it to UTF-8, as with iconv"
    encoding, *others = guesses
    if 10 * good > len(lines):
        return (
            f"mixes UTF-8 and what looks like {encoding}: convert what it was put together from, "
            "each part by itself"
        )
    also = f" (or, if letters come out wrong, {' or '.join(others)})" if others else ""
    how = remedies.iconv(path, encoding)
    return f"looks like {encoding}{also}: convert it with `{how}` and {_INSTEAD}"


_INSTEAD = "give that in its place"


def is_utf8(text: bytes) -> bool:
    r"""Whether all of it is valid.

    >>> is_utf8("é".encode()), is_utf8(b"\xe9")
    (True, False)
    """
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def starts_utf8(text: bytes) -> bool:
    r"""Whether more text could make it valid: its last character may be torn.

    >>> starts_utf8("é".encode()[:1]), starts_utf8(b"\xe9 ")
    (True, False)
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return True
