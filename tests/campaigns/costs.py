"""What a bucket costs: seconds of a run that reuses all, and memory for a large artifact.

python costs.py publish s3://bucket/out MEGABYTES
python costs.py fetch s3://bucket/out MEGABYTES
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import copies
from faults.nights import CHECKOUT, Checks, Corpus, Environment, arguments
from stores import Server

from components.artifacts import Model
from pipeline.store import Step, Store

MEGABYTES = (100, 1000)
BLOCK = 2**20


def check(checks: Checks, corpus: Corpus, server: Server, local: Path) -> None:
    """Print the figures; `local` is an output in a directory with the last night."""
    outputs = copies.first_night(checks, corpus, server)
    places = {str(local): {}, outputs.at("after-run"): outputs.variables}
    for output, variables in places.items():
        night = corpus.night(1)
        with Environment(variables) as environment:
            environment.run(*arguments(night, output))  # Fetches, or makes.
            runs = [environment.run(*arguments(night, output)) for _ in range(5)]
        same = all(run.code == 0 and " running" not in run.errors for run in runs)
        checks(same, f"{output} all is reused", runs[0].errors)
        seconds = sorted(run.seconds for run in runs)
        checks.say(f"     {output} reuses all in {statistics.median(seconds):.2f} s: {seconds}")
    for megabytes in MEGABYTES:
        url = outputs.at(f"large-{megabytes}")
        for what in ("publish", "fetch"):
            with Environment(outputs.variables) as environment:
                ended = subprocess.run(
                    [sys.executable, __file__, what, url, str(megabytes)],
                    env=environment.variables
                    | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])},
                    capture_output=True,
                    text=True,
                )
            checks(ended.returncode == 0, f"{url} {what}", ended.stderr)
            checks.say(f"     {what} {megabytes} MB: {ended.stdout.strip()}")


def large(what: str, url: str, megabytes: int) -> str:
    """Publish or fetch an artifact with one file of that size; the peak of memory, in words."""
    store = Store.open(url)
    step = Step(Model, "components.trainer.trainer", content=megabytes)
    before = _peak()
    if what == "publish":
        with store.hold("costs"):
            out = store.begin(step, "costs")
            with (out.path / "vectors.npy").open("wb") as file:
                for _ in range(megabytes):
                    file.write(os.urandom(BLOCK))
            store.publish(out.finish())
    else:
        found = store.find(Model, step.fingerprint)
        if not found or (found / "vectors.npy").stat().st_size != megabytes * BLOCK:
            raise ValueError(f"{url} must hold the artifact, and does not: publish it first")
    return f"peak {_peak()} MB of memory, {before} MB before"


def _peak() -> int:
    """MB of this program; `getrusage` would count those of the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    print(large(sys.argv[1], sys.argv[2], int(sys.argv[3])))
