"""The TensorFlow program: shards -> dot-product-plus-bias model -> export."""

import os
import sys

if "keras" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError("Keras 3 is already imported, but TensorFlow Recommenders needs Keras 2: import `trainer` first.")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
# The operations of a step are so short that to share one among threads costs more than it brings: a third of the CPU
# time. Parts of the graph, such as the tables, and the reader still run side by side. TensorFlow reads this once.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
