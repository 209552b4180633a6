"""Tunes a peer on a tenth of the rows, and writes the lists of users; called by `benchmarks/retrieval.py`.

ALS and BPR are those of the package `implicit`. EASE is that of H. Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data" (2019).
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix

USERS_AT_A_TIME = 1000


class Ease:
    """Scores items by the items that a user has: x B, where B regresses each item on all others."""

    def __init__(self, regularization: float) -> None:
        self._regularization = regularization

    def fit(self, matrix: csr_matrix, show_progress: bool = False) -> None:
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        diagonal = np.diag_indices_from(gram)
        gram[diagonal] += self._regularization
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        weights[diagonal] = 0
        self._weights = weights.astype(np.float32)

    def recommend(self, users: np.ndarray, rows: csr_matrix, N: int, filter_already_liked_items: bool = True) -> Any:
        found = []
        for start in range(0, len(users), USERS_AT_A_TIME):
            some = rows[start : start + USERS_AT_A_TIME]
            scores = some @ self._weights
            scores[some.nonzero()] = -np.inf
            found.append(np.argsort(-scores, axis=1, kind="stable")[:, :N])
        return np.concatenate(found), None


def fitted(name: str, options: dict[str, Any], seed: int, matrix: csr_matrix) -> Any:
    if name == "EASE":
        model: Any = Ease(**options)
    else:
        of = {"ALS": AlternatingLeastSquares, "BPR": BayesianPersonalizedRanking}[name]
        model = of(random_state=seed, **options)
    model.fit(matrix, show_progress=False)
    return model


def best_of(name: str, grid: dict[str, list[Any]], seed: int, matrix: csr_matrix, k: int) -> dict[str, Any]:
    """Returns the settings with the best NDCG on a random tenth of the pairs."""
    pairs = matrix.tocoo()
    held_out = np.random.default_rng(0).random(pairs.nnz) < 0.1
    parts = [csr_matrix((pairs.data[of], (pairs.row[of], pairs.col[of])), matrix.shape) for of in (~held_out, held_out)]
    asked = np.flatnonzero(np.diff(parts[1].indptr))
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    scores = []
    for options in choices:
        model = fitted(name, options, seed, parts[0])
        found, _ = model.recommend(asked, parts[0][asked], N=k, filter_already_liked_items=True)
        scores.append(ndcg(found, parts[1][asked]))
        print(f"# {name} {options}: NDCG@{k} {scores[-1]:.4f} on a tenth of the train rows", file=sys.stderr)
    return choices[int(np.argmax(scores))]


def ndcg(lists: np.ndarray, relevant: csr_matrix) -> float:
    discount = 1 / np.log2(np.arange(lists.shape[1]) + 2)
    values = []
    for items, row in zip(lists, relevant, strict=True):
        hit = np.isin(items, row.indices)
        values.append((hit * discount).sum() / discount[: row.nnz].sum())
    return float(np.mean(values))


def main(task: dict[str, Any]) -> None:
    user, item = np.loadtxt(task["train"], delimiter=",", skiprows=1, dtype=np.int64, unpack=True)
    users, rows = np.unique(user, return_inverse=True)
    items, columns = np.unique(item, return_inverse=True)
    matrix = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(users), len(items)))
    # A pair that occurs twice counts once.
    matrix.data[:] = 1
    asked = np.searchsorted(users, np.load(task["users"]))
    best = best_of(task["model"], task["grid"], task["seeds"][0], matrix, task["k"])
    for seed, path in zip(task["seeds"], task["lists"], strict=True):
        model = fitted(task["model"], best, seed, matrix)
        found, _ = model.recommend(asked, matrix[asked], N=task["k"], filter_already_liked_items=True)
        np.save(path, items[found])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
