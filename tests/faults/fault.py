"""A fault: what it does to a world, and how a person mends it."""

import dataclasses
import random
from collections.abc import Callable

from faults.commands import Ended, Process
from faults.story import Story
from faults.world import World


def _nothing() -> None:
    pass


@dataclasses.dataclass
class Fault:
    """One fault.

    Attributes:
        what: In words; `strike` may add to it.
        event: At which event of the command it comes.
        seconds: Or after how many seconds; None: neither, but before the command starts.
        strike: Does it, with the command, which stands still at an event; None before it starts.
        undo: What a person does before the same command runs again.
        remedy: What a person does if the second command, too, refuses, and names one of `names`;
            None: it must not.
        tidy: What is to do when all is over.
        prepare: Called in the process of the command first.
        stays: Whether `prepare` and `variables` are those of the second command, too.
        variables: Of the environment; None: not set.
        real: Whether the command is a Python of its own.
        names: Of which an error's line has to have one; empty: any line will do.
        damaged: Names of files that are not what they were.
        dies: Whether the command may die without a word.
        code: Of the command, if the fault came in time; None: 0, or one of an error.
        others: Commands that ran beside it.
        refuses: Whether the second command may refuse.
        free: What the names of files begin with that may have any bits.
        optional: What the names of files begin with that may be gone, or, of tmp/, left.
    """

    what: str
    event: int = 0
    seconds: float | None = None
    strike: Callable[[Process | None], None] = lambda process: None
    undo: Callable[[], None] = _nothing
    remedy: Callable[[], None] | None = None
    tidy: Callable[[], None] = _nothing
    prepare: Callable[[], object] = _nothing
    stays: bool = False
    variables: dict[str, str | None] = dataclasses.field(default_factory=dict)
    real: bool = False
    names: tuple[str, ...] = ()
    damaged: list[str] = dataclasses.field(default_factory=list)
    dies: bool = False
    code: int | None = None
    others: list[Ended | None] = dataclasses.field(default_factory=list)
    refuses: bool = False
    free: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Case:
    """What a fault is drawn for.

    Attributes:
        operation: Of the story.
    """

    draw: random.Random
    story: Story
    operation: str
    world: World

    def moment(self, fault: Fault, *, seconds: bool = True, first: float = 0) -> Fault:
        """Draw one for the fault, behind the `first` share of the command."""
        expected = self.story.expected[self.operation]
        share = first + (1 - first) * self.draw.random()
        # Requests to a bucket are no events.
        if seconds and self.draw.random() < (0.7 if self.world.bucket else 0.4):
            fault.seconds = share * expected.seconds
        else:
            fault.event = 1 + int(share * expected.events)
        return fault
