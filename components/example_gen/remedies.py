"""Commands that mend a file, as messages print them: they work in any shell and any locale."""

import json
import os
import shlex
import tomllib

from components.example_gen.files import is_remote
from components.names import quoted

NEWS = 0.001  # Share of the documents; so many that are amiss are no accident.
_UNPACK = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".zst": "zstd -dc", ".zstd": "zstd -dc"}


def iconv(path: str, encoding: str, *options: str) -> str:
    """The command that converts a file to UTF-8.

    >>> iconv("in.txt", "UTF-16LE")
    'iconv -f UTF-16LE -t UTF-8 in.txt > in.utf8.txt'
    >>> iconv("/a b/in.csv.gz", "CP1251")
    "gzip -dc '/a b/in.csv.gz' | iconv -f CP1251 -t UTF-8 > '/a b/in.utf8.csv'"
    """
    program = " ".join(["iconv", *options, "-f", encoding, "-t", "UTF-8"])
    return command(program, path, beside(path, "utf8"))


def setting(name: str, value: str) -> str:
    """The option that sets it to text, quoted where TOML would take that for a number or so.

    >>> setting("example_gen.field", "body"), setting("example_gen.field", "the text")
    ('--set example_gen.field=body', "--set 'example_gen.field=the text'")
    >>> print(setting("example_gen.field", "3"))
    --set 'example_gen.field="3"'
    """
    try:
        tomllib.loads(f"value = {value}")
        value = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):  # Then --set takes it as it is.
        pass
    return f"--set {shlex.quote(f'{name}={value}')}"


def command(program: str, path: str, out: str, *, redirect: bool = False) -> str:
    """The command by which `program` makes the file `out` of the one at `path`.

    Of a file that is not local, a copy in the working directory is meant.

    Args:
        program: With its options. It reads standard input where no file is named.
        path: What it reads, unpacked first where the name says that it is compressed.
        out: What it writes.
        redirect: Whether it reads standard input only.
    """
    if is_remote(path):
        path, out = os.path.basename(path), os.path.basename(out)
    # A name that starts with a dash is no option.
    path, out = (name if name[:1] != "-" else f"./{name}" for name in (path, out))
    path, out, unpack = quoted(path), quoted(out), _UNPACK.get(suffix_of(path))
    if unpack:
        return f"{unpack} {path} | {program} > {out}"
    return f"{program} {'< ' if redirect else ''}{path} > {out}"


def suffix_of(path: str) -> str:
    """The last suffix of a name, in lower case.

    >>> suffix_of("/a/b.TXT.GZ")
    '.gz'
    """
    return os.path.splitext(path)[1].lower()


def unpacked_name(path: str) -> str:
    """The name without the suffix that says how it is compressed.

    >>> unpacked_name("a.txt.gz"), unpacked_name("a.txt")
    ('a.txt', 'a.txt')
    """
    return os.path.splitext(path)[0] if suffix_of(path) in _UNPACK else path


def beside(path: str, what: str) -> str:
    """The name of a file made of another one.

    >>> beside("a/in.txt.gz", "utf8")
    'a/in.utf8.txt'
    """
    stem, suffix = os.path.splitext(unpacked_name(path))
    return f"{stem}.{what}{suffix}"
