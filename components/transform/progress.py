"""How far the Beam job is, by the files that its workers have finished."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from tqdm import tqdm

from components.example_gen.files import is_remote
from components.transform.records import SPLITS
from components.transform.token_cache import SUFFIX

_SECONDS = 10.0

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def shown(units: int, cache: str, work: str) -> Iterator[None]:
    """Say every 10 seconds of the block how many units are tokenised, and how many written.

    Nothing is said where the files are not local. Units that an earlier run has tokenised leave no
    new file: only those of this job are counted.

    Args:
        units: Of the corpus.
        cache: Directory of tokenised units.
        work: Directory with those of the splits.
    """
    if is_remote(cache) or is_remote(work):
        yield
        return
    ended = threading.Event()
    arguments = ended, units, _tokenised(cache), cache, work
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(ended: threading.Event, units: int, before: set[str], cache: str, work: str) -> None:
    with (
        contextlib.suppress(OSError),  # Of what is gone, the job says more.
        # Of its own accord it shows nothing: before `delay` never, then when it is updated.
        tqdm(
            bar_format="{desc} [{elapsed}]",
            delay=_SECONDS / 2,
            miniters=0,
            mininterval=0,
            leave=False,
        ) as bar,
    ):
        while not ended.wait(_SECONDS):
            tokenised = len(_tokenised(cache) - before)
            records = [name for split in SPLITS for name in os.listdir(f"{work}/{split}")]
            written = len({name.partition("-")[0] for name in records})
            text = f"{tokenised:,} of {units:,} units newly tokenised, {written:,} written"
            bar.set_description_str(text, refresh=False)
            bar.update(0)
            counts = {"units": units, "tokenised": tokenised, "written": written}
            _logger.info(text, extra={"event": "transform_progress", **counts})


def _tokenised(directory: str) -> set[str]:
    return {name for name in os.listdir(directory) if name.endswith(SUFFIX)}
