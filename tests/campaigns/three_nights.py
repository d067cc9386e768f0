"""Three nights in fresh environments, a poisoned one, rollback and gc: bucket and disk alike."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults import whole
from faults.nights import Checks, Corpus, Ended, Environment, arguments, version_in

from components.places.place import Place, open_place


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the nights left in a directory.

    Attributes:
        bits: After each night, from 1; see `whole.bits`.
        answers: Of each version; see `whole.answers`.
    """

    bits: list[dict[str, str]]
    answers: dict[str, str]


def reference(checks: Checks, corpus: Corpus, root: Path) -> Reference:
    """Run the nights in a directory; if `root` has them already, take those.

    Delete `root` after a change of the program.
    """
    known = root / "reference.json"
    if known.exists():
        return Reference(**json.loads(known.read_text()))
    found = Reference(*_nights(checks, corpus, str(root / "local"), {}))
    known.write_text(json.dumps(dataclasses.asdict(found)))
    return found


def check(
    checks: Checks, corpus: Corpus, expected: Reference, url: str, variables: Mapping[str, str]
) -> None:
    """The same in a bucket."""
    found, answers = _nights(checks, corpus, url, variables)
    for night, (here, there) in enumerate(zip(found, expected.bits, strict=True), start=1):
        _same(checks, f"{url} night {night} has the bits of a directory's", there, here)
    checks(answers == expected.answers, f"{url} its versions answer as a directory's do")


def _same(checks: Checks, what: str, there: dict[str, str], here: dict[str, str]) -> None:
    checks(here == there and there, what, whole.differences(there, here))


def _nights(
    checks: Checks, corpus: Corpus, output: str, variables: Mapping[str, str]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    place = open_place(output)
    bits = []
    for night in (1, 2, 3):
        ended = _run(checks, corpus.night(night), output, variables)
        checks(ended.code == 0, f"{output} night {night} is pushed", ended.error)
        checks(version_in(ended.out) == night, f"{output} night {night} says version {night}")
        _reported(checks, place, night)
        bits.append(whole.bits(place))
    answers = whole.answers(place)
    ended = _run(checks, corpus.poison, output, variables)
    checks(ended.code == 3 and ended.is_one_line, f"{output} a poisoned night: 3", ended.error)
    checks(whole.newest_version(place) == 3, f"{output} version 3 is served still")
    _after(checks, corpus, place, output, variables, bits[2])
    return bits, answers


def _run(checks: Checks, files: list[Path], output: str, variables: Mapping[str, str]) -> Ended:
    """In an environment of its own."""
    with Environment(variables) as environment:
        ended = environment.run(*arguments(files, output))
    checks.say(f"     {output} {files[-1].parent.name} took {ended.seconds:.1f} s")
    return ended


def _reported(checks: Checks, place: Place, night: int) -> None:
    stages: dict[str, Any] = json.loads(place.read("run.json") or b"{}")["stages"]
    reused = [name for name, stage in stages.items() if stage["reused"]]
    checks(not reused, f"{place.address} night {night} makes all anew", reused)
    found = stages["transform"]["units"], stages["transform"]["units_reused"]
    said = f"{place.address} night {night} tokenises the new text alone"
    checks(found == (night, night - 1), said, found)
    if night > 1:
        warm = stages["trainer"].get("words_carried_over", 0)
        checks(warm > 400, f"{place.address} night {night} starts warm", warm)
        onto = stages["exporter"].get("aligned_to_version")
        checks(onto == night - 1, f"{place.address} night {night} is aligned", onto)
    checks(stages["evaluator"]["blessed"], f"{place.address} night {night} passes the gate")


def _after(
    checks: Checks,
    corpus: Corpus,
    place: Place,
    output: str,
    variables: Mapping[str, str],
    bits: dict[str, str],
) -> None:
    """Repeat the last night, roll back, tidy up."""
    with Environment(variables) as environment:
        again = environment.run(*arguments(corpus.night(3), output))
        reused = re.findall(r"^(\w+) +reused  ", again.errors, re.MULTILINE)
        done = again.code == 0 and reused == list(whole.STAGES)
        checks(done, f"{output} the same night once more reuses all", again.errors)
    with Environment(variables) as environment:
        back = environment.run("rollback", output, "--reason", "a test")
        checks(back.code == 0 and version_in(back.out) == 4, f"{output} rolls back", back.error)
        restored, copied = whole.bits_of(place, 2), whole.bits_of(place, 4)
        checks(copied == restored and copied, f"{output} version 4 is version 2")
        shown = environment.run("versions", output, "--json")
        said = [entry["version"] for entry in json.loads(shown.out or "[]")]
        checks(said == [4, 3, 2], f"{output} lists its versions", said)
    with Environment(variables) as environment:
        refused = environment.run(*arguments(corpus.night(3), output))
        checks(refused.code == 3, f"{output} refuses what was rolled back from", refused.error)
    with Environment(variables) as environment:
        collected = environment.run("gc", output)
        checks(collected.code == 0, f"{output} gc", collected.error)
        # Gone are those of night 1 and of the poisoned one.
        left = {name: place.names(name) for name in ("transform", "trainer", "exporter")}
        right = all(len(names) == 2 for names in left.values())
        checks(right, f"{output} gc leaves what two versions were made of", left)
        lost = whole.bits(place).items() - bits.items()
        # The poisoned night left its own tokens.
        lost = {name for name, _ in lost if not name.startswith(("serving/", "tokens/"))}
        checks(not lost, f"{output} gc leaves the rest as it was", lost)
        embedded = environment.run("neighbors", output, "t1w1")
        checks(embedded.code == 0 and embedded.out, f"{output} answers", embedded.error)
