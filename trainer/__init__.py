"""The TensorFlow program: shards -> dot-product-plus-bias model -> export."""

import os
import sys

if "keras" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError("Keras 3 is already imported, but TensorFlow Recommenders needs Keras 2: import `trainer` first.")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
