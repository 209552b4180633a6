"""Draws interactions from a known dot-product-plus-bias model, so the best possible AUC is known too.

    python -m pipeline.sample --rows 1000000 --users 20000 --items 3000 --output interactions.csv.gz

The same options give the same bytes. Columns: userId, movieId, clicked (0 or 1), timestamp (seconds, ascending).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipeline.config import SampleConfig
from pipeline.manifest import Progress
from pipeline.sample.auc import StreamingAuc
from pipeline.sample.flags import add_model_flags, checked

Subset = Literal["train", "test"]

HEADER = "userId,movieId,clicked,timestamp"

# Each chunk has a random stream of its own, so the bytes of the file depend on this number.
_ROWS_PER_CHUNK = 1_000_000
# With this bias of the logit, somewhat less than a third of the rows are clicks.
_GLOBAL_BIAS = -1.0
# The standard deviation of biases, as a share of that of dot products.
_BIAS_SHARE = 0.5
# Timestamps cover one year from 2020-01-01, in seconds.
_FIRST_TIMESTAMP = 1_577_836_800
_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class WrittenSample:
    """Describes a written file; `ceiling_auc` is the AUC of the true probabilities on its rows, the best possible."""

    path: str
    rows: int
    positive_rows: int
    ceiling_auc: float


@dataclass(frozen=True)
class _Side:
    """Holds the true parameters of users or items; row r belongs to the id of popularity rank r.

    `cumulative_popularity` is `[ids]` and ends with 1, `vectors` `[ids, embedding_dim - 1]`, `biases` `[ids]`, `tokens`
    an Arrow array of the ids as the log has them.
    """

    cumulative_popularity: NDArray[np.float64]
    vectors: NDArray[np.float32]
    biases: NDArray[np.float32]
    tokens: pa.Array

    def draw(self, rows: int, random: np.random.Generator) -> NDArray[np.intp]:
        """Draws ranks `[rows]`, popular ones more often."""
        return np.searchsorted(self.cumulative_popularity, random.random(rows), side="right")


class TrueModel:
    """Draws interactions from a known model: `logit = <u, v> + bias of u + bias of v + b`."""

    def __init__(self, config: SampleConfig):
        self._config = config
        self._users = self._side("user", config.users, stream=0)
        self._items = self._side("movie", config.items, stream=1)

    def chunks(self, subset: Subset, rows: int) -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
        """Yields interactions and their true probabilities `[chunk]`; `train` and `test` share no random stream."""
        for chunk, start in enumerate(range(0, rows, _ROWS_PER_CHUNK)):
            random = np.random.default_rng([self._config.seed, 2 if subset == "train" else 3, chunk])
            size = min(_ROWS_PER_CHUNK, rows - start)
            users = self._users.draw(size, random)
            items = self._items.draw(size, random)
            logits = np.einsum("rd,rd->r", self._users.vectors[users], self._items.vectors[items])
            logits += self._users.biases[users] + self._items.biases[items] + np.float32(_GLOBAL_BIAS)
            probabilities = 1 / (1 + np.exp(-logits))
            clicked = random.random(size, dtype=np.float32) < probabilities
            seconds = np.arange(start, start + size, dtype=np.int64) * _SECONDS // rows
            table = pa.table(
                {
                    "userId": self._users.tokens.take(pa.array(users)),
                    "movieId": self._items.tokens.take(pa.array(items)),
                    "clicked": clicked.astype(np.int8),
                    "timestamp": _FIRST_TIMESTAMP + seconds,
                }
            )
            yield table, probabilities

    def _side(self, name: str, ids: int, stream: int) -> _Side:
        config = self._config
        random = np.random.default_rng([config.seed, stream])
        popularity = np.arange(1, ids + 1, dtype=np.float64) ** -config.exponent
        cumulative = np.cumsum(popularity)
        cumulative /= cumulative[-1]
        # Rounding could leave the end below 1; a draw above it would have no id.
        cumulative[-1] = 1.0
        dim = config.embedding_dim - 1
        # A product of two such vectors has standard deviation `signal`.
        scale = np.float32(np.sqrt(config.signal) * dim**-0.25)
        return _Side(
            cumulative_popularity=cumulative,
            vectors=random.standard_normal((ids, dim), dtype=np.float32) * scale,
            biases=random.standard_normal(ids, dtype=np.float32) * np.float32(_BIAS_SHARE * config.signal),
            tokens=_tokens(name, ids, config.token_type, random),
        )


def _tokens(name: str, ids: int, token_type: str, random: np.random.Generator) -> pa.Array:
    """Makes distinct tokens in an order unrelated to popularity: "user_000123", or integers with gaps."""
    numbers = random.permutation(ids)
    if token_type == "string":
        digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width=max(6, len(str(ids - 1))), padding="0")
        return pc.binary_join_element_wise(name, digits, "_")
    gap = 8
    return pa.array(1 + numbers * gap + random.integers(0, gap, ids))


def write_sample(
    model: TrueModel,
    path: str,
    subset: Subset,
    rows: int,
    progress: Progress | None = None,
) -> WrittenSample:
    """Writes a CSV file, gzip if its name ends with ".gz"; the name appears when the file is complete."""
    auc = StreamingAuc()
    done = positive_rows = 0
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    partial = f"{path}.partial"
    if progress is not None:
        progress(f"generate {subset}", 0, rows, {})
    with pa.CompressedOutputStream(partial, "gzip") if path.endswith(".gz") else pa.OSFile(partial, "wb") as file:
        file.write(f"{HEADER}\n".encode())
        for table, probabilities in model.chunks(subset, rows):
            pyarrow.csv.write_csv(table, file, options)
            positive = table["clicked"].to_numpy() > 0
            auc.add(probabilities, positive)
            done += len(probabilities)
            positive_rows += int(positive.sum())
            if progress is not None:
                progress(f"generate {subset}", done, rows, {})
    os.replace(partial, path)
    return WrittenSample(path, done, positive_rows, auc.result())


def _parser() -> argparse.ArgumentParser:
    """Makes flags for the fields of `SampleConfig`, with its defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sample",
        description="Draws interactions from a known dot-product-plus-bias model, and prints the highest AUC that any "
        "model could reach on them.",
        allow_abbrev=False,
    )
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--output", metavar="FILE", required=True, help="a CSV file, gzip if it ends with .gz")
    parser.add_argument("--test_rows", type=int, help="rows of --test_output; default: %(default)s")
    parser.add_argument("--test_output", metavar="FILE", help="more rows of the same model, to measure on")
    parser.add_argument("--token_type", choices=("int64", "string"), help="default: %(default)s")
    add_model_flags(parser, SampleConfig)
    return parser


def main(argv: list[str]) -> None:
    """Exits with code 2 and one line if an option is out of range."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    output, test_output = options.pop("output"), options.pop("test_output")
    if (test_output is None) != (options["test_rows"] == 0):
        parser.error("--test_rows and --test_output should be given together")
    config = checked(parser, SampleConfig, options)
    model = TrueModel(config)
    written = [write_sample(model, output, "train", config.rows)]
    if test_output is not None:
        written.append(write_sample(model, test_output, "test", config.test_rows))
    for sample in written:
        share = sample.positive_rows / sample.rows
        print(
            f"{sample.path}: {sample.rows:,} rows, {share:.1%} positive, "
            f"AUC of the true probabilities {sample.ceiling_auc:.4f}"
        )
