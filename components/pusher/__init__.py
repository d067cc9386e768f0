"""Blessed models into the serving directory, as whole integer versions."""
