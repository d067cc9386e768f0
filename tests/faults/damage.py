"""Faults of files: the text changes, what skipstream wrote is damaged."""

import os
import random
import shutil
import signal
from collections.abc import Callable

from faults.commands import Process
from faults.fault import Case, Fault
from faults.nights import Corpus


def input_changed(case: Case) -> Fault:
    """A file of the text vanishes, shrinks, grows or changes; then it is what it was."""
    number = int(case.operation.split()[1][0])
    path = case.draw.choice(Corpus(case.world.root / "corpus").night(number))
    ways = ["vanishes", "shrinks", "grows", "changes", "is replaced", "is a directory"]
    how = case.draw.choice(ways)
    size, place = path.stat().st_size, case.draw.random()
    fault = case.moment(Fault(f"{path.parent.name}/{path.name} {how}"))

    def strike(process: Process | None) -> None:
        if how == "vanishes":
            path.unlink()
        elif how == "is a directory":
            path.unlink()
            path.mkdir()
        elif how == "shrinks":
            os.truncate(path, int(place * size))
        elif how == "grows":
            with path.open("a") as file:
                file.write("t1w1 t1w2 f3 and more words\n" * 500)
        elif how == "changes":
            with path.open("r+b") as file:
                file.seek(int(place * size))
                file.write(b"other words here\n" * 40)
            os.truncate(path, size)
        else:
            other = path.with_name("other")
            other.write_text("t1w1 t1w2 f3 something else\n" * 3000)
            other.replace(path)

    source = case.story.corpus / path.relative_to(case.world.root / "corpus")
    copy = case.draw.choice([shutil.copy, shutil.copy2])

    def undo() -> None:
        if path.is_dir():
            path.rmdir()
        copy(source, path)

    fault.strike, fault.undo = strike, undo
    fault.names = (str(path), "text.txt", "corpus", "input")
    fault.free = (str(path.relative_to(case.world.root / "corpus")),)
    return fault


def damaged(case: Case) -> Fault:
    """A byte of a file that skipstream wrote is flipped, its tail is cut, it is empty, or zeros."""
    groups: dict[str, list[str]] = {}
    for name in case.world.files():
        groups.setdefault("cache" if name[0] == ":" else name.partition("/")[0], []).append(name)
    if not groups:
        return Fault("nothing is there to damage")
    group = case.draw.choice(sorted(groups))
    name = case.draw.choice(sorted(groups[group]))
    content = case.world.read(name)
    how, made = _way(case.draw)(content)
    fault = Fault(f"{name} {how}", damaged=[name])
    fault.strike = lambda process: case.world.write(name, made)
    fault.names, thing = _said(name)
    parts = name.split("/")
    if thing == name and name[0] != ":" and parts[0] != "tokens":
        fault.undo = lambda: case.world.write(name, content)
        fault.names += ("serving/" + parts[1],) if len(parts) > 1 else ()
    else:
        fault.undo, fault.optional = lambda: case.world.remove(thing), (thing,)
    return fault


def unfinished(case: Case) -> Fault:
    """The command is killed, and a file of what it had not finished is damaged."""
    fault = case.moment(Fault("killed", code=-signal.SIGKILL, dies=True), first=0.4)
    fault.strike = lambda process: process.kill() if process else None
    before, way, which = set(case.world.files()), _way(case.draw), case.draw.random()

    def undo() -> None:
        files = case.world.files()
        left = [name for name in files if name not in before and _is_unfinished(name, files)]
        if not left:
            fault.what += ", which left nothing"
            return
        name = left[int(which * len(left))]
        how, made = way(case.world.read(name))
        case.world.write(name, made)
        fault.what += f", {name} {how}"
        fault.names, thing = _said(name)
        fault.remedy = lambda: case.world.remove(thing)

    fault.undo = undo
    return fault


def _is_unfinished(name: str, files: list[str]) -> bool:
    """Whether a file is no record, and lies in no artifact or version that is whole."""
    parts = name.split("/")
    inner = "/".join(parts[:2])
    whole = f"{inner}/manifest.json" in files or f"{inner}/saved_model.pb" in files
    return name == ".lease" or (len(parts) > 2 and parts[1] != ".versions" and not whole)


def _way(draw: random.Random) -> Callable[[bytes], tuple[str, bytes]]:
    """Draw a damage: what it does to a content, in words and in bytes."""
    how = draw.choice(["flipped", "flipped", "cut", "emptied", "zeroed"])
    place, bit = draw.random(), draw.randrange(8)

    def damage(content: bytes) -> tuple[str, bytes]:
        size = len(content)
        at = min(int(place * size), max(0, size - 1))
        if not content:
            return "filled", b"\xff garbage"
        if how == "flipped":
            flipped = bytes([content[at] ^ (1 << bit)])
            return f"flipped at byte {at:,} of {size:,}", content[:at] + flipped + content[at + 1 :]
        if how == "cut":
            return f"cut at byte {at:,} of {size:,}", content[:at]
        if how == "emptied":
            return "emptied", b""
        zeros = bytes(min(512, size - at))
        return f"zeroed from byte {at:,} of {size:,}", content[:at] + zeros + content[at + 512 :]

    return damage


def _said(name: str) -> tuple[tuple[str, ...], str]:
    """Of what an error has to name one, where a file is damaged, and what a person then removes."""
    colon, parts = name[: name[0] == ":"], name.lstrip(":").split("/")
    if len(parts) > 2 and parts[0] != "serving":
        return (parts[1],), colon + "/".join(parts[:2])
    if parts[0] == "tokens" or colon:
        return (parts[-1], "tokens"), name
    return (parts[-1],), name
