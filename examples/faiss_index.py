"""Fills a Faiss index with the items of an export, and asks it for a user's list.

    pip install faiss-cpu
    python examples/faiss_index.py out/runs/sample/model/export userId=user_000844

The inner product of `user_vector` and `item_vector` is the logit, so the index orders items as `recommend` does. It
does not leave out what a user has seen: ask for more and filter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import tensorflow as tf


def main() -> None:
    export = sys.argv[1]
    model = tf.saved_model.load(export)
    user_vector, item_vector = (model.signatures[name] for name in ("user_vector", "item_vector"))
    # The items are named by the first feature of their side; its vocabulary is an asset of the export.
    features = json.loads(Path(export, "assets.extra", "manifest.json").read_text())["features"].values()
    vocabulary = next(feature["vocabulary_path"] for feature in features if feature["side"] == "item")
    lines = Path(export, vocabulary).read_bytes().split(b"\n")[:-1]
    spec = item_vector.structured_input_signature[1]["item"]
    tokens = np.array(lines).astype(np.int64) if spec.dtype == tf.int64 else np.array(lines)
    index = faiss.IndexFlatIP(int(item_vector.structured_outputs["vector"].shape[1]))
    for start in range(0, len(tokens), 100_000):
        index.add(item_vector(item=tf.constant(tokens[start : start + 100_000]))["vector"].numpy())

    user = dict(argument.split("=", 1) for argument in sys.argv[2:])
    specs = user_vector.structured_input_signature[1]
    asked = {name: tf.constant([int(t) if specs[name].dtype == tf.int64 else t]) for name, t in user.items()}
    scores, found = index.search(user_vector(**asked)["vector"].numpy(), 10)
    for score, position in zip(scores[0], found[0], strict=True):
        print(f"{lines[position].decode()}  {score:.4f}")


if __name__ == "__main__":
    main()
