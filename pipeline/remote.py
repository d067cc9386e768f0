"""The bucket's side of an artifact: fetched when it is read, published when it is made."""

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from components.artifacts import CHECKPOINTS, MANIFEST, STATE, link, write_atomically
from components.places.bucket import Bucket, files_below
from components.places.place import Hold

_UPLOADED = ".uploaded"  # A checkpoint on its way.


class Published:
    """A finished artifact in a bucket, with a local directory for what of it was fetched."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        path: Path,
        manifest: bytes,
        files: Mapping[str, tuple[int, str]],
    ) -> None:
        """Write the manifest to the local directory; nothing else is fetched yet.

        Args:
            bucket: The store's place.
            name: Of the artifact in it.
            path: The local directory.
            manifest: Its content.
            files: Size and digest of each file, by its name.
        """
        self.address = bucket.at(name)
        self._bucket, self._name, self._path, self._files = bucket, name, path, files
        local = path / MANIFEST
        if not local.exists() or local.read_bytes() != manifest:
            shutil.rmtree(path, ignore_errors=True)  # Copies of one that was removed and made anew.
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(local, manifest.decode())

    def has(self, name: str) -> bool:
        """Whether it has such a file."""
        return name in self._files

    def fetch(self, name: str) -> None:
        """Bring a file, or all files of a directory, to the local one, if they are not there.

        A file of the right size is there: it appeared whole, and with the right digest.
        """
        wanted = [file for file in self._files if file == name or file.startswith(f"{name}/")]
        missing = {
            file: self._files[file][1]
            for file in wanted
            if not _has_size(self._path / file, self._files[file][0])
        }
        if missing:
            self._bucket.download(self._name, self._path, missing)

    def keep(self, name: str) -> None:
        """It is finished."""


class Making:
    """An artifact that is made in a local directory, for a bucket."""

    def __init__(self, bucket: Bucket, name: str, path: Path) -> None:
        """Nothing is read or written yet; arguments as for `Published`."""
        self.address = bucket.at(name)
        self._bucket, self._name, self._path = bucket, name, path
        self._uploads = ThreadPoolExecutor(1)
        self._upload: Future[None] | None = None

    def has(self, name: str) -> bool:
        """Whether it has such a file by now."""
        return (self._path / name).is_file()

    def fetch(self, name: str) -> None:
        """It is made here."""

    def keep(self, name: str) -> None:
        """Upload a checkpoint while the stage goes on; wait for the one before.

        Raises:
            SkipstreamError: That could not be written.
        """
        self._await()
        shutil.rmtree(self._path / _UPLOADED, ignore_errors=True)
        # Links: the stage may delete its own.
        shutil.copytree(self._path / name, self._path / _UPLOADED, copy_function=link)
        self._upload = self._uploads.submit(self._keep, name)

    def _keep(self, name: str) -> None:
        before = self._bucket.names(f"{self._name}/{CHECKPOINTS}")
        self._bucket.put(self._path / _UPLOADED, f"{self._name}/{name}", last=STATE)
        shutil.rmtree(self._path / _UPLOADED)
        for number in before:
            if f"{CHECKPOINTS}/{number}" != name:
                self._bucket.remove(f"{self._name}/{CHECKPOINTS}/{number}", first=STATE)

    def _await(self) -> None:
        if self._upload:
            self._upload.result()

    def restore(self) -> None:
        """Fetch the newest whole checkpoint, if none here is as new."""
        shutil.rmtree(self._path / _UPLOADED, ignore_errors=True)
        there = self._bucket.files(f"{self._name}/{CHECKPOINTS}")
        whole = [int(file.partition("/")[0]) for file in there if file.endswith(f"/{STATE}")]
        here = [int(state.parent.name) for state in self._path.glob(f"{CHECKPOINTS}/*/{STATE}")]
        newest = max(whole, default=0)
        if newest <= max(here, default=0):
            return
        target = self._path / CHECKPOINTS
        shutil.rmtree(target, ignore_errors=True)
        names = [file.partition("/")[2] for file in there if file.startswith(f"{newest}/")]
        source = f"{self._name}/{CHECKPOINTS}/{newest}"
        files = dict.fromkeys((file for file in names if file != STATE), "")
        self._bucket.download(source, target / str(newest), files)
        self._bucket.download(source, target / str(newest), {STATE: ""})

    def publish(self, hold: Hold | None) -> bytes:
        """Upload all files, then create the manifest with their sizes and digests.

        Args:
            hold: That must not be lost meanwhile.

        Returns:
            The manifest: this one, or that of a run that was faster.
        """
        self._await()
        manifest = f"{self._name}/{MANIFEST}"
        if published := self._bucket.read(manifest):  # What is finished is never written over.
            return published
        names = [path.relative_to(self._path).as_posix() for path in files_below(self._path)]
        files = self._bucket.upload(
            self._path, self._name, [name for name in names if name != MANIFEST], hold
        )
        made = json.loads((self._path / MANIFEST).read_text(encoding="utf-8"))
        content = (json.dumps(made | {"files": files}, indent=2) + "\n").encode()
        if not self._bucket.create(manifest, content):
            return self._bucket.read(manifest) or content
        there = self._bucket.files(self._name)
        for name in there.keys() - files.keys() - {MANIFEST}:  # Checkpoints, most likely.
            self._bucket.remove(f"{self._name}/{name}")
        return content


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
