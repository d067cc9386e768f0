"""Evaluator: is the candidate good enough to serve? Without labels, and with them where given."""

from components.evaluator.evaluator import build

__all__ = ["build"]
