"""Transform: documents -> token ids, vocabulary, graph and statistics, in one Beam job."""

import os

# tensorflow-transform sets this, too, but after TensorFlow has loaded Keras 3, for a second.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
