"""Where artifacts lie, on a disk or in a bucket, and what each was made of.

`<stage>/<fingerprint>/` is an artifact, whole as soon as its manifest.json is there. A fingerprint
is the digest of all that the content depends on, and the manifest spells that out: what is in the
store can be found, traced and tidied up without any other record. `store.json` adds what no
artifact can know: which ones the last run used, and where models were pushed to.

On a disk, artifacts are made where they lie. For a bucket they are made in the cache directory,
then published: files first, the manifest last, which only one run can create. They are fetched file
by file when a stage reads them, and compared with the digests in the manifest.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from components.artifacts import (
    MANIFEST,
    Artifact,
    Corpus,
    Evaluation,
    Examples,
    ExportedModel,
    InfraBlessing,
    Model,
    PushedModel,
    Statistics,
    listed_files,
)
from components.errors import SettingsError, SkipstreamError
from components.identity import code_identity
from components.names import encodable, is_word
from components.places.place import Hold, Place, open_place
from components.sealed import seal, unseal
from components.settings import StageSettings
from pipeline import cache
from pipeline.remote import Making, Published

if TYPE_CHECKING:
    from components.places.bucket import Bucket

A = TypeVar("A", bound=Artifact)

KINDS: tuple[type[Artifact], ...] = (
    Corpus,
    Examples,
    Statistics,
    Model,
    ExportedModel,
    Evaluation,
    InfraBlessing,
    PushedModel,
)
SERVING = "serving"  # Where versions go unless the settings say otherwise.
_LEDGER = "store.json"
_WORK = "work"  # Where Beam jobs with workers elsewhere write.


@dataclass(frozen=True)
class Step(Generic[A]):
    """A stage with all that its result depends on.

    Attributes:
        kind: The artifact that it makes.
        module: Its `build` makes it. A name, since importing it may take seconds.
        inputs: Artifacts that it reads, by the names of its parameters; None: there is none.
        settings: Its settings, if it has any.
        content: What else the result depends on, as JSON: digests of files, say.
        given: Arguments that leave the result as it is, or that `content` stands for.
    """

    kind: type[A]
    module: str
    inputs: Mapping[str, Artifact | None] = field(default_factory=dict)
    settings: StageSettings | None = None
    content: Any = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the result depends on, as the manifest has it."""
        return {
            "inputs": {
                name: {"stage": artifact.STAGE, "fingerprint": artifact.fingerprint}
                for name, artifact in self.inputs.items()
                if artifact
            },
            "settings": self.settings.counting() if self.settings else None,
            "content": self.content,
            **code_identity(self.module),
        }

    @cached_property
    def fingerprint(self) -> str:
        """The digest of that."""
        key = json.dumps([self.kind.STAGE, self.made_of], sort_keys=True)
        return hashlib.sha256(key.encode()).hexdigest()[:16]


class Use(BaseModel):
    """What the last run that came to a stage used there.

    Attributes:
        fingerprint: Of the artifact.
        run: The run's id.
        seconds: That the stage took.
        reused: Whether the artifact was finished before the run.
        took: Seconds that making the artifact took, in whichever run; None: nobody knows.
        peak_memory_bytes: Most that the process, or one that it started, had held by then.
        error: Why the stage failed; None: it did not.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    run: str
    seconds: float
    reused: bool
    took: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None


class Ledger(BaseModel):
    """The content of store.json.

    Attributes:
        format: Of the whole output; another number is another layout.
        uses: By stage.
        destinations: All that models were ever pushed to, the last one last.
        last_finished: When a run or a push last ended well, in ISO 8601; None: never.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    uses: dict[str, Use] = {}
    destinations: list[str] = []
    last_finished: str | None = None


class Store:
    """The artifacts of one output.

    Attributes:
        place: Where it is.
        address: The same as an absolute path or a URL.
        ledger: What the runs before left.
    """

    def __init__(self, place: Place) -> None:
        """Nothing is read or written yet."""
        self.place = place
        self.address = place.address
        self._bucket = None if place.has_locks else cast("Bucket", place)
        self._hold: Hold | None = None
        self._ledger_version: Any = None

    @classmethod
    def open(cls, output: str | Path, setting: str = "--output") -> "Store":
        """The store at a directory, gs://bucket/path or s3://bucket/path.

        Args:
            output: Where it is.
            setting: What named it, for messages.

        Raises:
            SettingsError: It is a URL of another kind, or its name is not UTF-8, which TensorFlow
                cannot write to.
        """
        place = open_place(output, setting)
        if encodable(place.address) != place.address:
            raise SettingsError(
                f"{setting} must have a name in UTF-8, got {place.address}: name another directory"
            )
        return cls(place)

    @property
    def is_remote(self) -> bool:
        """Whether it is in a bucket."""
        return "://" in self.address

    def at(self, place: str) -> str:
        """A destination in the ledger, which may lie below the output, as a path or URL."""
        return place if "://" in place or place.startswith("/") else self.place.at(place)

    def hold(self, run: str) -> AbstractContextManager[Hold]:
        """Keep all other runs out.

        Raises:
            SkipstreamError: Another run holds it, or it cannot be written.
        """
        return _Held(self, run)

    def check(self) -> None:
        """See to it that no other run may have taken the store over.

        Raises:
            SkipstreamError: One may have.
        """
        if self._hold:
            self._hold.check()

    # --- What is there.

    @cached_property
    def ledger(self) -> Ledger:
        """What the runs before left.

        Raises:
            SkipstreamError: It is damaged, or of another release.
        """
        return self._read_ledger() or Ledger()

    @property
    def exists(self) -> bool:
        """Whether a run has ever begun there."""
        return self._read_ledger() is not None

    def _read_ledger(self) -> Ledger | None:
        if self._bucket:
            content, self._ledger_version = self._bucket.read_version(_LEDGER)
        else:
            content = self.place.read(_LEDGER)
        if content is None:
            if "run.json" in self.place.names():
                raise SkipstreamError(
                    f"{self.address} is the output of an earlier release, whose artifacts do not "
                    "say what they were made of: give another --output; its versions can be read "
                    f"at {self.place.at(SERVING)}, and go on there as pusher.destination"
                )
            return None
        try:
            return Ledger.model_validate(unseal(json.loads(content)))
        except (ValueError, RecursionError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise SkipstreamError(
                f"{self.place.at(_LEDGER)} must be what this release writes, and is damaged or of "
                f"another release ({reason}): restore it, or give another --output"
            ) from error

    def save_ledger(self) -> None:
        """Write it.

        Raises:
            SkipstreamError: It cannot be written, or another run has written it meanwhile.
        """
        written = json.dumps(seal(self.ledger.model_dump(mode="json")), indent=2)
        content = f"{written}\n".encode()
        if not self._bucket:
            self.place.write(_LEDGER, content)
            return
        self._ledger_version = self._bucket.replace(_LEDGER, content, self._ledger_version)
        if self._ledger_version is None:
            raise SkipstreamError(
                f"another run has taken {self.address} over, and this one ends: run again"
            )

    def find(self, kind: type[A], fingerprint: str) -> A | None:
        """The finished artifact with that fingerprint; None: there is none.

        Raises:
            SkipstreamError: Its manifest is damaged.
        """
        if not is_word(fingerprint):
            return None  # Records name it, which others may have written.
        name = f"{kind.STAGE}/{fingerprint}"
        if not self._bucket:
            return kind.load(Path(self.place.at(name)))
        content = self.place.read(f"{name}/{MANIFEST}")
        return None if content is None else self._published(self._bucket, kind, name, content)

    def last(self, kind: type[A]) -> A | None:
        """What the last run used that came to the stage; None if that finished none."""
        use = self.ledger.uses.get(kind.STAGE)
        return self.find(kind, use.fingerprint) if use else None

    def ancestors(self, artifacts: Iterable[Artifact]) -> dict[str, str]:
        """The artifacts and all that they were made of: the nearest of each stage.

        What the model before it was made of, from which a training started, is no part of it.

        Returns:
            Fingerprints by stage.
        """
        found: dict[str, str] = {}
        nearest = {artifact.STAGE: artifact for artifact in artifacts}
        kinds = {kind.STAGE: kind for kind in KINDS}
        while nearest:
            found |= {stage: artifact.fingerprint for stage, artifact in nearest.items()}
            further: dict[str, Artifact] = {}
            for artifact in nearest.values():
                for made_of in artifact.manifest["made_of"].get("inputs", {}).values():
                    stage, fingerprint = made_of["stage"], made_of["fingerprint"]
                    if stage not in found and stage not in further:
                        if source := self.find(kinds[stage], fingerprint):
                            further[stage] = source
                        else:
                            found[stage] = fingerprint
            nearest = further
        return found

    # --- Making artifacts.

    def begin(self, step: Step[A], run: str, *, resumable: bool = False, again: bool = False) -> A:
        """An artifact in the making.

        Its directory is empty, or, for a stage that can go on, holds what is left of it, here or in
        the bucket.

        Args:
            step: The stage.
            run: The run's id, for the manifest.
            resumable: Whether the stage can go on.
            again: Whether one that is finished goes first.
        """
        name, made_of = f"{step.kind.STAGE}/{step.fingerprint}", step.made_of | {"run": run}
        if again:
            self.remove(name)
        if self._bucket:
            path = self._copy_of("work", step.kind, step.fingerprint)
            remote = Making(self._bucket, name, path, self._hold)
        else:
            path, remote = Path(self.place.at(name)), None
        if path.exists() and (again or not resumable):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        if remote and resumable:
            remote.restore()
        return step.kind(path, step.fingerprint, made_of, remote)

    def abandon(self, artifact: Artifact) -> None:
        """Let nothing more be written of one that will not be finished by this run."""
        if isinstance(artifact.remote, Making):
            artifact.remote.stop()

    def unpublished(self, step: Step[A]) -> A | None:
        """What a run made for the bucket and could not publish any more; None: nothing."""
        if not self._bucket:
            return None
        path = self._copy_of("work", step.kind, step.fingerprint)
        found = step.kind.load(path)
        name = f"{step.kind.STAGE}/{step.fingerprint}"
        return found and replace(found, remote=Making(self._bucket, name, path, self._hold))

    def publish(self, artifact: A) -> A:
        """Make a finished artifact one of the store; on a disk it is already.

        Raises:
            SkipstreamError: The bucket cannot be written, or another run has taken it over.
        """
        if not self._bucket or not isinstance(artifact.remote, Making):
            return artifact
        content, is_ours = artifact.remote.publish()
        name, kind = f"{artifact.STAGE}/{artifact.fingerprint}", type(artifact)
        path = self._copy_of("", kind, artifact.fingerprint)
        shutil.rmtree(path, ignore_errors=True)
        if is_ours:  # Its files are what would be fetched.
            (artifact.path / MANIFEST).write_bytes(content)
            artifact.path.rename(path)
        else:
            shutil.rmtree(artifact.path)
        return self._published(self._bucket, kind, name, content)

    def _published(self, bucket: "Bucket", kind: type[A], name: str, content: bytes) -> A:
        fingerprint = name.rpartition("/")[2]
        try:
            manifest = json.loads(content)
            if kind.check(manifest, bucket.at(name)) != fingerprint:
                raise ValueError(f"the fingerprint {manifest['fingerprint']}")
            if "files" not in manifest:
                raise SkipstreamError(
                    f"a manifest in a bucket must list its files, and that of {bucket.at(name)}, "
                    "which an earlier release wrote to a disk, does not: give another --output"
                )
            files = listed_files(manifest, bucket.at(name))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise SkipstreamError(
                f"{bucket.at(name)}/{MANIFEST} is damaged ({error}): delete that directory and "
                "run again"
            ) from error
        path = self._copy_of("", kind, fingerprint)
        return kind(path, fingerprint, {}, Published(bucket, name, path, content, files))

    def _copy_of(self, prefix: str, kind: type[Artifact], fingerprint: str) -> Path:
        words = (prefix, kind.STAGE, fingerprint)
        return cache.directory_for(self.address, "-".join(filter(None, words)))

    # --- Tidying up.

    def unneeded(self, needed: Iterable[tuple[str, str]]) -> Iterator[tuple[str, int]]:
        """Names of artifacts, finished or not, that nothing needs, with their bytes.

        Args:
            needed: Stages and fingerprints of those that are, beside what the last run used.
        """
        kept = {(stage, use.fingerprint) for stage, use in self.ledger.uses.items()} | set(needed)
        if last := self.ledger.uses.get(Examples.STAGE):  # Its Beam job may go on elsewhere.
            kept.add((_WORK, last.fingerprint))
        for stage in (*(kind.STAGE for kind in KINDS), _WORK):
            sizes: Counter[str] = Counter()
            for name, found in self.place.files(stage).items():
                sizes[name.partition("/")[0]] += found.size
            for fingerprint in sorted(sizes):
                if (stage, fingerprint) not in kept:
                    yield f"{stage}/{fingerprint}", sizes[fingerprint]

    def remove(self, name: str) -> None:
        """Remove an artifact, so that no part of it is ever taken for whole."""
        self.check()
        self.place.remove(name, first=MANIFEST)


class _Held(AbstractContextManager[Hold]):
    """`Place.hold` that the store knows of."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._manager = store.place.hold(run)

    def __enter__(self) -> Hold:
        self._store._hold = hold = self._manager.__enter__()
        self._store.__dict__.pop("ledger", None)  # Another run may have written it meanwhile.
        return hold

    def __exit__(self, *error: Any) -> None:
        self._store._hold = None
        self._manager.__exit__(*error)
