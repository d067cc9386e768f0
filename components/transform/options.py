"""Where and how the Beam job runs, from the options behind `--` on the command line."""

import contextlib
import io
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, create_runner

from components.errors import SkipstreamError


def runner_and_options(flags: Sequence[str]) -> tuple[PipelineRunner, PipelineOptions]:
    """Let Beam read its options.

    Args:
        flags: As on a command line. Without --runner the job runs in this process; Beam's own
            default would try to fetch the Prism binary from the network first.

    Raises:
        SkipstreamError: A value is not one that its option takes, there is no such runner, or a
            job in this process has no such option.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(list(flags), save_main_session=False)
            direct = options.view_as(DirectOptions)
            if not flags:  # Both CPUs of a laptop; most of the work is outside the interpreter.
                direct.direct_num_workers = 0
                direct.direct_running_mode = "multi_threading"
            name = options.view_as(StandardOptions).runner
            runner = create_runner(name) if name else FnApiRunner()
            # Beam drops what it does not know. The service of a remote runner may know it.
            local = isinstance(runner, FnApiRunner | SwitchingDirectRunner)
            options.get_all_options(
                add_extra_args_fn=(lambda parser: parser.parse_args(flags)) if local else None
            )
    except (SystemExit, ValueError, ImportError, AttributeError) as error:
        reason = (said.getvalue().strip().splitlines() or [str(error)])[-1]
        reason = reason.partition("error: ")[2] or reason
        raise SkipstreamError(f"Beam refuses its options {' '.join(flags)}: {reason}") from error
    return runner, options
