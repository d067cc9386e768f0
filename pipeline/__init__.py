"""The whole, wired: which stages run, in which order, with which settings."""
