"""File names as messages show them: whatever bytes a name holds, in one line of printable text.

Linux lets a name be any bytes. Python keeps those that are not UTF-8 as lone surrogates, which no
encoder takes, so a message, a setting or a protocol buffer cannot hold them as they are.
"""

import re
import shlex

_BYTES = re.compile("[\udc80-\udcff]")
# The last two ranges make a terminal show what follows in another order.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)
_SHOWN_CHARACTERS = 60
_SHOWN = re.compile(r"\\x([89a-fA-F][0-9a-fA-F])")


def encodable(text: str) -> str:
    r"""`text` with the bytes that are not UTF-8 as escapes, so that any encoder takes it.

    >>> print(encodable("caf\udce9.txt"))
    caf\xe9.txt
    """
    return _BYTES.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def shown(name: str) -> str:
    r"""A name for a message: as `encodable`, and control characters such as newlines escaped, too.

    >>> print(shown("caf\udce9 'new\nline' 😀.txt"))
    caf\xe9 'new\nline' 😀.txt
    """
    escaped = _CONTROL.sub(lambda found: _escaped(found[0]), name)
    return encodable(escaped)


def printable(text: str) -> str:
    r"""Lines of text as a terminal may show them: other control characters escaped.

    >>> print(printable("one\x1b[2Jtwo\u202e"), printable("\t\n") == "\t\n")
    one\x1b[2Jtwo\u202e True
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else _escaped(found[0]), text)


def cut(word: str) -> str:
    """A word for a message or a table, at most 60 characters of it.

    >>> cut("word"), len(cut("a" * 2000)), cut("a" * 2000)[-3:]
    ('word', 60, 'aa…')
    """
    return word if len(word) <= _SHOWN_CHARACTERS else f"{word[: _SHOWN_CHARACTERS - 1]}…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def is_word(name: object) -> bool:
    """Whether it is one plain word, which as the name of a directory leads nowhere else.

    >>> is_word("0123abcd"), is_word(".."), is_word("a/b"), is_word(None)
    (True, False, False, False)
    """
    return isinstance(name, str) and _WORD.fullmatch(name) is not None


def is_below(name: str) -> bool:
    """Whether it names a file in a directory or further down: relative, and never upwards.

    >>> is_below("a/b.txt"), is_below("../a"), is_below("a/../../b"), is_below("/a")
    (True, False, False, False)
    """
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def quoted(name: str) -> str:
    r"""A name for a command to paste into bash or zsh, in one line and in any locale.

    >>> print(quoted("a.txt"), quoted("it's.txt"), quoted("caf\udce9 'new\nline'.txt"))
    a.txt 'it'"'"'s.txt' $'caf\xe9 \'new\nline\'.txt'
    """
    if shown(name) == name:
        return shlex.quote(name)
    return f"$'{''.join(map(_in_dollar_quotes, name.encode('utf-8', 'surrogateescape')))}'"


def _in_dollar_quotes(byte: int) -> str:
    character = chr(byte)
    if character in "\\'":
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    return character if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def meant(shown: str) -> str:
    r"""The name that `encodable` shows.

    >>> meant(r"caf\xe9.txt") == "caf\udce9.txt"
    True
    """
    return _SHOWN.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), shown)
