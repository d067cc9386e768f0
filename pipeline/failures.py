"""What went wrong, in one line: what the user can mend apart from what only we can."""

import errno
import re
import sys

from components import starvation
from components.errors import SkipstreamError, from_tensorflow
from components.names import shown
from pipeline import interrupts

# How C++ and Java spell what a disk refuses, wherever it surfaces.
_NO_ROOM = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}
# How numpy says that a file took less than it was given, whatever the reason.
_SHORT = re.compile(r"\d+ requested and \d+ written")


def explain(error: BaseException) -> tuple[str, int] | None:
    """The message and the exit code of a failure that is no bug of ours, else None.

    >>> explain(SkipstreamError("trainer.window must be at least 1, got 0"))
    ('trainer.window must be at least 1, got 0', 1)
    >>> explain(OSError(28, "No space left on device", "/data/x"))
    ('disk full: /data/x: make room and run the same command again', 1)
    >>> explain(OSError("34261 requested and 23552 written"))[0]
    'disk full: No space left on device: make room and run the same command again'
    >>> explain(ValueError("x")) is None
    True
    """
    # Whatever a library made of the interrupt on its way up.
    if isinstance(error, KeyboardInterrupt) or interrupts.exit_code():
        return "interrupted: the same command resumes", interrupts.exit_code() or 130
    if isinstance(error, SkipstreamError):
        return one_line(error), error.exit_code
    if refused := _no_room(error):
        where = getattr(error, "filename", None) or refused
        limit = " or allow larger files (ulimit -f)" if refused == _NO_ROOM[errno.EFBIG] else ""
        return f"disk full: {where}: make room{limit} and run the same command again", 1
    if said := starvation.sign_in(str(error)):  # Beam puts a traceback around it.
        return str(starvation.error(said)), 1
    if starvation.LOST in str(error):
        return (
            f"a thread of the Beam job ended before its work did ({starvation.LOST}), as they do "
            "where memory or threads run out: run the same command again, or give it more",
            1,
        )
    if isinstance(error, MemoryError):
        return f"out of memory: {one_line(error)}: give it more, or less text at a time", 1
    if isinstance(error, OSError):
        # Libraries raise OSErrors that no system call returned, with a text alone.
        reason = error.strerror or one_line(error)
        return (f"{shown(str(error.filename))}: {reason}" if error.filename else reason), 1
    return _explain_tensorflow(error)


def _no_room(error: BaseException) -> str | None:
    """What a disk said that took no more; None: that is not the reason."""
    text, number = str(error), getattr(error, "errno", None)
    if _SHORT.search(text):
        return _NO_ROOM[errno.ENOSPC]
    return next((said for key, said in _NO_ROOM.items() if key == number or said in text), None)


def one_line(error: BaseException) -> str:
    """The error's text, or its type where it has none."""
    # Spaces stay as they are: the text may hold a command with a file's name.
    return re.sub(r"\s*\n\s*", " ", str(error)).strip() or type(error).__name__


def _explain_tensorflow(error: BaseException) -> tuple[str, int] | None:
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    if errors is None:  # It is not imported, or not yet.
        return None
    text = from_tensorflow(error)
    if isinstance(error, errors.DataLossError):
        return f"damaged data: {text}: delete the artifact that holds it, and run again", 1
    if isinstance(error, errors.ResourceExhaustedError):
        return f"out of memory: {text}: use fewer trainer.dimensions or transform.max_size", 1
    if isinstance(error, errors.NotFoundError | errors.PermissionDeniedError):
        return text, 1
    return None
