"""What bash makes of a command that a message prints, where the locale is C."""

import os
import subprocess
from pathlib import Path


def bash(command: str, directory: Path | None = None) -> bytes:
    """Run it, and return what it prints."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LC_ALL": "C"}
    arguments = ["bash", "-c", os.fsencode(command)]
    ran = subprocess.run(
        arguments, cwd=directory, env=environment, stdout=subprocess.PIPE, check=True
    )
    return ran.stdout


def words(command: str) -> list[str]:
    """The words of it, as a program gets them."""
    return os.fsdecode(bash(f"printf '%s\\0' {command}")).split("\0")[:-1]
