"""Trains Surprise SVD or myFM on rows that `benchmarks/quality.py` has split, in an environment of their own.

Usage: python factorisation.py ROWS.json. The file names CSV files `train`, `eval` and `test` with the columns user,
item, value and positive, the lowest and the highest value, a seed and the peer. Prints a JSON object, measured on the
test rows: AUC, RMSE of the values, and log loss where the peer gives a probability.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

# myFM imports pkg_resources, which complains of itself.
warnings.filterwarnings("ignore")

COLUMNS = ("user", "item", "value", "positive")
# What the tuning of SVD tries, as its users do: factors, epochs, regularisation.
SVD_GRID = [(factors, epochs, reg) for factors in (20, 50) for epochs in (20, 50) for reg in (0.02, 0.05, 0.08, 0.12)]
# Gibbs sampling: samples in all, and those dropped at the start. Of a long log fewer, since each sweeps over all rows.
SAMPLES, DROPPED = 300, 50
LONG_LOG, SAMPLES_OF_A_LONG_LOG = 500_000, 150
RANKS = {"regression": 10, "probit": 20}


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score))


def rmse(score: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(np.mean((score - rows["value"]) ** 2)))


def svd(train: dict, evaluation: dict, test: dict, scale: tuple[float, float], seed: int) -> dict:
    """Takes the best of a grid by AUC on the eval rows, and fits it again on train and eval rows."""
    import pandas
    from surprise import SVD, Dataset, Reader

    def fitted(options: tuple, *parts: dict) -> SVD:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        frame = pandas.DataFrame({name: joined[name] for name in ("user", "item", "value")})
        rows = Dataset.load_from_df(frame, Reader(rating_scale=scale)).build_full_trainset()
        factors, epochs, reg = options
        return SVD(n_factors=factors, n_epochs=epochs, reg_all=reg, random_state=seed).fit(rows)

    def predicted(model: SVD, rows: dict) -> np.ndarray:
        return np.array(
            [model.predict(u, i, clip=False).est for u, i in zip(rows["user"], rows["item"], strict=True)], float
        )

    best = max(SVD_GRID, key=lambda options: auc(predicted(fitted(options, train), evaluation), evaluation["positive"]))
    score = predicted(fitted(best, train, evaluation), test)
    return {"auc": auc(score, test["positive"]), "rmse": rmse(score, test), "options": best}


def design(parts: list[dict], rows: dict) -> tuple:
    """Encodes users and items one-hot, `[rows, users + items]`; an unknown id is a row of zeros."""
    from scipy.sparse import coo_matrix

    columns, indices, used = 0, [], []
    sizes = []
    for name in ("user", "item"):
        known = np.unique(np.concatenate([part[name] for part in parts]))
        position = np.minimum(np.searchsorted(known, rows[name]), len(known) - 1)
        hit = known[position] == rows[name]
        used.append(np.flatnonzero(hit))
        indices.append(columns + position[hit])
        columns += len(known)
        sizes.append(len(known))
    row, column = np.concatenate(used), np.concatenate(indices)
    return coo_matrix((np.ones(len(row)), (row, column)), shape=(len(rows["user"]), columns)).tocsr(), sizes


def myfm(kind: str, train: dict, evaluation: dict, test: dict, seed: int) -> dict:
    """Trains on train and eval rows, with `group_shapes`: users and items have variances of their own."""
    from myfm import MyFMClassifier, MyFMRegressor
    from sklearn.metrics import log_loss

    parts = [train, evaluation]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    x, sizes = design(parts, joined)
    x_test, _ = design(parts, test)
    samples = SAMPLES_OF_A_LONG_LOG if len(joined["user"]) > LONG_LOG else SAMPLES
    how = {"n_iter": samples, "n_kept_samples": samples - DROPPED, "group_shapes": sizes}
    if kind == "regression":
        model = MyFMRegressor(rank=RANKS[kind], random_seed=seed).fit(x, joined["value"], **how)
        score = model.predict(x_test)
        return {"auc": auc(score, test["positive"]), "rmse": rmse(score, test)}
    model = MyFMClassifier(rank=RANKS[kind], random_seed=seed).fit(x, joined["positive"].astype(float), **how)
    score = np.clip(model.predict_proba(x_test), 1e-6, 1 - 1e-6)
    return {"auc": auc(score, test["positive"]), "log_loss": float(log_loss(test["positive"], score))}


def main(path: str) -> None:
    import pandas

    with open(path) as file:
        task = json.load(file)
    frames = {name: pandas.read_csv(task[name]) for name in ("train", "eval", "test")}
    train, evaluation, test = ({c: frame[c].to_numpy() for c in COLUMNS} for frame in frames.values())
    scale = (task["low"], task["high"])
    if task["peer"] == "Surprise SVD, tuned":
        found = svd(train, evaluation, test, scale, task["seed"])
    else:
        found = myfm(task["peer"].split()[-1], train, evaluation, test, task["seed"])
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
