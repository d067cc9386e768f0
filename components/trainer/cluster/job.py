"""The Beam job of a training: it brings hands to where the work is."""

from collections.abc import Iterator, Sequence

import apache_beam as beam

from components.beam_options import is_awaited, runner_and_options
from components.errors import SettingsError
from components.example_gen.files import is_remote
from components.identity import check_identity, code_identity
from components.trainer.cluster import hand

_TRAINER = "components.trainer.trainer"


class LendAHand(beam.DoFn):
    """Works on a training until that is done."""

    def __init__(self, address: str, patience: float) -> None:
        """For the training at the address of its work directory."""
        self._address, self._patience = address, patience
        self._identity = code_identity(_TRAINER)

    def setup(self) -> None:
        """Refuse to compute with other code than the launcher's."""
        check_identity(_TRAINER, self._identity)

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

    def run(self, hands: int, patience: float = hand.PATIENCE) -> None:
        """Until all hands have come back.

        Args:
            hands: As many as a round has work for. How many of them work at a time, the runner and
                its options say; to those that come later nothing is left.
            patience: See `hand.work_at`.
        """
        with beam.Pipeline(runner=self._runner, options=self._options) as pipeline:
            (
                pipeline
                | "CallHands" >> beam.Create(range(hands))
                | "SpreadHands" >> beam.Reshuffle()
                | "TrainShards" >> beam.ParDo(LendAHand(self._address, patience))
            )
