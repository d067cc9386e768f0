"""The nights that faults fall into, and what they leave when none does."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.commands import Ended, Process
from faults.forked import CHECKOUT
from faults.nights import SETTINGS, Corpus
from faults.world import World

NIGHTS = 2
STAGES = ("transform", "train", "evaluate", "validate", "push")
LIMIT = 300.0  # Seconds. A command that takes longer hangs.


def night(number: int, command: str, *settings: str) -> Callable[[World], list[str]]:
    """The command line of a night."""

    def arguments(world: World) -> list[str]:
        files = map(str, Corpus(world.root / "corpus").night(number))
        chosen = ["--set", *SETTINGS, *settings]
        return [command, "--input", *files, "--output", world.output, *chosen]

    return arguments


def of_output(command: str, *more: str) -> Callable[[World], list[str]]:
    """The command line of a command that is given an output."""
    return lambda world: [command, world.output, *(one.format(world.root) for one in more)]


_LAST = f"night {NIGHTS}"
READERS = {
    "report": of_output("report"),
    "versions": of_output("versions"),
    "neighbors": of_output("neighbors", "t1w1", "t2w1"),
    "export": of_output("export", "--format", "word2vec-binary", "--output", "{}/work/vectors.bin"),
}
# Operations by name: the one whose output is found, and the command line. The first finds nothing.
OPERATIONS: dict[str, tuple[str, Callable[[World], list[str]]]] = {}
_before = ""
for _night in range(1, NIGHTS + 1):
    _evening = _before
    for _command in STAGES:
        OPERATIONS[f"night {_night}: {_command}"] = (_before, night(_night, _command))
        _before = f"night {_night}: {_command}"
    OPERATIONS[f"night {_night}: run"] = (_evening, night(_night, "run"))
OPERATIONS[f"{_LAST}: again"] = (_before, night(NIGHTS, "run"))
OPERATIONS |= {name: (_before, arguments) for name, arguments in READERS.items()}
OPERATIONS["rollback"] = (_before, of_output("rollback"))
# What the model was to go on from is gone.
COLD = "cold start"
OPERATIONS[COLD] = (f"{_LAST}: transform", night(NIGHTS, "train"))
# Leaves something for gc.
OPERATIONS["other settings"] = (_before, night(NIGHTS, "transform", "transform.min_count=6"))
OPERATIONS["settings as before"] = ("other settings", night(NIGHTS, "run"))
OPERATIONS["gc"] = ("settings as before", of_output("gc"))


@dataclasses.dataclass(frozen=True)
class Expected:
    """What an operation does when there is no fault.

    Attributes:
        out: What it prints, the world's own directory and the output's address apart.
        bits: What it leaves; see `whole.bits`.
        answers: Of the newest version; empty: there is none.
        exported: Digest of what `export` writes.
        seconds, cpu, events: See `commands.Ended`.
    """

    out: str
    bits: dict[str, str]
    answers: str
    exported: str
    seconds: float
    cpu: float
    events: int


class Story:
    """The operations, each done once, and what each found and left.

    Attributes:
        expected: By operation.
        versions: Digests of all versions that were ever pushed.
    """

    def __init__(
        self, root: Path, url: str, bucket: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        """Nothing is done yet, but for what `root` has of it.

        Args:
            root: Where it is kept, for the same code.
            url: Of a place in a bucket; empty: a directory.
            bucket: Variables that lead to it.
            say: Called for each operation.
        """
        self.root, self._url, self._bucket, self._say = root, url, bucket, say
        self.corpus = root.parent / "corpus"
        self.expected: dict[str, Expected] = {}
        self.versions: set[str] = set()
        if not self.corpus.exists():
            Corpus.write(self.corpus, NIGHTS)
        self._known = root / "story.json"
        if self._known.exists():
            content, versions = json.loads(self._known.read_text())
            self.expected = {name: Expected(**one) for name, one in content.items()}
            self.versions = set(versions)

    def tell(self, name: str) -> None:
        """Do an operation, after all that come before it, unless that is done."""
        if name in self.expected:
            return
        before, _ = OPERATIONS[name]
        if name.endswith(": run"):  # Leaves what its stages leave, one by one.
            parts = [name.replace("run", stage) for stage in STAGES]
            self.tell(parts[-1])
            found = [self.expected[part] for part in parts]
            sums = {
                key: sum(getattr(one, key) for one in found) for key in ("seconds", "cpu", "events")
            }
            self.expected[name] = dataclasses.replace(found[-1], **sums)
        else:
            if before:
                self.tell(before)
            self._do(name)
        content = {name: dataclasses.asdict(one) for name, one in self.expected.items()}
        self._known.write_text(json.dumps([content, sorted(self.versions)]))

    def world(self, name: str) -> World:
        """What an operation left."""
        directory = name.replace(": ", "-").replace(" ", "-")
        url = f"{self._url}/{directory}" if self._url else ""
        return World(self.root / directory, url or str(self.root / directory / "out"), self._bucket)

    def world_before(self, name: str, root: Path) -> World:
        """What an operation finds, in a world of its own."""
        url = f"{self._url}/{root.name}" if self._url else ""
        made = World.empty(root, self.corpus, url, self._bucket)
        if before := OPERATIONS[name][0]:
            made.copy_from(self.world(before))
        if name == COLD:
            for model in {"/".join(file.split("/")[:2]) for file in made.files()}:
                if model.startswith("trainer/"):
                    made.remove(model)
        return made

    def _do(self, name: str) -> None:
        shutil.rmtree(self.world(name).root, ignore_errors=True)
        world = self.world_before(name, self.world(name).root)
        ended = do(world, name)
        if ended is None or ended.code:
            raise RuntimeError(f"{name} must end well without a fault, got {ended}")
        self.expected[name] = Expected(
            said(world, ended),
            world.bits(),
            world.answers() if world.versions() else "",
            exported(world),
            ended.seconds,
            ended.cpu,
            ended.events,
        )
        self.versions |= set(world.versions().values())
        self._say(f"{name}: {ended.seconds:.1f} s, {ended.cpu:.1f} CPU s, {ended.events} events")


def do(world: World, name: str, **options: Any) -> Ended | None:
    """An operation, to its end; None: it hangs."""
    options = {"variables": world.variables} | options
    return Process(OPERATIONS[name][1](world), world.root, **options).end(LIMIT)


def said(world: World, ended: Ended) -> str:
    """What a command printed, without names that only its own world has."""
    return ended.out.replace(world.output, "OUT").replace(str(world.root), "ROOT")


def exported(world: World) -> str:
    """Digest of what `export` wrote; empty: nothing."""
    path = world.root / "work" / "vectors.bin"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def code() -> str:
    """A digest of the program, for what is kept of it."""
    digest = hashlib.sha256()
    paths = [path for top in ("components", "pipeline") for path in (CHECKOUT / top).rglob("*.py")]
    here = [
        Path(__file__).with_name(f"{name}.py") for name in ("nights", "story", "whole", "world")
    ]
    for path in [*sorted(paths), *here]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
