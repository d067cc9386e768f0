"""What the corpus is made of, and what moved since the last one that was served."""
