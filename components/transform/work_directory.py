"""Where a job writes, until its results are fetched."""

from components.artifacts import Examples
from components.errors import NotAwaitedError, SettingsError, SkipstreamError
from components.example_gen.files import is_remote
from components.settings import TransformSettings
from components.transform import job
from components.transform.storage import exists, files_in

LAUNCHED = "launched"  # In the work directory of a job that nobody waited for.
GO_ON = "the same command without options of Beam goes on with what it wrote"


def choose(
    settings: TransformSettings, shared: str | None, out: Examples, *, elsewhere: bool
) -> tuple[str, bool]:
    """The directory, and whether a job was launched before that writes or has written there.

    Args:
        settings: They may name a directory for all jobs.
        shared: Another one, if they do not; none: there is none in a bucket.
        out: The artifact.
        elsewhere: Whether there are workers on other machines, or nobody waits for the job.

    Raises:
        SettingsError: TensorFlow or Beam cannot write there.
        SkipstreamError: The bucket cannot be read.
    """
    work, launched = str(out.path / "work"), False
    if place := settings.work_directory or shared:
        place = f"{place.rstrip('/')}/{out.fingerprint}"
        launched = _can_be_written(place) and exists(f"{place}/{LAUNCHED}")
        work = place if elsewhere or launched else work
    if set("*?[]") & set(work):
        is_copy = out.remote and work == str(out.path / "work")
        named = (
            "the cache directory may not"
            if is_copy
            else "neither the output nor transform.work_directory may"
        )
        remedy = "name another with SKIPSTREAM_CACHE" if is_copy else "name another"
        raise SettingsError(
            f"{named} hold any of * ? [ ], which TensorFlow and Beam take for patterns, got "
            f"{work}: {remedy}"
        )
    if not _can_be_written(work):
        raise SettingsError(
            "workers on other machines write where TensorFlow can, to a directory that all of "
            f"them see or to gs://, got {work}: set transform.work_directory to such a place"
        )
    return work, launched


def _can_be_written(work: str) -> bool:
    """Whether TensorFlow, which writes the graph, knows such a place."""
    return not is_remote(work) or work.startswith("gs://")


def check_launched(work: str, *, awaited: bool) -> None:
    """Refuse to go on with a job that was launched before, if it has not ended.

    Args:
        work: Where it writes.
        awaited: Whether this one would be waited for; else it was launched twice.

    Raises:
        SkipstreamError: It has not ended, or has failed.
        NotAwaitedError: It has ended, and nobody asked for what it wrote.
    """
    # Counts come after records, and the graph is renamed.
    written = (job.COUNTS, job.TOTALS, f"{job.GRAPH}/transform_fn/saved_model.pb")
    whole = all(exists(f"{work}/{name}") for name in written)
    if not whole or files_in(f"{work}/{job.GRAPH}/transform_tmp"):
        raise SkipstreamError(
            f"the job that was launched before must have written all of {work}, and has not: "
            "wait until it has ended, and if it failed, delete that directory"
        )
    if not awaited:
        raise NotAwaitedError(f"this job was launched before, and has ended: {GO_ON}")
