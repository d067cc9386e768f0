"""The one exception that means "the user can mend this"."""

import re
from typing import Any

from components.names import shown


class SkipstreamError(Exception):
    """A mistake in settings, input or environment that the user can mend.

    The message is one line that carries the rule, the received value and the remedy; the
    command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Names of files may hold any bytes: they are escaped, so that it is one line of text."""
        super().__init__(shown(message))


class SettingsError(SkipstreamError):
    """A mistake in the command line, the settings or Beam's options: as it is, it never works."""

    exit_code = 2


class UnknownWordError(SkipstreamError, KeyError):
    """A word has no vector."""

    def __str__(self) -> str:
        """The message; a KeyError's own would be in quotes."""
        return str(self.args[0])


class NotBlessedError(SkipstreamError):
    """A gate refused the corpus or the model, or the training diverged: it would do so again."""

    exit_code = 3


class NotAwaitedError(SkipstreamError):
    """A job was handed over as asked, and runs on its own: the next run takes what it wrote."""

    exit_code = 4


# A worker in another process or thread answers with its traceback as text, where the error is a
# line of its own; the last one is what the chain of causes ended in.
_IN_TRACEBACK = re.compile(r"^(?:\w+\.)*SkipstreamError: (.*)$", re.MULTILINE)
_BEAM_SUFFIX = re.compile(r"(?: \[while running '[^\n]*?'\])+\Z")
# How runners in other processes say that a job failed.
_FAILED = re.compile(
    r"(?:Pipeline \S+ failed in state \w+:|Dataflow pipeline failed\. State: \w+, Error:)(.*)\Z",
    re.DOTALL,
)

# Where a graph was written, in front of what TensorFlow says; names of its nodes and functions.
_GRAPH = re.compile(
    r"^(?:Graph execution error:|Detected at node .*|<stack traces unavailable>|  File \".*)$"
    r"|^\s+\[\[.*?\]\]|\{\{.*?\}\}|\[Op:\w+\][^\n]*",
    re.MULTILINE,
)


def from_tensorflow(error: Any) -> str:
    r"""What an error of TensorFlow says, in one line, without the graph that it happened in.

    >>> from types import SimpleNamespace
    >>> from_tensorflow(SimpleNamespace(message=(
    ...     'Graph execution error:\n\nDetected at node G defined at (most recent call last):\n'
    ...     '  File "/a/b.py", line 5, in read\n\nno data\n\t [[{{node G}}]] [Op:__inference_1]')))
    'no data'
    """
    return " ".join(_GRAPH.sub("", str(getattr(error, "message", ""))).split())


def from_beam(error: BaseException) -> SkipstreamError | None:
    r"""What the user can mend, out of what Beam made of it; None if there is nothing.

    Args:
        error: What running the pipeline raised.

    Returns:
        The SkipstreamError that a DoFn raised, without Beam's additions to its message; or one
        that says what the runner says, if the job failed there and not in our code.

    >>> from_beam(RuntimeError(
    ...     "Traceback (most recent call last):\n"
    ...     "components.errors.SkipstreamError: no text in a.gz [while running 'Read/Units']\n"))
    SkipstreamError('no text in a.gz')
    >>> from_beam(RuntimeError("Pipeline job-1 failed in state FAILED: the worker is gone"))
    SkipstreamError('the Beam job failed (the worker is gone): see the logs of its runner')
    """
    text = message = str(error)
    if isinstance(error, SkipstreamError):
        pass
    elif lines := _IN_TRACEBACK.findall(text):
        message = lines[-1].rstrip()
    elif "Traceback" not in text and (failed := _FAILED.match(text)):
        reason = " ".join(failed[1].split())
        message = f"the Beam job failed ({reason}): see the logs of its runner"
    else:
        return None
    return SkipstreamError(_BEAM_SUFFIX.sub("", message))
