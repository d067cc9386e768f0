"""Typed handles on directories: the only thing two stages share.

An artifact is a directory whose `manifest.json` is written last, so its presence says that
everything beside it is whole, and its content what the artifact was made of. A stage that was
interrupted leaves a directory without one. The manifest has the digests of all files, and each file
is compared with its own when a process first reads it: a disk may lose what it was given.

What lies in a bucket is fetched to a local directory file by file, when it is asked for:
`artifact / "vectors.npy"` is a local path either way.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from components.errors import SkipstreamError
from components.names import is_word
from components.places.directory import Directory
from components.places.place import digest_of, each, files_below
from components.sealed import seal, unseal
from components.settings import (
    ExporterSettings,
    StageSettings,
    TrainerSettings,
    TransformSettings,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from components.subwords import Buckets

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.tsv"  # Of examples and models.
# What a stage leaves on its way that can go on where it was interrupted: directories named by
# rising numbers. A STATE, written last, says that one is whole.
CHECKPOINTS = "checkpoints"
STATE = "state.json"


def write_atomically(path: Path, content: str) -> None:
    r"""Write `content` to `path` so that a reader sees all of it or the file that was there.

    Lone surrogates, as in names of files that are not UTF-8, are written as JSON's escapes: \udce9.
    """
    encoded = content.encode("utf-8", "backslashreplace")
    Directory(path.parent.absolute()).write(path.name, encoded)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def link(source: str | Path, target: str | Path) -> None:
    """Let a file that is never written to again be at `target`, too.

    Where the file system has no links, as those over buckets, that is a copy.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class Remote(Protocol):
    """What of an artifact in a bucket is not in its local directory.

    Attributes:
        address: URL of the artifact.
        manifest: Content of its manifest; empty as long as it is not finished.
    """

    address: str
    manifest: bytes

    def has(self, name: str) -> bool:
        """Whether it has such a file."""

    def fetch(self, name: str) -> None:
        """Bring a file, or all files of a directory, to the local one, if they are not there."""

    def keep(self, name: str) -> None:
        """Store a directory of an artifact that is not finished, for another machine to go on."""


@dataclass(frozen=True)
class Artifact:
    """A directory that one stage wrote and others read.

    Attributes:
        path: The directory; of an artifact in a bucket, where its files are fetched to.
        fingerprint: Hexadecimal digest of everything the content depends on.
        STAGE: Name of the stage that makes them, and of the directory that they lie in.
        made_of: That, for the manifest of an artifact that is being made; see `finish`.
        remote: Of an artifact in a bucket, the bucket's side; else None.
    """

    path: Path
    fingerprint: str
    made_of: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    remote: Remote | None = field(default=None, repr=False, compare=False)
    STAGE: ClassVar[str] = ""

    def __truediv__(self, name: str) -> Path:
        """A file or directory of a finished artifact, fetched where it has to be.

        Raises:
            SkipstreamError: It cannot be fetched, or is not what was written.
        """
        if self.remote:
            self.remote.fetch(name)
        elif (self.path / MANIFEST).exists():
            self._compare(name)
        return self.path / name

    def fetched(self, *names: str) -> Path:
        """The local directory of a finished artifact, with at least these files.

        Raises:
            SkipstreamError: One cannot be fetched, or is not what was written.
        """
        for name in names:
            _ = self / name
        return self.path

    def _compare(self, name: str) -> None:
        """Compare a file, or all of a directory, with what was written.

        Raises:
            SkipstreamError: One is not the same.
        """
        files = listed_files(self.manifest, self.address)
        chosen = [file for file in files if file == name or file.startswith(f"{name}/")]
        same = each(lambda file: is_whole(self.path / file, *files[file]), chosen)
        for file, is_same in zip(chosen, same, strict=True):
            if not is_same:
                raise SkipstreamError(
                    f"{self.address}/{file} is damaged: its content is not what was written: "
                    f"delete {self.address} and run again"
                )

    def has(self, name: str) -> bool:
        """Whether a finished artifact has such a file."""
        return self.remote.has(name) if self.remote else (self.path / name).is_file()

    def keep(self, name: str) -> None:
        """Let a run on another machine go on from a checkpoint of an artifact in the making.

        Args:
            name: Of a directory in CHECKPOINTS, with its STATE. It may go when this returns.
        """
        if self.remote:
            self.remote.keep(name)

    @property
    def address(self) -> str:
        """Where it lies: a path or a URL."""
        return self.remote.address if self.remote else str(self.path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The finished artifact at `path`, or None where there is none or only a part of one.

        Raises:
            SkipstreamError: Its manifest is damaged, or that of another kind.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise _damaged(path, error) from error
        return cls(path, cls.check(manifest, str(path)))

    @classmethod
    def check(cls, manifest: Any, address: str) -> str:
        """The fingerprint in a manifest.

        Raises:
            SkipstreamError: It is none of this kind, or of an earlier release.
        """
        try:
            kind, fingerprint = unseal(manifest)["kind"], manifest["fingerprint"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise _damaged(address, error) from error
        if kind != cls.__name__:
            raise SkipstreamError(
                f"{address} holds {kind}, expected {cls.__name__}: delete it and run again"
            )
        # It names the directory of a copy, and that is cleared.
        if not isinstance(fingerprint, str) or not is_word(fingerprint):
            raise _damaged(address, f"no fingerprint: {fingerprint}")
        if "made_of" not in manifest:
            raise SkipstreamError(
                f"{address} is an artifact of an earlier release, which does not say what it was "
                "made of: make it again with this one, in another output"
            )
        return fingerprint

    def finish(self, settings: StageSettings | None = None, **summary: Any) -> Self:
        """Write the manifest, which makes the artifact complete.

        It holds `kind` and `fingerprint`; `made_of`: `inputs` (stage and fingerprint of each),
        `settings` (those that count), `content` (digests of what else was read), `code` and
        `libraries`; `run` and `finished`, when and by which run; `summary`; `files`, the size and
        the digest of each by its name; and the `digest` of all this.

        Args:
            settings: Those of the stage that made it.
            summary: What the stage says of its own run, for run.json: counts, seconds, rates.
        """
        made_of = dict(self.made_of)
        run = {"run": made_of.pop("run")} if "run" in made_of else {}
        manifest = {
            "kind": type(self).__name__,
            "fingerprint": self.fingerprint,
            "made_of": made_of | {"settings": settings.counting() if settings else None},
            **run,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "summary": summary,
            "files": self._digests(),
        }
        write_json(self.path / MANIFEST, seal(manifest))
        return self

    def _digests(self) -> dict[str, tuple[int, str]]:
        names = own_files(self.path)
        digests = each(lambda name: digest_of(self.path / name), names)
        return {
            name: ((self.path / name).stat().st_size, digest)
            for name, digest in zip(names, digests, strict=True)
        }

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of manifest.json."""
        if self.remote and self.remote.manifest:
            manifest: dict[str, Any] = json.loads(self.remote.manifest)
        else:
            manifest = _read_json(self.path / MANIFEST)
        return manifest

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage said of its own run: counts, seconds, rates."""
        summary: dict[str, Any] = self.manifest["summary"]
        return summary

    @property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.manifest["made_of"]["settings"]
        return settings


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def own_files(directory: Path) -> list[str]:
    """Names of the files that an artifact consists of: no manifest, nothing on its way."""
    left_out = (MANIFEST, CHECKPOINTS)
    return [
        name
        for name in files_below(directory)
        if name.partition("/")[0] not in left_out and not name.rpartition("/")[2].startswith(".")
    ]


def listed_files(manifest: Any, address: str) -> dict[str, tuple[int, str]]:
    """Size and digest of each file that a manifest lists, by its name.

    Raises:
        SkipstreamError: The list is damaged.
    """
    try:
        listed = manifest.get("files", {}).items()  # An earlier release wrote none.
        return {name: (int(size), str(digest)) for name, (size, digest) in listed}
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(address, error) from error


_compared: set[tuple[str, int, int, str]] = set()  # By this process.


def is_whole(path: Path, size: int, digest: str) -> bool:
    """Whether a file is there and has that content. A process looks once, unless it is touched."""
    try:
        status = path.stat()
        key = str(path), status.st_ino, status.st_mtime_ns, digest
        if status.st_size != size or (key not in _compared and digest_of(path) != digest):
            return False
    except FileNotFoundError:
        return False
    _compared.add(key)
    return True


def _damaged(path: object, reason: object) -> SkipstreamError:
    return SkipstreamError(f"{path}/{MANIFEST} is damaged ({reason}): delete {path} and run again")


@dataclass(frozen=True)
class Corpus(Artifact):
    """Text files: `corpus.json` lists them with their sizes and says how they are read."""

    STAGE = "example_gen"

    LISTING: ClassVar[str] = "corpus.json"


@dataclass(frozen=True)
class Examples(Artifact):
    """Token ids and what they mean.

    train/ and eval/: gzip TFRecords of tf.train.Example with `ids`, an int64 list, one per
    document. transform_graph/: what tensorflow-transform saved. vocabulary.tsv: token, count, in
    the order of the ids. phrases.tsv: pairs of tokens that became one, if that was asked for.
    statistics.json: the corpus in numbers.
    """

    STAGE = "transform"

    @property
    def statistics(self) -> dict[str, Any]:
        """The content of statistics.json."""
        statistics: dict[str, Any] = _read_json(self / "statistics.json")
        return statistics

    @property
    def settings(self) -> TransformSettings:
        """What the text was tokenised with."""
        return TransformSettings.model_validate(self._settings)

    def records(self, split: str) -> list[str]:
        """TFRecord files of `split` ("train" or "eval"), in the order of the corpus.

        Raises:
            SkipstreamError: One is missing or has lost or gained bytes. (What is inside has CRCs.)
        """
        files: dict[str, int] = self.statistics["splits"][split]["files"]
        directory = self / split
        for name, size in files.items():
            path = directory / name
            found = path.stat().st_size if path.exists() else 0
            if found != size:
                raise SkipstreamError(
                    f"{self.address}/{split}/{name} must have {size} bytes, got {found}: "
                    f"delete {self.address} and run transform again"
                )
        return [str(directory / name) for name in files]


@dataclass(frozen=True)
class Statistics(Artifact):
    """The corpus in numbers, and beside an earlier one.

    report.json: everything, and whether the limits accept it. FeatureStats.pb: a serialised
    DatasetFeatureStatisticsList of tensorflow-metadata.
    """

    STAGE = "statistics_gen"

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json."""
        report: dict[str, Any] = _read_json(self / "report.json")
        return report


@dataclass(frozen=True)
class Model(Artifact):
    """Trained tables: vectors.npy and contexts.npy, float32 [types, dimensions], by token id.

    With subwords, a row of vectors.npy is the whole vector of a word, and there are the n-grams':
    buckets.npy, float32 [buckets, dimensions], and bucket_ids.npy, int32 [buckets], ascending.
    vocabulary.tsv: a copy of the examples', so that a later training needs nothing else.
    history.json: losses of each epoch. logs/: TensorBoard.
    """

    STAGE = "trainer"

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        import numpy as np

        return int(np.load(self / "vectors.npy", mmap_mode="r").shape[1])

    @property
    def settings(self) -> TrainerSettings:
        """What it was trained with; nothing in them is open."""
        return TrainerSettings.model_validate(self._settings)

    @property
    def buckets(self) -> "Buckets | None":
        """The vectors of n-grams, not yet in memory; None: it has none."""
        import numpy as np

        from components.subwords import Buckets, Subwords

        if not (subwords := Subwords.of(self.settings)):
            return None
        rows = np.load(self / "buckets.npy", mmap_mode="r")
        return Buckets(subwords, np.load(self / "bucket_ids.npy"), rows)

    def embeddings(
        self, settings: ExporterSettings, most: int | None = None
    ) -> "npt.NDArray[np.float32]":
        """What is served: float32 [types, dimensions], by token id; the first `most`, if given."""
        import numpy as np

        def load(name: str) -> "npt.NDArray[np.float32]":
            if most is None:
                whole: npt.NDArray[np.float32] = np.load(self / name)
                return whole
            return np.array(np.load(self / name, mmap_mode="r")[:most])

        vectors = load("vectors.npy")
        if settings.vectors == "average":
            vectors = (vectors + load("contexts.npy")) / np.float32(2)
        return vectors


@dataclass(frozen=True)
class ExportedModel(Artifact):
    """saved_model/: the SavedModel with its signatures, vocabulary and warm-up requests.

    rotation.npy: float32 [dimensions, dimensions] by which the trained vectors were turned onto the
    version before; it is not there if they were not.
    """

    STAGE = "exporter"

    @property
    def saved_model(self) -> Path:
        """The directory that TF Serving or tf.saved_model.load take."""
        return self / "saved_model"

    @property
    def settings(self) -> ExporterSettings:
        """Which vectors it serves, and how they are stored."""
        return ExporterSettings.model_validate(self._settings)


@dataclass(frozen=True)
class Evaluation(Artifact):
    """evaluation.json: scores with their coverage, and whether the gate blesses the model."""

    STAGE = "evaluator"

    @property
    def report(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        report: dict[str, Any] = _read_json(self / "evaluation.json")
        return report


@dataclass(frozen=True)
class InfraBlessing(Artifact):
    """validation.json: every signature answered in a fresh process, as the tables say."""

    STAGE = "infra_validator"


@dataclass(frozen=True)
class PushedModel(Artifact):
    """The record of a push. The model itself lies in the serving directory."""

    STAGE = "pusher"

    @property
    def version(self) -> int:
        """Its version: the directory below the serving directory."""
        return int(self.summary["version"])


@dataclass(frozen=True)
class VersionBefore:
    """A version that was served, and what it was made of: as much of it as is still there.

    Attributes:
        version: Its number.
        fingerprint: Of its exported model.
        find_saved_model: Gives its SavedModel, which may have to be fetched; None: it is gone.
        model: Its tables.
        examples: What they were trained on.
        missing: What is not there of these three, for a person.
    """

    version: int
    fingerprint: str
    find_saved_model: Callable[[], Path] | None
    model: Model | None
    examples: Examples | None
    missing: tuple[str, ...] = ()

    @cached_property
    def saved_model(self) -> Path | None:
        """The directory of its SavedModel."""
        return self.find_saved_model() if self.find_saved_model else None


def by_reason(statistics: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """What statistics.json says was skipped, dropped or repaired: by name, counts by reason.

    >>> by_reason({"documents": 2, "documents_dropped": {"empty": 1}})
    {'documents_dropped': {'empty': 1}}
    """
    endings = ("_skipped", "_dropped", "_repaired")
    return {name: reasons for name, reasons in statistics.items() if name.endswith(endings)}


def versions_in(serving: Path) -> dict[int, Path]:
    """What TF Serving takes for versions, by number, oldest first: names of decimal digits."""
    numbered = {
        int(path.name): path
        for path in serving.iterdir()
        if path.name.isascii() and path.name.isdecimal()
    }
    return dict(sorted(numbered.items()))
