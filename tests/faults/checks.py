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
from faults.story import COLD, LIMIT, OPERATIONS, READERS, Story, exported, said
from faults.world import World

COLD_START = "warning: the training starts anew"
_NO_MEMORY = "OpenBLAS error: Memory allocation"  # It ends the process itself, with 1.
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
            said = f"its error names none of {fault.names}: {ended.error}"
            self.check(self.named(ended), said)
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
        told = self.fault.dies and (ended.code > 128 or _NO_MEMORY in ended.errors)
        if ended.code > 0 and not told:
            self.check(len(lines) == 1, f"{who} ends with {ended.code} and says {text[-1500:]}")
        if ended.code < 0:
            self.check(self.fault.dies, f"{who} dies by signal {-ended.code}: {text[-1500:]}")
        self.check(not ended.left, f"{who} leaves processes: {ended.left}")
        if ended.code >= 0 and "tmp/" not in self.fault.optional:
            left = sorted(path.name for path in (self.world.root / "tmp").iterdir())
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
        for left in (self.world.root / "tmp").iterdir():  # The directory may be a mount.
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        ended = self.once_more(Fault("", prepare=fault.prepare) if fault.stays else None)
        if ended and ended.code and fault.remedy and self.named(ended):
            fault.remedy()
            ended = self.once_more()
        if ended and ended.code and fault.damaged and "has no finished" in ended.error:
            # A stage that came before is to be made again, which a whole night does.
            self.operation = f"{self.operation.partition(':')[0]}: run"
            self.expected = self.story.expected[self.operation]
            ended = self.once_more()
        if ended is None:
            return
        self.nothing_is_half()
        if ended.code and not self.may_refuse(first, ended):
            self.check(False, f"once more it ends with {ended.code}: {ended.errors[-900:]}")
        elif not ended.code or self.has_rolled_back(ended):
            self.same(ended)

    def once_more(self, fault: Fault | None = None) -> Ended | None:
        """The command to its end."""
        ended = self.start(fault).end(LIMIT)
        if self.check(ended, "the same command once more hangs"):
            assert ended
            self.outcome.cpu += ended.cpu
            self.spoke(ended, "the same command once more")
        return ended

    def named(self, ended: Ended) -> bool:
        """Whether an error's line names what the fault did."""
        return any(name in ended.error for name in self.fault.names)

    def may_refuse(self, first: Ended, ended: Ended) -> bool:
        """Whether the second command may end with an error."""
        fault = self.fault
        if self.has_rolled_back(ended):
            return True
        if fault.damaged and not first.code:  # What is damaged may be met later.
            return self.named(ended)
        if ended.code == 3 and "require_comparison" in ended.error:
            # A model is not published unless it was compared with the one before, which is gone.
            return any(name.startswith(("trainer/", "transform/")) for name in fault.damaged)
        return bool(fault.refuses and fault.free)

    def has_rolled_back(self, ended: Ended) -> bool:
        """Whether a rollback says that it is done; if so, the right version has to be served."""
        done = "already" in ended.error or "a rollback needs" in ended.error
        return self.operation == "rollback" and done

    def same(self, ended: Ended) -> None:
        """All bits are right."""
        fault, world = self.fault, self.world
        if COLD_START in ended.errors and any(
            name.startswith("trainer/") for name in fault.damaged
        ):
            return self.is_cold()
        free = (*fault.free, *fault.damaged)
        bits = whole.without_older_tokens(world.bits(), self.expected.bits)
        # What is served newest may be the damaged version.
        served = any(name.startswith("serving/") for name in fault.damaged)
        free += ("serving/newest",) if served else ()
        found, wanted = (
            {name: digest for name, digest in one.items() if not name.startswith(free)}
            for one in (bits, self.expected.bits)
        )
        for name in wanted.keys() - found.keys():
            if name.startswith(fault.optional):
                del wanted[name]
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
        if world.bucket:  # There, what is dead is told by its age: it goes after a day.
            left = [name for name in left if name[0] == ":" or ".scratch-" not in name]
        self.check(not left, f"temporary files are left: {left}")

    def is_cold(self) -> None:
        """The model is what a training gives that starts from nothing."""
        wanted = self.story.expected[COLD].bits
        wanted = {name: wanted[name] for name in wanted if name.startswith("trainer/")}
        bits = self.world.bits()
        found = {name: bits[name] for name in wanted if name in bits}
        self.check(found == wanted, f"other bits: {whole.differences(wanted, found)}")


def _is_temporary(name: str) -> bool:
    """Whether a file is one that a process writes beside another, or in a scratch directory."""
    last = name.rpartition("/")[2]
    return ".scratch-" in name or (last.startswith(".") and last.count(".") > 1)
