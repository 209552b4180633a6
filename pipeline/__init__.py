"""Turns a raw interaction log into a dataset by a Beam job: vocabularies, shards, manifest."""

import os

# TensorFlow Recommenders needs Keras 2. Workers import this package too, before TensorFlow resolves Keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# The same as in pyproject.toml; a checkout may not be installed, so the package's metadata cannot be asked.
__version__ = "0.1.0"
