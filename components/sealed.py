"""JSON objects that say by a digest of their own whether they are whole."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SEAL = "digest"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the digest of all else in it, in place of one that it had.

    >>> seal({"version": 1})
    {'version': 1, 'digest': '7ebe2c6cdaefe7d5'}
    """
    rest = {key: value for key, value in content.items() if key != _SEAL}
    text = json.dumps(json.loads(json.dumps(rest)), sort_keys=True)  # As a reader will have it.
    return rest | {_SEAL: hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}


def unseal(content: Any) -> Any:
    """The object without its digest. One without any is taken as it is, as is what is no object.

    Raises:
        ValueError: The digest is that of another content.

    >>> unseal({'version': 1, 'digest': '7ebe2c6cdaefe7d5'})
    {'version': 1}
    >>> unseal({'version': 2, 'digest': '7ebe2c6cdaefe7d5'})
    Traceback (most recent call last):
    ...
    ValueError: its content is not what was written
    """
    if not isinstance(content, dict) or _SEAL not in content:
        return content
    if seal(content) != content:
        raise ValueError("its content is not what was written")
    return {key: value for key, value in content.items() if key != _SEAL}
