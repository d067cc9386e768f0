"""Documents whose words go together, so that a model has something to learn."""

import numpy as np

Documents = list[list[str]]


def natural(seed: int, count: int) -> Documents:
    """Documents about one of twelve topics, with words as rare as in a language."""
    draw = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        topic = draw.integers(12)
        words = np.minimum(draw.zipf(1.3, 12), 99)
        fillers = np.minimum(draw.zipf(1.5, 6), 30)
        tokens = [f"t{topic}w{word}" for word in words] + [f"f{word}" for word in fillers]
        documents.append([tokens[place] for place in draw.permutation(18)])
    return documents
