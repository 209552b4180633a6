"""Trains a model of `implicit` and writes the list of each user; called by `benchmarks/retrieval.py`."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix


def main(task: dict[str, Any]) -> None:
    user, item = np.loadtxt(task["train"], delimiter=",", skiprows=1, dtype=np.int64, unpack=True)
    users, rows = np.unique(user, return_inverse=True)
    items, columns = np.unique(item, return_inverse=True)
    matrix = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(users), len(items)))
    if task["model"] == "als":
        model = AlternatingLeastSquares(
            factors=task["factors"], regularization=task["regularization"], alpha=task["alpha"], random_state=42
        )
    else:
        model = BayesianPersonalizedRanking(
            factors=task["factors"],
            regularization=task["regularization"],
            iterations=task["iterations"],
            learning_rate=0.05,
            random_state=42,
        )
    model.fit(matrix, show_progress=False)
    asked = np.searchsorted(users, np.load(task["users"]))
    found, _ = model.recommend(asked, matrix[asked], N=task["k"], filter_already_liked_items=True)
    np.save(task["lists"], items[found])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
