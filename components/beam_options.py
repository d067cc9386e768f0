"""Where and how the Beam job runs, from the options behind `--` on the command line."""

import contextlib
import io
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, worker_handlers
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.runners.worker import sdk_worker

from components.errors import SettingsError, SkipstreamError
from components.example_gen.files import is_remote

# Beam's local threads send what they have once a second, even in the middle of an element. The
# other side then reads garbage, and may take it for the length of a list that fills the memory
# (seen). They also send every 10 MB and at the end of a bundle, which is enough.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 10**9
# They also print the traceback of what a step raised, which is logged and raised as well.
sdk_worker.print = lambda *_, **__: None
# How long their servers may take to stop, to which Beam gives 5 seconds. One that lost a thread, as
# where memory runs out, never does, and neither would the job.
_CLOSING_SECONDS = 30.0
_close = worker_handlers.GrpcServer.close
# With these, no job runs whose files the stage could go on with, now or later.
_NEVER_RUN = ("dry_run", "output_executable_path")
# With these, it runs on its own.
_NOT_AWAITED = ("no_wait_until_finish", "template_location")

_View = TypeVar("_View", bound=PipelineOptions)


def _close_in_time(server: worker_handlers.GrpcServer) -> None:
    closing = threading.Thread(target=_close, args=[server], daemon=True)
    with contextlib.suppress(RuntimeError):  # No thread is left for that: they end with us.
        closing.start()
        closing.join(_CLOSING_SECONDS)


worker_handlers.GrpcServer.close = _close_in_time


class _Options(PipelineOptions):
    """Options that make each view once: Beam asks a thousand times, and a view parses all flags."""

    def view_as(self, cls: type[_View]) -> _View:
        views: dict[type[PipelineOptions], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: _View = views[cls]
        return view


def runner_and_options(flags: Sequence[str]) -> tuple[PipelineRunner, PipelineOptions]:
    """Let Beam read its options.

    Args:
        flags: As on a command line. Without --runner the job runs in this process; Beam's own
            default would try to fetch the Prism binary from the network first.

    Raises:
        SettingsError: A value is not one that its option takes, there is no such runner, a job in
            this process has no such option, one that the runner needs is missing, or the job would
            not run.
        SkipstreamError: Nothing answers at --job_endpoint, or where Beam looks an option up.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = _Options(list(flags), save_main_session=False)
            direct = options.view_as(DirectOptions)
            name = options.view_as(StandardOptions).runner
            if not name and not any(flag.startswith("--direct_") for flag in flags):
                # All CPUs of a laptop; most of the work is outside the interpreter.
                direct.direct_num_workers = 0
                direct.direct_running_mode = "multi_threading"
            runner = create_runner(name) if name else FnApiRunner()
            # Beam drops what it does not know. The service of a remote runner may know it.
            local = isinstance(runner, FnApiRunner | SwitchingDirectRunner)
            values = options.get_all_options(
                add_extra_args_fn=(lambda parser: parser.parse_args(flags)) if local else None
            )
    except (SystemExit, ValueError, ImportError, AttributeError) as error:
        reason = (said.getvalue().strip().splitlines() or [str(error)])[-1]
        reason = reason.partition("error: ")[2] or reason
        raise SettingsError(f"Beam refuses its options {' '.join(flags)}: {reason}") from error
    _check(values)
    FileSystems.set_options(options)  # The corpus is listed before there is a pipeline.
    try:
        mistakes = PipelineOptionsValidator(options, runner).validate()
    except Exception as error:  # Every cloud library has exceptions of its own.
        reason = " ".join(str(error).split())
        raise SkipstreamError(
            f"Beam cannot check its options {' '.join(flags)}: {reason}"
        ) from error
    if mistakes:
        raise SettingsError(f"Beam refuses its options {' '.join(flags)}: {' '.join(mistakes)}")
    return runner, options


def _check(values: dict[str, Any]) -> None:
    """Refuse what Beam would fail with later, or not at all."""
    for name in _NEVER_RUN:
        if values.get(name):
            raise SettingsError(f"the Beam job must run, got --{name}={values[name]}: leave it out")
    prism = values.get("prism_location")
    if prism and not is_remote(prism) and not os.path.exists(prism):
        raise SettingsError(f"--prism_location must be the Prism binary, no file {prism}")
    endpoint = values.get("job_endpoint")
    if endpoint and ":" in endpoint:  # Else it is a word that Beam knows, such as `embed`.
        host, _, port = endpoint.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError) as error:
            raise SkipstreamError(
                f"no job server answers at --job_endpoint={endpoint} ({error}): start it first"
            ) from error


def in_this_process(runner: PipelineRunner, options: PipelineOptions) -> bool:
    """Whether all that the job computes is computed here, or in children of this process.

    Of runners other than Beam's local ones, that is so only where the options say LOOPBACK, or
    Prism is left to its default, which is that.
    """
    if isinstance(runner, FnApiRunner | SwitchingDirectRunner):
        return True
    environment = options.view_as(PortableOptions).environment_type
    if environment is None and isinstance(runner, PrismRunner):
        environment = "LOOPBACK"
    return isinstance(runner, PortableRunner) and environment == "LOOPBACK"


def is_awaited(options: PipelineOptions) -> bool:
    """Whether the job has ended when Beam's `Pipeline` has."""
    values = options.get_all_options()
    return not any(values.get(name) for name in _NOT_AWAITED)
