"""Shows that an output may lie in a bucket: nights, kills, faults, runs at once, and what it costs.

    make campaign-buckets ARGS='--parts nights kills --stores s3 gs --seed 7'

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

import stores  # noqa: E402
import three_nights  # noqa: E402
from nights import Checks, Corpus  # noqa: E402

PARTS = ("nights",)


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
    options = parser.parse_args()
    checks = Checks()
    checks.say(f"--seed {options.seed}")
    with ExitStack() as stack:
        root = options.reference or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        corpus = Corpus(root / "corpus")
        if not corpus.root.exists():
            Corpus.write(corpus.root)
        expected = three_nights.reference(checks, corpus, root)
        for name in options.stores:
            server = stack.enter_context({"s3": stores.s3, "gs": stores.gs}[name]())
            os.environ.update(server.environment(server.endpoint))  # For what this process reads.
            if "nights" in options.parts:
                bucket = server.bucket()
                url = f"{bucket.url}/house/words"
                three_nights.check(checks, corpus, expected, url, bucket.environment)
    for what in checks.failed:
        checks.say(f"failed: {what}")
    checks.say(f"{checks.made} checks, {len(checks.failed)} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
