"""What a run says of itself on stderr: lines for a person, or JSON Lines for a log collector.

In JSON each line has `time`, `severity` and `message`, which Google Cloud Logging takes for its
own, the run's id, and what else it is about by name. Only what C++ code writes straight to
descriptor 2 stays text.
"""

import logging
import os
import sys
import traceback
from typing import Any

from components import starvation
from components.names import printable
from pipeline import interrupts

FORMATS = ("text", "json")

_logger = logging.getLogger("skipstream")
_bound: dict[str, Any] = {}
_json = False
level = logging.INFO  # Of JSON Lines; DEBUG: progress within an epoch, too.


# Only containers have such a directory; Beam starts and stops job servers.
_HARMLESS = ("No semi_persistent_directory found", "Really starting", "Really destroying")
# What fails a job: a step, or the end of a thread that another one waits for.
_RAISED_TOO = ("[while running '", starvation.LOST)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record of Beam or gRPC tells a user something that the last line will not tell."""
    if record.name in ("PrismRunner", "apache_beam.utils.retry"):
        return False  # What fails there for good fails the command.
    text = logging.Formatter().format(record)
    starved = starvation.sign_in(text) or starvation.was_seen()
    raised_too = any(said in text for said in _RAISED_TOO) or starved or interrupts.exit_code()
    harmless = any(said in text for said in _HARMLESS)
    return not (record.name.startswith(("apache_beam.", "grpc.")) and (raised_too or harmless))


class Lines(logging.Formatter):
    """For a person: control characters of messages are escaped, as a bucket's names may hold."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        return printable(super().format(record))


def use_json() -> None:
    """JSON Lines from now on, for all of Python's logging."""
    from pythonjsonlogger.json import JsonFormatter

    global _json
    _json = True
    os.environ["TQDM_DISABLE"] = "1"  # Progress bars are for a person.
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(
            JsonFormatter(
                "%(levelname)s %(message)s %(name)s",
                rename_fields={"levelname": "severity", "name": "logger", "timestamp": "time"},
                timestamp=True,
                defaults=_bound,
                json_ensure_ascii=False,
            )
        )
    for name in (_logger.name, "components"):
        logging.getLogger(name).setLevel(level)


def bind(**fields: Any) -> None:
    """Add fields, such as the run's id, to each JSON line from now on."""
    _bound.update(fields)


def say(text: str, **fields: Any) -> None:
    """One line of news.

    Args:
        text: The line for a person.
        fields: What it says, for a machine.
    """
    if _json:
        detail(" ".join(text.split()), **fields)
    else:
        print(printable(text), file=sys.stderr, flush=True)


def detail(text: str, **fields: Any) -> None:
    """One line that is of use to a machine only."""
    _logger.info(text, extra=fields)


def fail(message: str, exit_code: int, bug: BaseException | None = None) -> None:
    """The last line of a command that failed, with the traceback where we are to blame."""
    if _json:
        _logger.error(message, extra={"exit_code": exit_code}, exc_info=bug)
    else:
        if bug:
            traceback.print_exception(bug)
        print(f"skipstream: error: {message}", file=sys.stderr, flush=True)
