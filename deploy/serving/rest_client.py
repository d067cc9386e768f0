"""TF Serving's REST API with nothing but Python.

    python rest_client.py http://localhost:8501 king queen

prints the nearest words of each. `ask` is the whole client.
"""

import json
import sys
import urllib.request
from typing import Any


def ask(address: str, signature: str, **inputs: Any) -> dict[str, Any]:
    """Call a signature of the newest version.

    Args:
        address: http://HOST:PORT of the server.
        signature: `serving_default`, `embed_text`, `nearest` or `analogy`.
        inputs: By name: a list of strings, or an integer for `k`.

    Returns:
        The outputs by name, as nested lists.

    Raises:
        urllib.error.HTTPError: The server refused the request; its body says why, as JSON.
    """
    request = urllib.request.Request(
        f"{address}/v1/models/skipstream:predict",
        data=body(signature, **inputs),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return outputs(response.read())


def body(signature: str, **inputs: Any) -> bytes:
    """The request in columns: `k` is one number for the whole request, which rows cannot say.

    >>> body("nearest", words=["king"], k=3)
    b'{"signature_name": "nearest", "inputs": {"words": ["king"], "k": 3}}'
    """
    return json.dumps({"signature_name": signature, "inputs": inputs}).encode()


def outputs(content: bytes) -> dict[str, Any]:
    """The outputs of a response in columns.

    >>> outputs(b'{"outputs": {"embedding": [[0.5, 1.0]], "in_vocabulary": [true]}}')
    {'embedding': [[0.5, 1.0]], 'in_vocabulary': [True]}
    """
    found: dict[str, Any] = json.loads(content)["outputs"]
    return found


if __name__ == "__main__":
    answer = ask(sys.argv[1], "nearest", words=sys.argv[2:], k=10)
    for word, neighbors, cosines in zip(
        sys.argv[2:], answer["neighbors"], answer["similarity"], strict=True
    ):
        for neighbor, cosine in zip(neighbors, cosines, strict=True):
            print(word, neighbor, f"{cosine:.4f}", sep="\t")
