"""The Beam job: raw interaction log -> vocabularies, shards, manifest."""

import os

# TensorFlow Recommenders needs Keras 2. Workers import this package too, before TensorFlow resolves Keras.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
