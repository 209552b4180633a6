"""The Beam job: raw interaction log -> vocabularies, shards, manifest."""

import os

# TensorFlow Recommenders needs Keras 2. Workers import this package too, before TensorFlow resolves Keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# As in pyproject.toml. Not asked of the installation, which a checkout may not have.
__version__ = "0.1.0"
