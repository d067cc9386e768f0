"""An object store for Beam's file systems to find: bucket://a/b is the local file a/b."""

import hashlib
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem


class BucketFileSystem(LocalFileSystem):
    """A stand-in for gs:// and s3://."""

    @classmethod
    def scheme(cls) -> str:
        return "bucket"

    def match(self, patterns: list[str], limits: Any = None) -> Any:
        results = super().match([pattern.removeprefix("bucket:/") for pattern in patterns])
        for result in results:
            result.metadata_list = [
                FileMetadata(f"bucket:/{m.path}", m.size_in_bytes, m.last_updated_in_seconds)
                for m in result.metadata_list
            ]
        return results

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().open(path.removeprefix("bucket:/"), *arguments, **options)

    def checksum(self, path: str) -> str:
        return hashlib.md5(Path(path.removeprefix("bucket:/")).read_bytes()).hexdigest()
