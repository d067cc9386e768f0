"""docs/settings.md, made of what `skipstream settings` prints: `make docs` writes it.

python tests/settings_page.py > docs/settings.md
"""

import re
from collections.abc import Iterator

from pipeline import config

HEAD = """# Settings

Made by `make docs` from the code; do not edit it.

```sh
skipstream settings > settings.toml                    # all settings, as a file to change
skipstream run --config settings.toml --output OUT
skipstream run --input 'texts/*.txt' --output OUT --set trainer.epochs=3 transform.min_count=10
```

`--set` wins over `--config`. The value of `--set` is TOML; words and paths need no quotes. Lists
are written `[1, 2]`. `none` leaves a setting unset. An unknown name or a value out of range is an
error that names the right one. In brackets: the values that a setting takes.
"""


def rows(template: str) -> Iterator[tuple[str, str, str, str]]:
    r"""Stage, name, default and meaning of each setting in a TOML file that `template` makes.

    >>> list(rows("[trainer]\n# Length\n# of all.\ndimensions = 100\n# A share.\n# sample =\n"))
    [('trainer', 'dimensions', '100', 'Length of all.'), ('trainer', 'sample', '', 'A share.')]
    """
    stage, note = "", []
    for line in template.splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            stage = found[1]
        elif found := re.fullmatch(r"(?:# )?(\w+) =(?: (.*))?", line):
            yield stage, found[1], found[2] or "", " ".join(note)
            note = []
        elif line:
            note.append(line.removeprefix("# "))


def page() -> str:
    """The page as Markdown."""
    lines, written = [HEAD], ""
    for stage, name, default, note in rows(config.template(config.load(None))):
        if stage != written:
            written = stage
            lines += ["\n" * bool(lines[1:]) + f"## {stage}", "", "| setting | default | |"]
            lines.append("|---|---|---|")
        default = f"`{default}`" if default else "unset"
        note = note.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
        lines.append(f"| `{stage}.{name}` | {default} | {note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
