"""Evaluator: is the candidate good enough to serve? Without labels, and with them where given."""
