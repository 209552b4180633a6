"""Lists items for all users with one library, from vectors and seen pairs in a directory; prints JSON.

    python recommend.py dotbias|numpy|implicit|faiss DIRECTORY K CORES

The directory has users.npy and items.npy, float32 `[users, dim]` and `[items, dim]` whose products are the scores, and
seen.npy, int64 `[2, pairs]` sorted by user.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

CORES = int(sys.argv[4])
# Before the libraries start their threads.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(CORES)

import numpy as np  # noqa: E402

BLOCK = 4096
BYTES_AT_A_TIME = 256 << 20


def dotbias(users: Any, items: Any, seen: Any, k: int) -> Any:
    from dotbias.recommending.blocks import Items

    # The library adds the user's bias, 0 here, and takes the item's from the last column.
    users, catalogue = np.append(users[:, :-1], np.zeros((len(users), 1), np.float32), axis=1), Items(items)
    found = []
    for start in range(0, len(users), BLOCK):
        begin, end = np.searchsorted(seen[0], [start, start + BLOCK])
        pairs = seen[0, begin:end] - start, seen[1, begin:end]
        found.append(catalogue.best(users[start : start + BLOCK], 0.0, pairs, k).items)
    return np.concatenate(found).reshape(-1, k)


def numpy(users: Any, items: Any, seen: Any, k: int) -> Any:
    rows = max(1, BYTES_AT_A_TIME // (4 * len(items)))
    found = []
    for start in range(0, len(users), rows):
        scores = users[start : start + rows] @ items.T
        begin, end = np.searchsorted(seen[0], [start, start + rows])
        scores[seen[0, begin:end] - start, seen[1, begin:end]] = -np.inf
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        found.append(np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1))
    return np.concatenate(found)


def implicit(users: Any, items: Any, seen: Any, k: int) -> Any:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(factors=users.shape[1], num_threads=CORES)
    model.user_factors, model.item_factors = users, items
    pairs = csr_matrix((np.ones(seen.shape[1], np.float32), tuple(seen)), (len(users), len(items)))
    return model.recommend(np.arange(len(users)), pairs, N=k, filter_already_liked_items=True)[0]


def faiss(users: Any, items: Any, seen: Any, k: int) -> Any:
    import faiss as library

    library.omp_set_num_threads(CORES)
    index = library.IndexFlatIP(items.shape[1])
    index.add(items)
    starts = np.searchsorted(seen[0], np.arange(len(users) + 1))
    found = np.empty((len(users), k), np.int64)
    # Faiss cannot filter by user, so it is asked for k items more than the user with most items has seen.
    wanted = k + int(np.diff(starts).max(initial=0))
    for start in range(0, len(users), BLOCK):
        for user, row in enumerate(index.search(users[start : start + BLOCK], wanted)[1], start=start):
            found[user] = row[~np.isin(row, seen[1, starts[user] : starts[user + 1]])][:k]
    return found


def main() -> None:
    library, directory, k = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    users, items, seen = (np.load(directory / f"{name}.npy") for name in ("users", "items", "seen"))
    begin = time.perf_counter()
    lists = {"dotbias": dotbias, "numpy": numpy, "implicit": implicit, "faiss": faiss}[library](users, items, seen, k)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "first": lists[:100].tolist()}))


if __name__ == "__main__":
    main()
