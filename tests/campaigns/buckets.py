"""Shows that an output may lie in a bucket: nights, requests that fail, and what it costs.

    make campaign-buckets ARGS='--parts nights failures --stores s3 gs --seed 7'

Both stores run on this machine: moto's S3, and the emulator of Cloud Storage that the tests use.
Each part says what it does, and each check whether it held. The exit code is 1 if one did not. No
time is checked; some are printed.
"""

import argparse
import os
import secrets
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import costs  # noqa: E402
import failures  # noqa: E402
import stores  # noqa: E402
import three_nights  # noqa: E402
from faults.nights import Checks, Corpus  # noqa: E402

PARTS = ("nights", "failures", "costs")


def main() -> int:
    """Run the parts that are asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--stores", nargs="+", choices=("s3", "gs"), default=("s3", "gs"))
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument(
        "--reference",
        type=Path,
        help="directory for the corpus and the nights in a directory, which later campaigns with "
        "the same program take from there",
    )
    parser.add_argument("--kinds", default="", help="part of the names of requests that fail")
    parser.add_argument("--faults", nargs="+", choices=("503", "403", "timeout", "truncated"))
    parser.add_argument("--workers", type=int, default=2, help="faults at a time")
    options = parser.parse_args()
    checks = Checks()
    checks.say(f"--seed {options.seed}")
    with ExitStack() as stack:
        root = options.reference or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        corpus = Corpus(root / "corpus")
        if not corpus.root.exists():
            Corpus.write(corpus.root)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        os.environ["SKIPSTREAM_CACHE"] = stack.enter_context(tempfile.TemporaryDirectory())
        expected = three_nights.reference(checks, corpus, root)
        for name in options.stores:
            server = stack.enter_context({"s3": stores.s3, "gs": stores.gs}[name]())
            os.environ.update(server.environment(server.endpoint))  # For what this process reads.
            for part in options.parts:
                checks.say(f"{part} on {name}")
                _do(part, checks, corpus, expected, server, root, options)
    for what in checks.failed:
        checks.say(f"failed: {what}")
    checks.say(f"{checks.made} checks, {len(checks.failed)} failed")
    return 1 if checks.failed else 0


def _do(
    part: str,
    checks: Checks,
    corpus: Corpus,
    expected: three_nights.Reference,
    server: stores.Server,
    root: Path,
    options: argparse.Namespace,
) -> None:
    if part == "nights":
        bucket = server.bucket()
        url = f"{bucket.url}/house/words"
        three_nights.check(checks, corpus, expected, url, bucket.environment)
    elif part == "failures":
        chosen = tuple(
            int(fault) if fault.isdecimal() else fault
            for fault in map(str, options.faults or failures.FAULTS)
        )
        failures.check(
            checks,
            corpus,
            server,
            options.seed,
            chosen=chosen,
            matching=options.kinds,
            workers=options.workers,
        )
    else:
        costs.check(checks, corpus, server, root / "costs")


if __name__ == "__main__":
    sys.exit(main())
