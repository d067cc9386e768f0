"""The one exception that means "the user can mend this"."""

import re


class SkipstreamError(Exception):
    """A mistake in settings, input or environment that the user can mend.

    The message is one line that carries the rule, the received value and the remedy; the
    command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class NotBlessedError(SkipstreamError):
    """A gate refused the candidate: nothing is broken, and nothing was pushed."""

    exit_code = 3


# A worker in another process or thread answers with its traceback as text, where the error is a
# line of its own; the last one is what the chain of causes ended in.
_IN_TRACEBACK = re.compile(r"^(?:\w+\.)*SkipstreamError: (.*)$", re.MULTILINE)
_BEAM_SUFFIX = re.compile(r"(?: \[while running '[^\n]*?'\])+\Z")


def from_beam(error: BaseException) -> SkipstreamError | None:
    r"""The SkipstreamError that a DoFn raised, out of what Beam made of it; None if there is none.

    Args:
        error: What running the pipeline raised.

    Returns:
        An error whose message is the original's, without Beam's additions.

    >>> from_beam(RuntimeError(
    ...     "Traceback (most recent call last):\n"
    ...     "components.errors.SkipstreamError: no text in a.gz [while running 'Read/Units']\n"))
    SkipstreamError('no text in a.gz')
    """
    if isinstance(error, SkipstreamError):
        message = str(error)
    else:
        lines = _IN_TRACEBACK.findall(str(error))
        if not lines:
            return None
        message = lines[-1].rstrip()
    return SkipstreamError(_BEAM_SUFFIX.sub("", message))
