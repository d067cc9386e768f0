"""Injects faults into the nights of a small corpus, and checks what must hold after each.

    make faults ARGS='--runs 200 --seed 1'
    make faults ARGS='--seed 1 --only 17'

Each run takes an operation of the story (a stage of a night, a rollback, gc, …), lets a fault fall
into it at a moment, and gives the same command once more. The seed decides all of that. The exit
code is 1 if a check did not hold.
"""

import argparse
import os
import pickle
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import stores  # noqa: E402

from faults import forked, story  # noqa: E402
from faults.checks import Drawn, Outcome, run  # noqa: E402
from faults.kinds import KINDS, NEEDS_ROOT, ONLY_LOCAL, WEIGHTS  # noqa: E402

PLACES = {"local": None, "s3": stores.s3, "gs": stores.gs}


def main() -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="today's")
    parser.add_argument("--only", type=int, nargs="+", help="these runs of the seed")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--nights", type=int, default=story.NIGHTS, help="only the first N")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--work", type=Path, help="directory to keep the story and failed runs in")
    options = parser.parse_args()
    drawn = [_draw(options, number) for number in options.only or range(1, options.runs + 1)]
    begun = time.monotonic()
    print(f"--seed {options.seed}, {len(drawn)} runs", flush=True)
    forked.load()
    with ExitStack() as stack:
        root = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory("-faults")))
        root.mkdir(exist_ok=True, parents=True)
        root.chmod(0o755)
        stories = {}
        for place in sorted({one.place for one in drawn}):
            url, bucket = "", {}
            if server := PLACES[place]:
                made = stack.enter_context(server()).bucket()
                url, bucket = made.url, dict(made.environment)
            # What lies in a bucket ends with its server.
            kept = root / (f"{place}-{story.code()}" + (f"-{os.getpid()}" if url else ""))
            kept.mkdir(exist_ok=True)
            stories[place] = story.Story(kept, url, bucket, _say(place, begun))
            for one in drawn:
                if one.place == place:
                    for name in _needed(one):
                        stories[place].tell(name)
        outcomes = _run(drawn, stories, root, options, begun)
    _table(outcomes)
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        one = outcome.drawn
        print(f"\nfailed: make faults ARGS='{_again(options, one)}'")
        for text in outcome.failed:
            print(f"  {text.splitlines()[-1][:500]}")
    cpu = sum(outcome.cpu for outcome in outcomes) / max(1, len(outcomes))
    print(f"{len(outcomes)} runs, {len(failed)} failed, {cpu:.1f} CPU s a run")
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if failed or len(outcomes) < len(drawn) else 0


def _draw(options: argparse.Namespace, number: int) -> Drawn:
    draw = random.Random(f"{options.seed} {number}")
    kinds = [kind for kind in options.kinds if kind not in NEEDS_ROOT or not os.geteuid()]
    kind = draw.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])[0]
    operations = KINDS[kind][1]
    if options.nights < story.NIGHTS:
        first = tuple(f"night {night + 1}:" for night in range(options.nights))
        operations = [name for name in operations if name.startswith(first)]
    operation = draw.choice(operations)
    local = [place for place in options.places if place == "local"]
    others = [place for place in options.places if place != "local"]
    place = draw.choice(2 * len(options.places) * local + others)
    if kind in ONLY_LOCAL and local:
        place = "local"
    return Drawn(options.seed, number, place, kind, operation)


def _needed(one: Drawn) -> list[str]:
    """The operations whose results a run may be compared with."""
    night = one.operation.partition(":")[0]
    if one.kind != "damage" or not night.startswith("night"):
        return [one.operation]
    cold = [story.COLD] if night == f"night {story.NIGHTS}" else []
    return [one.operation, f"{night}: run", *cold]


def _again(options: argparse.Namespace, one: Drawn) -> str:
    chosen = (
        "" if len(options.kinds) == len(KINDS) else f" --kinds {' '.join(map(repr, options.kinds))}"
    )
    chosen += "" if len(options.places) == len(PLACES) else f" --places {' '.join(options.places)}"
    chosen += "" if options.nights == story.NIGHTS else f" --nights {options.nights}"
    return f"--seed {one.seed} --only {one.number}{chosen}"


def _run(
    drawn: list[Drawn],
    stories: dict[str, story.Story],
    root: Path,
    options: argparse.Namespace,
    begun: float,
) -> list[Outcome]:
    """All runs, by as many processes as there are jobs."""
    if options.jobs == 1:
        return [_one(one, stories, root, options, begun) for one in drawn]
    waiting, tell = os.pipe()
    workers = {}
    for worker in range(options.jobs):
        results = root / f"results-{worker}"
        results.unlink(missing_ok=True)
        if not (pid := os.fork()):
            os.close(tell)
            forked.end_with_parent()
            outcomes = []
            while number := os.read(waiting, 4):
                outcomes.append(
                    _one(drawn[int.from_bytes(number, "big")], stories, root, options, begun)
                )
                results.write_bytes(pickle.dumps(outcomes))
            os._exit(0)
        workers[pid] = results
    for number in range(len(drawn)):
        os.write(tell, number.to_bytes(4, "big"))
    os.close(tell)
    found = []
    for pid, results in workers.items():
        os.waitpid(pid, 0)
        if results.exists():
            found += pickle.loads(results.read_bytes())
    return sorted(found, key=lambda outcome: outcome.drawn.number)


def _one(
    one: Drawn,
    stories: dict[str, story.Story],
    root: Path,
    options: argparse.Namespace,
    begun: float,
) -> Outcome:
    outcome = run(one, stories[one.place], root, keep=options.work is not None)
    result = "FAILED" if outcome.failed else "ok"
    print(
        f"{time.monotonic() - begun:6.0f} s  {one.number:4} {result:6} {one.place:5} {one.kind:14} "
        f"{one.operation:20} {outcome.stage or '-':15} {outcome.what}: {outcome.ended[:300]} "
        f"({outcome.cpu:.1f} CPU s)",
        flush=True,
    )
    for text in outcome.failed:
        print(f"                {text}", flush=True)
    return outcome


def _say(place: str, begun: float):  # noqa: ANN202
    return lambda text: print(f"{time.monotonic() - begun:6.0f} s  {place}: {text}", flush=True)


def _table(outcomes: list[Outcome]) -> None:
    """Faults by kind and stage, and how many failed."""
    counts = Counter((outcome.drawn.kind, outcome.stage or "-") for outcome in outcomes)
    failed = Counter(outcome.drawn.kind for outcome in outcomes if outcome.failed)
    order = ["-", *(kind.STAGE for kind in _kinds())]
    stages = [stage for stage in order if any(found == stage for _, found in counts)]
    print(
        "\n" + " ".join(["kind".ljust(15), *(f"{stage:>15}" for stage in stages), "  all  failed"])
    )
    for kind in KINDS:
        row = [counts[kind, stage] for stage in stages]
        if sum(row):
            cells = " ".join(f"{count or '':>15}" for count in row)
            print(f"{kind:15} {cells} {sum(row):5} {failed[kind]:7}")


def _kinds():  # noqa: ANN202
    from pipeline.store import KINDS as kinds

    return kinds


if __name__ == "__main__":
    sys.exit(main())
