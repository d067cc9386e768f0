"""What a command finds: text, an output in a directory or a bucket, a machine. And copies of it."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import obstore

from components.places import client
from components.places.place import open_place
from faults import answers, whole
from faults.forked import in_child


@dataclasses.dataclass(frozen=True)
class World:
    """A directory for all of it, but for what lies in a bucket.

    Attributes:
        root: The directory.
        output: A path or a URL, for the command line.
        bucket: Variables that lead to the bucket; empty: the output is a directory.
    """

    root: Path
    output: str
    bucket: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def empty(cls, root: Path, corpus: Path, url: str, bucket: Mapping[str, str]) -> "World":
        """With its own copy of the text. The output is `url`, or, if that is empty, in `root`."""
        shutil.rmtree(root, ignore_errors=True)
        for name in ("home", "work", "tmp", "cache"):
            (root / name).mkdir(parents=True)
        shutil.copytree(corpus, root / "corpus")
        return cls(root, url or str(root / "out"), bucket)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "TERM": "dumb",
            "TMPDIR": str(self.root / "tmp"),
            "SKIPSTREAM_CACHE": str(self.root / "cache"),
            **self.bucket,
        }

    def copy_from(self, other: "World") -> None:
        """Have the output of another one, and what it had in its cache."""
        shutil.rmtree(self.root / "cache")
        _copy(other.root / "cache", self.root / "cache")
        if not self.bucket:
            if Path(other.output).exists():
                _copy(Path(other.output), Path(self.output))
            return
        in_child(_copy_in_bucket, other.output, self.output, variables=self.bucket)
        old, new = (self.root / "cache" / _cached(url) for url in (other.output, self.output))
        if old.exists():
            old.rename(new)

    def files(self) -> list[str]:
        """What a fault may damage: files of the output, and, behind a colon, of the cache."""
        found = self.in_place(_files)
        cache = self.root / "cache"
        cached = [str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()]
        return sorted(found) + sorted(f":{name}" for name in cached)

    def read(self, name: str) -> bytes:
        """The content of one of them."""
        if name.startswith(":"):
            return (self.root / "cache" / name[1:]).read_bytes()
        return self.in_place(_read, name)

    def write(self, name: str, content: bytes) -> None:
        """Give it another content, in its place: links see that, too. The time stays."""
        if self.bucket and not name.startswith(":"):
            return self.in_place(_write, name, content)
        path = self.root / "cache" / name[1:] if name.startswith(":") else Path(self.output, name)
        status = path.stat()
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def remove(self, name: str) -> None:
        """Remove a file or a directory of the output, or, behind a colon, of the cache."""
        if self.bucket and not name.startswith(":"):
            return self.in_place(_remove, name)
        path = self.root / "cache" / name[1:] if name.startswith(":") else Path(self.output, name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def bits(self) -> dict[str, str]:
        """What a night has to leave; see `whole.bits`."""
        return self.in_place(_bits)

    def versions(self) -> dict[int, str]:
        """The bits of each version that is there, in a digest."""
        return self.in_place(_versions)

    def halves(self) -> list[str]:
        """What is visible and not whole."""
        return self.in_place(_halves)

    def answers(self) -> str:
        """What the newest version answers, in a digest."""
        return in_child(_answers, self.output, self.root, variables=self.variables)

    def in_place(self, function, *arguments):  # noqa: ANN001, ANN002, ANN201
        if self.bucket:
            return in_child(function, self.output, *arguments, variables=self.bucket)
        return function(self.output, *arguments)

    def text(self) -> dict[str, str]:
        """Digests of what the user gave."""
        root = self.root / "corpus"
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def _copy(source: Path, target: Path) -> None:
    """Files that have two names keep them: checkpoints are links."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def _cached(url: str) -> str:
    """The name that the cache has for a place."""
    return hashlib.blake2b(url.encode(), digest_size=8).hexdigest()


def _copy_in_bucket(source: str, target: str) -> None:
    store = client.connect(source.rpartition("/")[0])
    old, new = source.rpartition("/")[2], target.rpartition("/")[2]
    for batch in obstore.list(store, old):
        for file in batch:
            obstore.copy(store, file["path"], f"{new}/{file['path'].partition('/')[2]}")


def _files(output: str) -> list[str]:
    return list(open_place(output).files(""))


def _read(output: str, name: str) -> bytes:
    return open_place(output).read(name) or b""


def _write(output: str, name: str, content: bytes) -> None:
    open_place(output).write(name, content)


def _remove(output: str, name: str) -> None:
    place = open_place(output)
    if place.has(name):
        place.remove(name)
    else:
        place.remove(name, first="manifest.json")


def _bits(output: str) -> dict[str, str]:
    return whole.bits(open_place(output))


def _halves(output: str) -> list[str]:
    return whole.half(open_place(output))


def _versions(output: str) -> dict[int, str]:
    place = open_place(output)
    found = {}
    for name in place.names("serving"):
        if name.isdecimal() and place.has(f"serving/{name}/saved_model.pb"):
            bits = json.dumps(whole.bits_of(place, int(name)), sort_keys=True)
            found[int(name)] = hashlib.sha256(bits.encode()).hexdigest()
    return found


def _answers(output: str, root: Path) -> str:
    place = open_place(output)
    version = f"serving/{whole.newest_version(place)}"
    return answers.of(place.local(version, root / "tmp" / "asked", last="saved_model.pb"))
