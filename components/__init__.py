"""The stages of skipstream: artifact in, artifact out, named by TFX's nouns."""
