"""The pages of README.md, docs/ and the runbook, and a made-up corpus for what they say."""

import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
RUNBOOK = ROOT / "deploy" / "README.md"
GUIDE = ROOT / "docs" / "coming-from-gensim.md"

TOPICS = {
    "court": ["king", "queen", "prince", "princess", "throne", "crown", "palace", "royal"],
    "people": ["man", "woman", "boy", "girl", "father", "mother", "house", "child"],
    "sea": ["ship", "sail", "wave", "harbour", "captain", "anchor", "tide", "sailor"],
    "code": ["tensor", "gradient", "row", "rows", "column", "columns", "array", "vector"],
}
FILLERS = ["the", "a", "of", "and", "in", "to", "it", "was", "for", "on"]
# As many words, of two characters each: XLA compiles for the size of a vocabulary.
CHINESE = [[first + second for second in "京海州市方部门风"] for first in "北上广南"]
CHINESE_FILLERS = ["一" + second for second in "个只本张条件天年月日"]


class Block(NamedTuple):
    """Code between fences."""

    language: str
    text: str


def parts(page: Path) -> tuple[str, list[Block]]:
    """The text of a page without its blocks, and these."""
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    return pattern.sub("", text), [Block(*found) for found in pattern.findall(text)]


def commands(text: str) -> Iterator[list[str]]:
    r"""Command lines, each as words; pipes and redirections are words, too.

    >>> list(commands("a 'b c' \\\n  d  # e\nf | g > h"))
    [['a', 'b c', 'd'], ['f', '|', 'g', '>', 'h']]
    """
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
        lexer.whitespace_split = True
        if words := list(lexer):
            yield words


def shell(page: Path) -> list[list[str]]:
    """All command lines of a page; of the runbook, those of skipstream and make."""
    text = "".join(block.text for block in parts(page)[1] if block.language == "sh")
    if page == RUNBOOK:
        lines = text.replace("\\\n", " ").splitlines()
        text = "\n".join(line for line in lines if line.startswith(("skipstream ", "make ")))
    return list(commands(text))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading.

    >>> slug("How it is `trained`, and why")
    'how-it-is-trained-and-why'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+)$", parts(page)[0], re.MULTILINE)}


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the guide, without its head."""
    section = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(heading + "\n"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def write_corpus(folder: Path) -> None:
    """texts/a.txt and zh.txt: documents about one topic each, with words between."""
    draw = random.Random(0)

    def lines(topics: list[list[str]], fillers: list[str], between: str) -> Iterator[str]:
        for _ in range(1500):
            words = draw.choices(draw.choice(topics), k=8) + draw.choices(fillers, k=4)
            draw.shuffle(words)
            yield between.join(words) + "\n"

    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("".join(lines([*TOPICS.values()], FILLERS, " ")))
    chinese = "".join(lines(CHINESE, CHINESE_FILLERS, ""))
    (folder / "zh.txt").write_text(chinese, encoding="utf-8")
