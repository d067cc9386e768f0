"""What became of every version: one record each, beside the versions.

A record is claimed before its version can be seen and confirmed when it was, so a push that died
in between is told from one that was served. Records stay when their versions go: a model that was
rolled back from has to be known for longer than its files.
"""

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components.errors import SkipstreamError
from components.sealed import seal, unseal


class Record(BaseModel):
    """How one version came to be.

    Attributes:
        version: Its number, which is never given twice.
        action: A push of a new candidate, or a rollback to an earlier version.
        claimed: When the number was taken.
        published: When the whole version could be seen; None: not yet, or never.
        run_id: The run that made the model.
        model: Fingerprint of the exported model, or `version N` for a copy of one without a record.
        held_out_loss: Nats a pair, by the run that made the model.
        previous: The newest version before.
        restores: Of a rollback: the version that this one is a copy of.
        forced: Whether it was pushed against the reasons below.
        reasons: Why it should not have been pushed, or why a person rolled back.
        artifacts: What the model was made of: fingerprints by stage.
        files: Digests of the version's files, by their names.
    """

    # Records are read by older and newer releases than the one that wrote them.
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int
    action: Literal["push", "rollback"]
    claimed: AwareDatetime
    published: AwareDatetime | None = None
    run_id: str | None = None
    model: str
    held_out_loss: float | None = None
    previous: int | None = None
    restores: int | None = None
    forced: bool = False
    reasons: tuple[str, ...] = ()
    artifacts: dict[str, str] = {}
    files: dict[str, str] = {}

    @classmethod
    def parse(cls, content: bytes, source: str) -> "Record":
        """The record that a file at `source` holds.

        Raises:
            SkipstreamError: It is damaged.
        """
        try:
            return cls.model_validate(unseal(json.loads(content)))
        except (ValueError, RecursionError) as error:  # Of JSON, of the digest, or of a field.
            raise SkipstreamError(
                f"{source} must be the record of a version, got {content[:40]!r}: restore it, or "
                "delete it, and the version counts as copied in by hand"
            ) from error

    def content(self) -> bytes:
        """What its file holds."""
        return (json.dumps(seal(self.model_dump(mode="json")), indent=2) + "\n").encode()


class History:
    """The versions that are there, and the records of all that ever were.

    Attributes:
        versions: Numbers of those that are there, oldest first.
        records: By number, of all that were ever seen.
        last: The highest number that was ever claimed; it is another one after every push.
    """

    def __init__(self, versions: Collection[int], records: Mapping[int, Record]) -> None:
        """Leave out what was never seen.

        Args:
            versions: Whole versions.
            records: Of these, of versions since removed, and of pushes under way or dead.
        """
        self.versions = sorted(versions)
        self.last = max([*versions, *records], default=0)
        self.records = {
            number: record
            for number, record in sorted(records.items())
            if record.published or number in versions
        }

    @property
    def newest(self) -> int | None:
        """The version that TF Serving serves."""
        return self.versions[-1] if self.versions else None

    def model(self, version: int) -> str:
        """What tells one model from another: its fingerprint, or, where unknown, its version."""
        record = self.records.get(version)
        return record.model if record else f"version {version}"

    def artifacts(self, version: int) -> dict[str, str]:
        """What a version was made of: fingerprints by stage; empty where unknown."""
        record = self.records.get(version)
        return record.artifacts if record else {}

    @cached_property
    def withdrawn(self) -> dict[str, Record]:
        """Models that were rolled back from and not served again since, with the rollback."""
        return self._withdrawn(self.model)

    @cached_property
    def withdrawn_trainings(self) -> dict[str, Record]:
        """The same of trained models, by their fingerprints, however they were exported."""
        return self._withdrawn(lambda version: self.artifacts(version).get("trainer", ""))

    @cached_property
    def trusted(self) -> list[int]:
        """Versions, there or gone, of models that were not rolled back from, newest first."""
        known = sorted({*self.versions, *self.records}, reverse=True)
        return [version for version in known if self.model(version) not in self.withdrawn]

    def _withdrawn(self, name: Callable[[int], str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for record in self.records.values():
            if record.action == "rollback" and record.restores and record.previous:
                left = range(record.restores + 1, record.previous + 1)
                found |= {named: record for version in left if (named := name(version))}
            found.pop(name(record.version), None)
        return found

    def before(self) -> int:
        """The version that a rollback means: the last one with another model that is trusted.

        Raises:
            SkipstreamError: There is none.
        """
        for version in reversed(self.versions[:-1]):
            model = self.model(version)
            if model != self.model(self.versions[-1]) and model not in self.withdrawn:
                return version
        raise SkipstreamError(
            "a rollback needs an earlier version with another model that was not rolled back from, "
            f"got versions {', '.join(map(str, self.versions)) or 'none'}: name one with --to"
        )


def now() -> datetime:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
