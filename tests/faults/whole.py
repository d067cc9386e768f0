"""What lies in an output: whether all that is visible is whole, and the bits of all that counts."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from components.places.place import Place, digest_of
from pipeline.store import KINDS

STAGES = tuple(kind.STAGE for kind in KINDS)
# What the same nights have to give again, bit for bit. What is left out tells of times, or of
# numbers of versions, which a push that was killed may have claimed; TensorFlow writes graphs in no
# fixed order.
_COUNTING = (
    ".npy",
    ".tsv",
    ".tfrecord.gz",
    ".arrow",
    "/corpus.json",
    "/statistics.json",
    "/report.json",
    "/evaluation.json",
    "/variables.index",
    "/variables.data-00000-of-00001",
    "/assets/vocabulary.txt",
    "/counts.txt",
)


def half(place: Place) -> list[str]:
    """What is visible in a bucket and not whole: artifacts, and versions below `serving`."""
    found = []
    files = {
        name: about.size
        for directory in (*STAGES, "serving")
        for name, about in _below(place, directory).items()
    }
    for name in [name for name in files if name.endswith("/manifest.json")]:
        artifact = name.rpartition("/")[0]
        content = place.read(name)
        if content is None:  # It went meanwhile.
            continue
        for file, (size, digest) in json.loads(content).get("files", {}).items():
            if files.get(f"{artifact}/{file}") != size:
                found.append(f"{artifact}/{file}: {files.get(f'{artifact}/{file}')} bytes")
            elif _digest(place, f"{artifact}/{file}") != digest:
                found.append(f"{artifact}/{file}: another digest")
    for name in [name for name in files if name.endswith("/saved_model.pb")]:
        version = name.rpartition("/")[0]
        if version.count("/") == 1 and version.rpartition("/")[2].isdecimal():
            names = {file.removeprefix(f"{version}/") for file in files if file.startswith(version)}
            missing = {"variables/variables.index", "assets/vocabulary.txt"} - names
            found += [f"{version}/{file} is missing" for file in missing]
    return found


def bits(place: Place) -> dict[str, str]:
    """SHA-256 of all files that count in artifacts, token files and the newest version."""
    found = {}
    for directory in (*STAGES, "tokens"):
        found |= _bits_below(place, directory)
    served = bits_of(place, newest_version(place))
    return found | {f"serving/newest/{name}": digest for name, digest in served.items()}


def bits_of(place: Place, version: int) -> dict[str, str]:
    """The same of a version, by names in it."""
    start = f"serving/{version}"
    found = _bits_below(place, start)
    return {name.removeprefix(f"{start}/"): digest for name, digest in found.items()}


def _bits_below(place: Place, directory: str) -> dict[str, str]:
    names = [name for name in _below(place, directory) if name.endswith(_COUNTING)]
    return {
        name: hashlib.sha256(_counting(name, place.read(name) or b"")).hexdigest() for name in names
    }


def _counting(name: str, content: bytes) -> bytes:
    """A content without what it tells of times, places, and numbers of versions."""
    try:
        if name.endswith("/corpus.json"):
            listing = json.loads(content)
            for file in listing["files"]:
                del file["modified"]
                file["path"] = "/".join(Path(file["path"]).parts[-2:])
            return json.dumps(listing).encode()
        if name.endswith("/evaluation.json"):
            evaluation = json.loads(content)
            (evaluation["before"] or {}).pop("version", None)
            return json.dumps(evaluation).encode()
    except (ValueError, LookupError, TypeError, AttributeError):  # It is damaged.
        pass
    return content


def newest_version(place: Place) -> int:
    """What a TF Serving would load; 0: nothing."""
    numbers = [int(name) for name in place.names("serving") if name.isdecimal()]
    whole = [n for n in numbers if place.has(f"serving/{n}/saved_model.pb")]
    return max(whole, default=0)


def without_older_tokens(bits: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    """The bits, but for token files beside the expected ones: the next night removes them."""
    return {
        name: digest
        for name, digest in bits.items()
        if name in expected or not name.startswith("tokens/")
    }


def differences(one: dict[str, str], other: dict[str, str]) -> str:
    """The first files that are not the same, in words; empty: all are."""
    names = [name for name in sorted(one | other) if one.get(name) != other.get(name)]
    texts = []
    for name in names[:5]:
        kind = "missing" if name not in other else "new" if name not in one else "differs"
        texts.append(f"{name} {kind}")
    return ", ".join(texts) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def answers(place: Place) -> dict[str, str]:
    """SHA-256 of what each version of `serving` answers for each of its words."""
    script = Path(__file__).with_name("answers.py")
    with tempfile.TemporaryDirectory() as scratch:
        for name in place.names("serving"):
            if name.isdecimal():
                copy = Path(scratch, "copies", name)
                local = place.local(f"serving/{name}", copy, last="saved_model.pb")
                shutil.copytree(local, Path(scratch, "models", name))
        command = [sys.executable, script, Path(scratch, "models")]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = json.loads(text)
    return found


def _below(place: Place, directory: str) -> dict[str, Any]:
    return {f"{directory}/{name}": about for name, about in place.files(directory).items()}


def _digest(place: Place, name: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "file")
        path.write_bytes(place.read(name) or b"")
        return digest_of(path)
