"""The Beam job of a training: it brings hands to where the work is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import apache_beam as beam
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

from components.beam_options import is_awaited, runner_and_options
from components.errors import SettingsError
from components.example_gen.files import is_remote
from components.identity import check_identity, code_identity
from components.trainer.cluster import hand

_CODE = "components.trainer.cluster.job"  # With all of the trainer's that hands compute with.


class LendAHand(beam.DoFn):
    """Works on a training until that is done."""

    def __init__(self, address: str, patience: float) -> None:
        """For the training at the address of its work directory."""
        self._address, self._patience = address, patience
        self._identity = code_identity(_CODE)

    def setup(self) -> None:
        """Refuse to compute with other code than the launcher's."""
        check_identity(_CODE, self._identity)

    def process(self, number: int) -> Iterator[int]:
        """The number of the hand, once there is nothing left to do."""
        hand.work_at(self._address, number, self._patience)
        yield number


class Job:
    """Where and how it runs."""

    def __init__(self, flags: Sequence[str], address: str) -> None:
        """Let Beam read its options.

        Args:
            flags: As on a command line.
            address: The work directory.

        Raises:
            SettingsError: A training cannot run so.
        """
        self._runner, self._options = runner_and_options(flags)
        self._address = address
        self._result: PipelineResult | None = None
        if not is_awaited(self._options):
            raise SettingsError(
                "a training on a cluster must be waited for, got options by which the job runs on "
                "its own: leave them out, or set trainer.distributed=false"
            )
        if type(self._runner).__name__ == "DataflowRunner" and not is_remote(address):
            raise SettingsError(
                f"workers on Dataflow must write to a bucket, got {address}: set --output or "
                "transform.work_directory to one"
            )

    def start(self, hands: int, patience: float = hand.PATIENCE) -> Callable[[], object]:
        """Call hands. To be used in the main thread: some runners set signal handlers.

        Args:
            hands: As many as a round has work for. How many of them work at a time, the runner and
                its options say; to those that come later nothing is left.
            patience: See `hand.work_at`.

        Returns:
            Waits until all of them have come back, in any thread.
        """
        pipeline = beam.Pipeline(runner=self._runner, options=self._options)
        (
            pipeline
            | "CallHands" >> beam.Create(range(hands))
            | "SpreadHands" >> beam.Reshuffle()
            | "TrainShards" >> beam.ParDo(LendAHand(self._address, patience))
        )
        if isinstance(self._runner, FnApiRunner | SwitchingDirectRunner):  # They run in `run`.
            return lambda: pipeline.run().wait_until_finish()
        self._result = pipeline.run()
        wait: Callable[[], object] = self._result.wait_until_finish
        return wait

    def cancel(self) -> None:
        """End it, if it runs elsewhere. Its hands may have seen that they are not needed."""
        if self._result is not None:
            with suppress(Exception):  # It may have ended. Every runner has exceptions of its own.
                self._result.cancel()
