"""A run of the campaign: one fault, and what must hold after it."""

import dataclasses
import random
import shutil
import time
import traceback
from pathlib import Path

from faults import whole
from faults.commands import Ended, Process
from faults.kinds import KINDS, Case, Fault
from faults.story import LIMIT, OPERATIONS, READERS, Story, exported, said
from faults.world import World

_PUSHES = ("push", "run", "again", "rollback")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A run as the seed has it.

    Attributes:
        place: local, s3 or gs.
        kind: Of KINDS.
        operation: Of the story.
    """

    seed: int
    number: int
    place: str
    kind: str
    operation: str


@dataclasses.dataclass
class Outcome:
    """What became of it.

    Attributes:
        stage: That was under way.
        ended: How the command ended, in words.
        failed: The checks that did not hold; empty: all did.
    """

    drawn: Drawn
    what: str = ""
    stage: str = ""
    ended: str = ""
    failed: list[str] = dataclasses.field(default_factory=list)
    cpu: float = 0.0
    seconds: float = 0.0


def run(drawn: Drawn, story: Story, root: Path, keep: bool) -> Outcome:
    """Do it, in a directory below `root`, which goes if all holds or `keep` is not set."""
    outcome = Outcome(drawn)
    begun = time.monotonic()
    world: World | None = None
    try:
        name = f"run-{drawn.seed}-{drawn.number}"
        world = story.world_before(drawn.operation, root / name)
        _Run(outcome, story, world).do()
    except Exception:
        outcome.failed.append(f"the campaign itself failed: {traceback.format_exc()[-1500:]}")
    if world and not (keep and outcome.failed):
        shutil.rmtree(world.root, ignore_errors=True)
    outcome.seconds = time.monotonic() - begun
    return outcome


class _Run:
    def __init__(self, outcome: Outcome, story: Story, world: World) -> None:
        drawn = outcome.drawn
        self.outcome, self.story, self.world = outcome, story, world
        self.operation = drawn.operation
        self.expected = story.expected[drawn.operation]
        draw = random.Random(f"{drawn.seed} {drawn.number} fault")
        make, _ = KINDS[drawn.kind]
        self.fault: Fault = make(Case(draw, story, drawn.operation, world))
        self.text = world.text()

    def check(self, holds: object, what: str) -> bool:
        if not holds:
            self.outcome.failed.append(what)
        return bool(holds)

    def do(self) -> None:
        fault = self.fault
        try:
            first = self.first()
            self.outcome.what = fault.what
            if first is None:
                return
            if not (self.outcome.drawn.kind == "damage" and not first.code):
                fault.undo()
            for other in fault.others:
                if self.check(other, "the other command hangs"):
                    assert other
                    self.spoke(other, "the other command")
            self.nothing_is_half()
            self.again(first)
        finally:
            self.outcome.what = fault.what
            fault.tidy()

    def start(self, fault: Fault | None) -> Process:
        world = self.world
        if fault is None:
            return Process(OPERATIONS[self.operation][1](world), world.root, world.variables)
        variables = world.variables | fault.variables
        return Process(
            OPERATIONS[self.operation][1](world),
            world.root,
            {name: value for name, value in variables.items() if value is not None},
            event=fault.event,
            real=fault.real,
            prepare=fault.prepare,
        )

    def first(self) -> Ended | None:
        """The command that the fault falls into."""
        fault = self.fault
        before = not fault.event and fault.seconds is None
        if before:
            fault.strike(None)
        process = self.start(fault)
        struck = before
        if fault.event and process.stopped(LIMIT):
            self.outcome.stage = process.stage()
            fault.what += f", at event {fault.event}"
            fault.strike(process)
            process.go_on()
            struck = True
        elif fault.seconds is not None and not process.wait(fault.seconds):
            self.outcome.stage = process.stage()
            fault.what += f", after {fault.seconds:.1f} s"
            fault.strike(process)
            struck = True
        ended = process.end(LIMIT)
        if not struck:
            fault.what += ", which never came"
        if not self.check(ended, f"it hangs for more than {LIMIT:.0f} s"):
            return None
        assert ended
        self.outcome.cpu += ended.cpu
        self.outcome.stage = self.outcome.stage or ended.stage
        self.outcome.ended = ended.error or f"exit {ended.code}"
        self.spoke(ended, "the command")
        if ended.code and fault.code is not None:
            self.check(ended.code in (fault.code, 1), f"it must end with {fault.code}")
        elif ended.error and fault.names:
            named = any(name in ended.error for name in fault.names)
            self.check(named, f"its error names none of {fault.names}: {ended.error}")
        if struck and not before and self.outcome.drawn.kind == "input changes":
            changed = {name for name, _ in self.world.text().items() ^ self.text.items()}
            self.check(changed <= set(fault.free), f"it changed {changed}")
        else:
            self.check(self.world.text() == self.text, "it changed the text")
        return ended

    def spoke(self, ended: Ended, who: str) -> None:
        """It said what it should, and left nothing running or lying about."""
        text = ended.errors + ended.out
        no_traceback = "Traceback" not in text and "this is a bug" not in text
        self.check(no_traceback, f"{who} has a traceback: {text[-3000:]}")
        lines = [line for line in ended.errors.splitlines() if line.startswith("skipstream: ")]
        if ended.code > 0 and not (self.fault.dies and ended.code > 128):
            self.check(len(lines) == 1, f"{who} ends with {ended.code} and says {text[-1500:]}")
        if ended.code < 0:
            self.check(self.fault.dies, f"{who} dies by signal {-ended.code}: {text[-1500:]}")
        self.check(not ended.left, f"{who} leaves processes: {ended.left}")
        if ended.code >= 0:
            # Python's own, of what TensorFlow's autograph wrote and has removed.
            found = {path.name for path in (self.world.root / "tmp").iterdir()}
            left = sorted(found - {"__pycache__"})
            self.check(not left, f"{who} leaves in TMPDIR: {left}")

    def nothing_is_half(self) -> None:
        if not self.fault.damaged:
            halves = self.world.halves()
            self.check(not halves, f"half there: {halves[:3]}")
        known = self.world.versions()
        strange = [number for number, bits in known.items() if bits not in self.story.versions]
        if not any(name.startswith("serving/") for name in self.fault.damaged):
            self.check(not strange, f"versions that nobody pushed: {strange}")

    def again(self, first: Ended) -> None:
        """The same command once more."""
        fault = self.fault
        shutil.rmtree(self.world.root / "tmp", ignore_errors=True)
        (self.world.root / "tmp").mkdir()
        (self.world.root / "tmp").chmod(0o777)
        again = Fault("", prepare=fault.prepare) if fault.stays else None
        ended = self.start(again).end(LIMIT)
        if not self.check(ended, "the same command once more hangs"):
            return
        assert ended
        self.outcome.cpu += ended.cpu
        self.spoke(ended, "the same command once more")
        mended = not (fault.damaged and not first.code)
        if ended.code and fault.damaged and "has no finished" in ended.error:
            # A stage that came before is to be made again, which a whole night does.
            night = self.operation.partition(":")[0]
            self.operation = f"{night}: run"
            self.expected = self.story.expected[self.operation]
            ended = self.start(None).end(LIMIT)
            if not self.check(ended, "the night hangs"):
                return
            assert ended
            self.outcome.cpu += ended.cpu
            self.spoke(ended, "the night")
        if ended.code:
            rolled_back = self.operation == "rollback" and "already" in ended.error
            rolled_back |= self.operation == "rollback" and "a rollback needs" in ended.error
            refuses = rolled_back or (fault.refuses and fault.free)
            if not mended:
                refuses = any(name in ended.error for name in fault.names)
            if not self.check(
                refuses, f"once more it ends with {ended.code}: {ended.errors[-900:]}"
            ):
                return
            if not rolled_back:
                return
        self.nothing_is_half()
        self.same(ended)

    def same(self, ended: Ended) -> None:
        """All bits are right."""
        fault, world = self.fault, self.world
        free = (*fault.free, *fault.damaged)
        bits = whole.without_older_tokens(world.bits(), self.expected.bits)
        # What is served newest may be the damaged version.
        served = any(name.startswith("serving/") for name in fault.damaged)
        free += ("serving/newest",) if served else ()
        found, wanted = (
            {
                name: digest
                for name, digest in one.items()
                # The listing has times and paths of the text.
                if not name.startswith(free) and not name.endswith("/corpus.json")
            }
            for one in (bits, self.expected.bits)
        )
        self.check(found == wanted, f"other bits: {whole.differences(wanted, found)}")
        short = self.operation.partition(": ")[2] or self.operation
        if short in _PUSHES and not fault.free and not served:
            self.check(world.answers() == self.expected.answers, "the model answers otherwise")
        if self.operation in READERS and not fault.free and ended.code == 0:
            right = said(world, ended) == self.expected.out
            self.check(right, f"it prints {ended.out!r}, not {self.expected.out!r}")
            self.check(exported(world) == self.expected.exported, "it exports something else")
        left = [name for name in world.files() if _is_temporary(name)]
        left = [name for name in left if name not in fault.damaged]
        self.check(not left, f"temporary files are left: {left}")


def _is_temporary(name: str) -> bool:
    """Whether a file is one that a process writes beside another, or in a scratch directory."""
    last = name.rpartition("/")[2]
    return ".scratch-" in name or (last.startswith(".") and last.count(".") > 1)
