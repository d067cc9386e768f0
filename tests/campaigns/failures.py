"""The bucket fails: every kind of request of a run, for good and once.

A kind is what a request asks for, and which client asks: that of the places, or Beam's own. Kinds
come from the commands of a good second night, one by one, whose states before and after are kept.
So each fault costs one command, not a night.
"""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from copies import COMMANDS, Outputs, first_night
from faults import whole
from faults.nights import Checks, Corpus, Environment, arguments
from faults.proxy import Fault, Proxy, Request
from stores import Server

from components.places.place import open_place

FAULTS: tuple[Fault, ...] = (503, 403, "timeout", "truncated")
ONCE: tuple[Fault, ...] = (503, "reset", "truncated", "timeout")
# What a failure costs, cheapest first.
CHEAPEST = ("push", "evaluate", "validate", "train", "transform")


class Kind(NamedTuple):
    """What a request asks for, and who asks."""

    client: str
    asks: str

    @classmethod
    def of(cls, request: Request) -> "Kind":
        agent = request.headers.get("user-agent", "").lower()
        copies = any(name.endswith("-copy-source") for name in request.headers)
        client = "places" if agent.startswith("object_store") else "Beam"
        return cls(client, request.kind + (" (copy)" if copies else ""))

    def __str__(self) -> str:
        return f"{self.client}: {self.asks}"


ALL = Kind("all", "requests")


class Case(NamedTuple):
    """A fault of one kind of request.

    Attributes:
        skip: How many of that kind pass first.
    """

    kind: Kind
    fault: Fault
    command: str
    skip: int


def check(
    checks: Checks,
    corpus: Corpus,
    server: Server,
    seed: int,
    *,
    chosen: tuple[Fault, ...] = FAULTS,
    matching: str = "",
    workers: int = 2,
) -> None:
    """All kinds, but for those without `matching` in their names."""
    draw = random.Random(seed)
    outputs = first_night(checks, corpus, server)
    found, bits = _good(checks, corpus, outputs)
    cases = []
    for kind in sorted({kind for counts in found.values() for kind in counts}):
        by = [command for command in CHEAPEST if kind in found[command]]
        checks.say(f"     {kind}: {sum(found[command][kind] for command in by)} ({', '.join(by)})")
        for fault in chosen:
            skip = draw.randrange(found[by[0]][kind])
            cases.append(Case(kind, fault, by[0], skip))
    for fault in chosen:
        cases.append(Case(ALL, fault, "push", draw.randrange(sum(found["push"].values()))))
    cases = [case for case in cases if matching in str(case.kind)]
    with ThreadPoolExecutor(workers) as pool:
        fresh = [draw.random() < 0.5 for _ in cases]
        run = [
            pool.submit(_persistent, checks, corpus, outputs, case, bits[case.command], new)
            for case, new in zip(cases, fresh, strict=True)
        ]
        for future in run:
            future.result()
    for fault in ONCE:
        _once(checks, corpus, outputs, fault, found, bits["push"], draw)


def _good(
    checks: Checks, corpus: Corpus, outputs: Outputs
) -> tuple[dict[str, Counter[Kind]], dict[str, dict[str, str]]]:
    """The kinds of each command of a good second night, and the bits that each leaves."""
    found, bits = {}, {}
    name = outputs.copy("after-run", "before-transform")
    for command, following in zip(COMMANDS, (*COMMANDS[1:], "nothing"), strict=True):
        with (
            Proxy(outputs.server.endpoint) as proxy,
            Environment(outputs.through(proxy.endpoint)) as environment,
        ):
            after = outputs.copy(name, f"before-{following}")
            url = outputs.at(after)
            ended = environment.run(*arguments(corpus.night(2), url, command))
            checks(ended.code == 0, f"{url} {command}", ended.error)
            found[command] = Counter(map(Kind.of, proxy.requests))
        bits[command] = whole.bits(open_place(url))
        name = after
    return found, bits


def _persistent(
    checks: Checks,
    corpus: Corpus,
    outputs: Outputs,
    case: Case,
    expected: dict[str, str],
    fresh: bool,
) -> None:
    """From some request on, all of a kind fail; then none does."""
    url = outputs.at(outputs.copy(f"before-{case.command}"))
    command = arguments(corpus.night(2), url, case.command)
    said = f"{url} {case.fault} for {case.kind} after {case.skip}, in {case.command}"
    with (
        Proxy(outputs.server.endpoint) as proxy,
        Environment(outputs.through(proxy.endpoint)) as environment,
    ):
        rule = proxy.fail(case.fault, lambda request: Kind.of(request) == case.kind, skip=case.skip)
        ended = environment.run(*command)
        proxy.rules.clear()
        proxy.release()
        hit = [request for request in proxy.requests if request.fault == case.fault]
        checks.say(f"     {said}: {rule.hits} hits, {ended.seconds:.0f} s, exit {ended.code}")
        if not hit:
            return checks.say("     which never came")
        if ended.code:  # What only tidies up may fail and be told of.
            checks(ended.code == 1 and ended.is_one_line, f"{said}: one line", ended.errors)
            named = outputs.url in ended.error or proxy.endpoint in ended.error
            checks(named, f"{said}: the line has the address", ended.error)
            checks(ended.seconds < 150, f"{said}: it gives up in time", f"{ended.seconds:.0f} s")
            checks.say(f"     {ended.error}")
        else:
            last = ended.errors.splitlines()[-1]
            checks.say(f"     ended all the same; {hit[0].method} {hit[0].path}; {last}")
        halves = whole.half(open_place(url))
        checks(not halves, f"{said}: nothing is half there", halves[:3])
        proxy.released.clear()
        if fresh:
            with Environment(outputs.through(proxy.endpoint)) as another:
                again = another.run(*command)
        else:
            again = environment.run(*command)
    checks(again.code == 0, f"{said}: the next run ends", again.errors[-2000:])
    bits = whole.without_older_tokens(whole.bits(open_place(url)), expected)
    checks(bits == expected, f"{said}: the same bits", whole.differences(expected, bits))


def _once(
    checks: Checks,
    corpus: Corpus,
    outputs: Outputs,
    fault: Fault,
    found: dict[str, Counter[Kind]],
    expected: dict[str, str],
    draw: random.Random,
) -> None:
    """A night in which one request of each kind fails goes on as if nothing had been."""
    url = outputs.at(outputs.copy("before-transform"))
    kinds: Counter[Kind] = sum(found.values(), Counter())
    with (
        Proxy(outputs.server.endpoint) as proxy,
        Environment(outputs.through(proxy.endpoint)) as environment,
    ):
        for kind, count in sorted(kinds.items()):
            skip = draw.randrange(-(-count // 2))  # One command makes fewer than five.
            proxy.fail(fault, lambda r, kind=kind: Kind.of(r) == kind, skip=skip, times=1)
        ended = environment.run(*arguments(corpus.night(2), url))
        hits = [request for request in proxy.requests if request.fault]
    said = f"{url} one {fault} of each kind"
    checks.say(f"     {said}: {len(hits)} of {len(kinds)} kinds, {ended.seconds:.0f} s")
    last = hits[-1] if hits else None
    detail = f"{ended.error} (last: {last and (last.method, last.path)})"
    if checks(ended.code == 0, f"{said} goes unnoticed", detail):
        bits = whole.bits(open_place(url))
        checks(bits == expected, f"{said}: the same bits", whole.differences(expected, bits))
