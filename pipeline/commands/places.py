"""What users mean by an address: where versions are served from, and which model is asked."""

from pathlib import Path

from components.artifacts import VOCABULARY, Model
from components.errors import SkipstreamError
from components.places.place import open_place
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from pipeline import cache
from pipeline.baseline import local_copy
from pipeline.store import SERVING, Store


def destination_of(address: str) -> Destination:
    """Where versions are served from.

    Args:
        address: That place itself, or an output: then where it was last pushed to. A directory,
            gs://bucket/path or s3://bucket/path.

    Raises:
        SkipstreamError: It is neither.
    """
    if "://" not in address and not Path(address).expanduser().is_dir():
        raise SkipstreamError(
            f"the versions must be in a directory, gs:// or s3://, got {address}, which is no "
            "directory"
        )
    store = Store.open(address, "a place of versions")
    if not store.exists:
        return open_destination(address)
    destinations = store.ledger.destinations
    return open_destination(store.at(destinations[-1] if destinations else SERVING))


def local(model: str) -> Path:
    """A local directory with the model that a user names.

    Args:
        model: A SavedModel, a trainer artifact, the place that versions are served from, or an
            output: then the newest version is meant. Local or in a bucket.

    Raises:
        SkipstreamError: In a bucket, there is none.
    """
    if "://" not in model:
        path = Path(model).expanduser()
        if not path.is_dir() or not Store.open(path).exists:
            return path  # Whoever loads it says what it must be.
        destination = destination_of(model)
        if "://" not in destination.address:
            return Path(destination.address)
        return _newest(destination)
    place = open_place(model, "MODEL")
    if place.has("saved_model.pb"):
        copy = cache.directory_for(place.address, "model")
        return place.local("", copy, last="saved_model.pb")
    output, _, fingerprint = place.address.rpartition(f"/{Model.STAGE}/")
    if output and (trained := Store.open(output).find(Model, fingerprint)):
        has_ngrams = trained.settings.max_ngram
        ngrams = ["buckets.npy", "bucket_ids.npy"] if has_ngrams else []
        return trained.fetched("vectors.npy", VOCABULARY, *ngrams)
    return _newest(destination_of(model))


def _newest(destination: Destination) -> Path:
    newest = pusher.read(destination).newest
    if newest is None:
        raise SkipstreamError(
            "MODEL must be a SavedModel (with saved_model.pb), a place that versions are served "
            "from, or the output of a run that pushed one, got "
            f"{destination.address}, which has no version"
        )
    return local_copy(destination, newest)
