"""Outputs to begin from: copies of what the nights left in a bucket."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import obstore
from faults.nights import Checks, Corpus, Environment, arguments
from stores import Server

from components.places import client

COMMANDS = ("transform", "train", "evaluate", "validate", "push")


@dataclasses.dataclass
class Outputs:
    """A bucket with outputs at several stages of the second night.

    Attributes:
        server: The store.
        url: Of the bucket.
    """

    server: Server
    url: str
    made: int = 0

    @property
    def variables(self) -> Mapping[str, str]:
        """What leads to the store itself."""
        return self.server.environment(self.server.endpoint)

    def through(self, endpoint: str) -> Mapping[str, str]:
        """What leads to it by way of a proxy."""
        return self.server.environment(endpoint)

    def copy(self, source: str, name: str = "") -> str:
        """A copy of an output, within the bucket; its name."""
        self.made += 1
        name = name or f"copy-{self.made}"
        store = client.connect(self.url)
        for batch in obstore.list(store, source):
            for file in batch:
                obstore.copy(store, file["path"], f"{name}/{file['path'].partition('/')[2]}")
        return name

    def at(self, name: str) -> str:
        """URL of an output."""
        return f"{self.url}/{name}"


def first_night(checks: Checks, corpus: Corpus, server: Server) -> Outputs:
    """A bucket whose output `after-run` has the first night."""
    outputs = Outputs(server, server.bucket().url)
    with Environment(outputs.variables) as environment:
        ended = environment.run(*arguments(corpus.night(1), outputs.at("after-run")))
    checks(ended.code == 0, f"{outputs.url} has a first night", ended.error)
    return outputs


def scratch() -> Path:
    """An empty directory, which stays until the process ends."""
    return Path(tempfile.mkdtemp(dir=os.environ["SKIPSTREAM_CACHE"]))
