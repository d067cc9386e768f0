"""Transform: documents -> token ids, vocabulary, graph and statistics, in one Beam job."""

from components.transform.transform import build

__all__ = ["build"]
