"""Estimates the memory of a training, and refuses one that does not fit, before the tables are made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig

_log = logging.getLogger("trainer.train")

# Copies of a table in memory when its initial values are there. After that, all work on tables goes by blocks of rows.
_INITIAL_COPIES = 2
# On the host of a TPU, whole tables pass through `tf.train.Checkpoint`; nobody has measured it.
_COPIES_IN_PASSING = 5
# TensorFlow itself, gradients, batches, blocks of rows: measured by benchmarks/training/memory.py, rounded up.
_BASE_BYTES = 5 << 28
_BYTES_OF_FLOAT = 4
# Messages leave smaller parts out: 0.1 GiB.
_SMALLEST_SHOWN = (1 << 30) // 10


def slots_of_row(config: TrainerConfig) -> int:
    """Return how many numbers the optimizer keeps for a row of a table."""
    dim = config.embedding_dim
    return {"lazy_adam": 2 * dim, "rowwise_adam": 2, "adam": 2 * dim, "adagrad": dim, "sgd": 0}[config.optimizer.name]


def needed_bytes(table_rows: Mapping[str, int], config: TrainerConfig, *, tpu: bool = False) -> int:
    """Estimate the peak of a training: tables, slots, averages, and L2 weights.

    Args:
        table_rows: by feature.
        config: the `trainer` section.
        tpu: the estimate is for the host of a TPU: it has a copy of the TPU's tables and slots, the tables of the model
            that is measured, and those that are read from a checkpoint.
    """
    copies = 1 + slots_of_row(config) / config.embedding_dim + (1 if config.weight_averaging else 0) + (2 if tpu else 0)
    rows = sum(table_rows.values())
    largest = max(table_rows.values())
    in_memory = max(copies * rows, _INITIAL_COPIES * largest) + (_COPIES_IN_PASSING * largest if tpu else 0)
    l2_weights = rows * _BYTES_OF_FLOAT if config.l2 != 0 else 0
    return round(in_memory * config.embedding_dim) * _BYTES_OF_FLOAT + l2_weights + _BASE_BYTES


def table_and_slot_bytes(table_rows: Mapping[str, int], config: TrainerConfig) -> tuple[int, int]:
    """Return the bytes of the embedding tables and of the optimizer's slots for them."""
    tables = sum(table_rows.values()) * config.embedding_dim * _BYTES_OF_FLOAT
    return tables, sum(table_rows.values()) * slots_of_row(config) * _BYTES_OF_FLOAT


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the free memory of the machine or of its container, whichever is less; None if it is not known.

    `root` is the root of the file system.
    """
    found = []
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    group = root / "sys/fs/cgroup"
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else None


def check_memory(
    table_rows: Mapping[str, int],
    config: TrainerConfig,
    available: int | None,
    *,
    shards: int = 0,
    cache: int = 0,
    gpu: int | None = None,
    tpu: bool = False,
) -> None:
    """Log the memory that the training takes; raise `DotbiasError` if it is more than is free.

    Args:
        table_rows: by feature.
        config: the `trainer` section.
        available: bytes that are free on the machine; None: not known.
        shards: bytes of the shards that are decoded at once.
        cache: bytes that `trainer.cache: memory` takes.
        gpu: bytes of each GPU, which then holds the tables; None: the memory of the machine holds them.
        tpu: the machine is the host of a TPU.
    """
    needed = needed_bytes(table_rows, config, tpu=tpu)
    sizes = ", ".join(f"{name} {rows:,}" for name, rows in table_rows.items())
    tables = f"Tables of {sizes} rows x {config.embedding_dim} with {config.optimizer.name}"
    less = (
        "a smaller `trainer.embedding_dim`, `trainer.weight_averaging: 0`, `trainer.optimizer.name: rowwise_adam`, "
        "a higher `frequency_threshold` or fewer bins of a feature"
    )
    if gpu is not None:
        _check(tables, needed, gpu, " on each GPU", f"{less}, `trainer.strategy: cpu`")
        # Checkpoints pass through the machine's memory by blocks of rows.
        tables = "Checkpoints"
        needed = _BASE_BYTES
    if shards >= _SMALLEST_SHOWN:
        tables, less = f"{tables}, shards in flight ({_gib(shards)})", f"a smaller `pipeline.rows_per_shard`, {less}"
    if cache:
        tables, less = f"{tables} and the cache of decoded shards ({_gib(cache)})", f"`trainer.cache: disk`, {less}"
    _check(tables, needed + shards + cache, available, "", less)


def _check(what: str, needed: int, available: int | None, where: str, less: str) -> None:
    of_all = "" if available is None else f" of {_gib(available)} available{where}"
    message = f"{what} take about {_gib(needed)}{of_all}."
    if available is not None and needed > available:
        raise DotbiasError(f"{message} These take less: {less}.")
    _log.info("%s", message)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _main() -> None:
    """Print what trainings take, for docs/scale.md."""
    kinds: dict[str, dict[str, Any]] = {
        "defaults": {},
        "`rowwise_adam`": {"optimizer": {"name": "rowwise_adam"}},
        "`rowwise_adam`, no average": {"optimizer": {"name": "rowwise_adam"}, "weight_averaging": 0},
    }
    print(f"| ids | units | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
    for ids in (10**6, 10**7, 10**8, 10**9):
        for dim in (16, 64):
            rows = {"userId": ids * 9 // 10, "itemId": ids // 10}
            configs = (TrainerConfig.model_validate({"embedding_dim": dim, **kind}) for kind in kinds.values())
            print(f"| {ids:,} | {dim} | {' | '.join(_gib(needed_bytes(rows, config)) for config in configs)} |")


if __name__ == "__main__":
    _main()
