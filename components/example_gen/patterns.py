"""Patterns of files as people write them, and what to say of those that name no file."""

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping

from components.errors import SettingsError
from components.names import meant, quoted, shown

# The innermost braces that a shell would expand: a comma in them, or a range.
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([A-Za-z])\.\.([A-Za-z])|([^{}]*,[^{}]*))\}")
_STREAM = re.compile(r"-|/dev/std\w+|/dev/fd/\d+|/proc/(?:self|\d+)/fd/\d+")
_WINDOWS = re.compile(r"([A-Za-z]):[\\/](.*)|\\\\.*", re.DOTALL)
# How others spell URLs of stores that Beam knows.
_SPELLINGS = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}


def choices(pattern: str) -> Iterator[str]:
    """What the innermost braces of a pattern stand for, one pair of them; nothing without any.

    >>> list(choices("news-{2023,2024}.txt")), list(choices("part-{08..10}")), list(choices("a"))
    (['news-2023.txt', 'news-2024.txt'], ['part-08', 'part-09', 'part-10'], [])
    """
    if not (found := _BRACES.search(pattern)):
        return
    first, last, from_, to, listed = found.groups()
    if first:
        low, high = sorted(map(int, (first, last)))
        # As in a shell, a zero in front says how many digits there are.
        width = max(len(first), len(last)) if re.match("0.", first) or re.match("0.", last) else 0
        words: Iterator[str] = (f"{number:0{width}}" for number in range(low, high + 1))
    elif from_:
        start, end = sorted(map(ord, (from_, to)))
        words = map(chr, range(start, end + 1))
    else:
        words = iter(listed.split(","))
    for word in words:
        yield pattern[: found.start()] + word + pattern[found.end() :]


def refuse_what_is_no_file(pattern: str) -> None:
    """Refuse streams, URLs that Beam cannot read, and paths of Windows.

    Raises:
        SettingsError: It is one of them.
    """
    if _STREAM.fullmatch(pattern) and not (pattern == "-" and os.path.lexists(pattern)):
        raise SettingsError(_of_stream(pattern))
    scheme, separator, rest = pattern.partition("://")
    if separator and (remedy := _of_url(scheme.lower(), rest, pattern)):
        raise SettingsError(
            f"example_gen.input takes local files, gs:// and s3://, got '{shown(pattern)}': "
            f"{remedy}"
        )
    if (found := _WINDOWS.fullmatch(pattern)) and not os.path.lexists(pattern):
        drive, path = found.groups()
        there = f"/mnt/{drive.lower()}/{path}".replace("\\", "/") if drive else "/mnt/c/..."
        raise SettingsError(
            f"example_gen.input takes paths of Linux, got '{shown(pattern)}', one of Windows: "
            f"WSL has its drives below /mnt, as in {quoted(there)}"
        )


def _of_url(scheme: str, rest: str, pattern: str) -> str | None:
    url = quoted(pattern)
    if scheme in ("http", "https", "ftp"):
        return f"download it first, as by: curl -fLO {url}"
    if scheme == "hdfs":
        return f"copy it first, as by: hdfs dfs -get {url}"
    if scheme == "file":
        path = f"/{rest.partition('/')[2]}"
        return f"name it {quoted(path)}"
    if scheme in _SPELLINGS:
        return f"name it {quoted(f'{_SPELLINGS[scheme]}://{rest}')}"
    if scheme == "azfs":  # Beam has it, without what it needs.
        return "copy the files to one of these first"
    return None


def _of_stream(pattern: str) -> str:
    copy = "cat > corpus.txt"
    if pattern.startswith(("/dev/fd/", "/proc/")):  # As a shell spells <(COMMAND).
        copy = "'> corpus.txt' in place of '<( )'"
    elif pattern not in ("-", "/dev/stdin"):
        copy = f"cat {quoted(pattern)} > corpus.txt"
    return (
        f"example_gen.input takes files, got '{shown(pattern)}', a stream, which can be read once, "
        f"while a corpus is read several times: write it to a file first ({copy}), and "
        "name that; .gz, .bz2 and .zst files are read as they are"
    )


def no_file(pattern: str, reasons: Mapping[str, str]) -> str:
    """What to say of a pattern that matches no file.

    Args:
        pattern: As it was given.
        reasons: What it matches instead, and why that is no file, as `list_files` counts it.

    Raises:
        SettingsError: It names a pipe.
    """
    message = f"no file matches example_gen.input pattern '{shown(pattern)}'"
    if "://" in pattern:
        return f"{message}{_counted(reasons)}: check the name"
    if not os.path.lexists(pattern):
        pattern = meant(pattern)  # The command line's bytes that are not UTF-8 come escaped.
    local = os.path.expanduser(pattern)
    if os.path.isdir(local):
        return f"{message}, which is a directory{_files_below(glob.escape(pattern))}"
    if os.path.islink(local) and not os.path.exists(local):
        target = shown(os.readlink(local))
        return f"{message}, which is a link to '{target}', which is not there: name the files"
    if os.path.exists(local):
        mode = os.stat(local).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise SettingsError(_of_stream(pattern))
        return f"{message}, which is a device: name files"
    if set(reasons.values()) == {"directory"}:
        return f"{message}{_counted(reasons)}{_files_below(pattern)}"
    if reasons:
        return f"{message}{_counted(reasons)}: name the files"
    literal = pattern.replace("[", "[[]")
    if literal != pattern and glob.glob(os.path.expanduser(literal), recursive=True):
        named = quoted(literal)
        return f"{message}: brackets hold characters to choose from; for a bracket, name it {named}"
    if local.startswith("~"):
        return f"{message}: there is no home directory {shown(local.partition('/')[0])}"
    words = re.split(r"[\s,]+", pattern.strip())
    if len(words) > 1 and all(glob.glob(os.path.expanduser(word)) for word in words):
        apart = " ".join(map(quoted, words))
        return f"{message}: patterns are separated by spaces, as in --input {apart}"
    return f"{message}: check the path, and that the quotes keep the shell from expanding it"


def _counted(reasons: Mapping[str, str]) -> str:
    names = {
        "directory": ("directory", "directories"),
        "not_a_file": ("broken link or pipe", "broken links or pipes"),
    }
    counts = Counter(reasons.values()).most_common()
    found = [f"{count} {names[reason][count > 1]}" for reason, count in counts]
    return f", only {' and '.join(found)}" if found else ""


def _files_below(pattern: str) -> str:
    for below in (f"{pattern.rstrip('/')}/*", f"{pattern.rstrip('/')}/**/*"):
        if any(map(os.path.isfile, glob.iglob(os.path.expanduser(below), recursive=True))):
            return f": name its files, as in {quoted(below)}"
    return " without files: name files"
