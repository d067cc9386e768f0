"""The bucket's side of an artifact: fetched when it is read, published when it is made."""

import json
import secrets
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from components.artifacts import (
    CHECKPOINTS,
    MANIFEST,
    STATE,
    is_whole,
    link,
    listed_files,
    own_files,
)
from components.errors import SkipstreamError
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.place import Hold, files_below, wait_for


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
        self.manifest = manifest
        self._bucket, self._name, self._path, self._files = bucket, name, path, files
        local = path / MANIFEST
        if not local.exists() or local.read_bytes() != manifest:
            shutil.rmtree(path, ignore_errors=True)  # Copies of one that was removed and made anew.
            Directory(path).write(MANIFEST, manifest)

    def has(self, name: str) -> bool:
        """Whether it has such a file."""
        return name in self._files

    def fetch(self, name: str) -> None:
        """Bring a file, or all files of a directory, to the local one, if they are not there.

        What is there and damaged is fetched again.
        """
        wanted = [file for file in self._files if file == name or file.startswith(f"{name}/")]
        missing = {
            file: self._files[file][1]
            for file in wanted
            if not is_whole(self._path / file, *self._files[file])
        }
        if missing:
            self._bucket.download(self._name, self._path, missing)

    def keep(self, name: str) -> None:
        """It is finished."""


class Making:
    """An artifact that is made in a local directory, for a bucket."""

    manifest = b""

    def __init__(self, bucket: Bucket, name: str, path: Path, hold: Hold | None) -> None:
        """Nothing is read or written yet.

        Args:
            bucket: The store's place.
            name: Of the artifact in it.
            path: The local directory.
            hold: That must not be lost while something is written; None: nobody else is there.
        """
        self.address = bucket.at(name)
        self._bucket, self._name, self._path, self._hold = bucket, name, path, hold
        self._uploaded = path.with_name(f"{path.name}.uploaded")  # A checkpoint on its way.
        self._upload: threading.Thread | None = None
        self._failures: list[BaseException] = []
        self._stopped = False

    def has(self, name: str) -> bool:
        """Whether it has such a file by now."""
        return (self._path / name).is_file()

    def fetch(self, name: str) -> None:
        """It is made here."""

    def check(self) -> None:
        """See to it that this run may write.

        Raises:
            SkipstreamError: Another one may have taken over, or this one has ended.
        """
        if self._stopped:
            raise SkipstreamError(f"{self.address} is no longer written: run again")
        if self._hold:
            self._hold.check()

    def keep(self, name: str) -> None:
        """Upload a checkpoint while the stage goes on; wait for the one before.

        Raises:
            SkipstreamError: That could not be written, or another run may have taken over.
        """
        self._wait()
        self.check()
        shutil.rmtree(self._uploaded, ignore_errors=True)
        # Links: the stage may delete its own.
        shutil.copytree(self._path / name, self._uploaded, copy_function=link)
        self._upload = threading.Thread(target=self._keep, args=[name], daemon=True)
        self._upload.start()

    def _keep(self, name: str) -> None:
        """In the bucket, a checkpoint is whole as soon as it has a manifest, with digests."""
        try:
            checkpoints = f"{self._name}/{CHECKPOINTS}"
            before = self._bucket.names(checkpoints)
            # Another run, which was taken for dead, may have come as far.
            new = f"{name.rpartition('/')[2]}-{secrets.token_hex(4)}"
            names = files_below(self._uploaded)
            files = self._bucket.upload(self._uploaded, f"{checkpoints}/{new}", names, self)
            self.check()
            self._bucket.write(
                f"{checkpoints}/{new}/{MANIFEST}", json.dumps({"files": files}).encode()
            )
            for old in before:
                self.check()
                self._bucket.remove(f"{checkpoints}/{old}", first=MANIFEST)
        except BaseException as error:
            self._failures.append(error)
        finally:
            shutil.rmtree(self._uploaded, ignore_errors=True)

    def _wait(self) -> None:
        if self._upload:
            wait_for(self._upload)
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Let nothing be written any more; wait for the file that is on its way."""
        self._stopped = True
        if self._upload:
            with suppress(TimeoutError):  # It goes with the process.
                wait_for(self._upload)

    def restore(self) -> None:
        """Fetch the newest whole checkpoint, if none here is as new."""
        shutil.rmtree(self._uploaded, ignore_errors=True)
        there = self._bucket.names(f"{self._name}/{CHECKPOINTS}")
        here = [int(state.parent.name) for state in self._path.glob(f"{CHECKPOINTS}/*/{STATE}")]
        for name in sorted(there, key=_number, reverse=True):
            if _number(name) <= max(here, default=0):
                return
            source = f"{self._name}/{CHECKPOINTS}/{name}"
            found = self._bucket.files(source)
            content = self._bucket.read(f"{source}/{MANIFEST}") if MANIFEST in found else None
            listed = json.loads(content)["files"] if content else {}
            files = {file: digest for file, (_, digest) in listed.items()}
            # A run that was taken for dead may write the manifest of files that are gone.
            if files and files.keys() <= found.keys():
                shutil.rmtree(self._path / CHECKPOINTS, ignore_errors=True)
                target = self._path / CHECKPOINTS / str(_number(name))
                state = {STATE: files.pop(STATE)}
                self._bucket.download(source, target, files)
                self._bucket.download(source, target, state)
                return

    def publish(self) -> tuple[bytes, bool]:
        """Upload all files, then create the manifest with their sizes and digests.

        Returns:
            The manifest, and whether it is this one; else a run was faster.
        """
        self._wait()
        manifest = f"{self._name}/{MANIFEST}"
        if published := self._bucket.read(manifest):  # What is finished is never written over.
            return published, False
        made = json.loads((self._path / MANIFEST).read_text(encoding="utf-8"))
        listed = listed_files(made, str(self._path))
        if self._bucket.upload(self._path, self._name, own_files(self._path), self) != listed:
            raise SkipstreamError(
                f"{self._path} is damaged: its files are not what was written: delete it and run "
                "again"
            )
        content = (json.dumps(made, indent=2) + "\n").encode()
        self.check()
        if not self._bucket.create(manifest, content):
            return self._bucket.read(manifest) or content, False
        there = self._bucket.files(self._name)
        for name in there.keys() - listed.keys() - {MANIFEST}:  # Checkpoints, most likely.
            self._bucket.remove(f"{self._name}/{name}")
        return content, True


def _number(name: str) -> int:
    """Of a checkpoint in a bucket, N-token; 0 of what is none."""
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0
