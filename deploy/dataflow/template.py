"""The program of the Flex Template: launches the Beam job of `skipstream transform`.

The launcher gives it the template's parameters and Beam's own options, all as --name=value, among
them --template_location: Dataflow starts the job when this program has ended. When the job has
ended, too, `skipstream transform` (or `run`) of the same version, with the same settings, goes on
with what it wrote, if the work directory is OUT/work of its --output.
"""

import argparse
import shlex
import sys
import tempfile

from components.errors import NotAwaitedError
from pipeline import cli


def main() -> None:
    """Ends the process: with 0 when the job was launched."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--input", required=True)
    parser.add_argument("--work_directory", required=True)
    parser.add_argument("--settings", default="")
    given, beam_options = parser.parse_known_args()
    settings = [f"transform.work_directory={given.work_directory}", *shlex.split(given.settings)]
    with tempfile.TemporaryDirectory() as output:
        patterns = shlex.split(given.input)
        command = ["transform", "--output", output, "--input", *patterns, "--set", *settings]
        code = cli.run([*command, "--", *beam_options])
    sys.exit(0 if code == NotAwaitedError.exit_code else code)


if __name__ == "__main__":
    main()
