"""Trains a dot-product-plus-bias model on shards, and exports it, with TensorFlow."""

import os
import sys

if "keras" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError("Keras 3 is already imported, but TensorFlow Recommenders needs Keras 2: import `trainer` first.")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
# A process that has loaded the library of a TPU keeps the TPU to itself; only those of `trainer.tpu.process` need it.
os.environ.setdefault("TPU_LOAD_LIBRARY", "0")
# The operations of a step are so short that sharing one among threads costs a third of the CPU time and gains nothing.
# Parts of the graph, such as the tables, and the reader still run side by side. TensorFlow reads this once.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# TensorFlow's oneDNN keeps all memory that was ever in use for large tensors, unless it takes it from the system.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
