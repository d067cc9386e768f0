"""The SavedModel with its signatures, and the other formats it can be written in."""
