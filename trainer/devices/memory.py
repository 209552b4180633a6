"""Whether the tables fit into the memory of this machine, before they are made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig

_log = logging.getLogger("trainer.train")

# Numbers that an optimizer keeps for each weight of a table.
SLOTS = {"lazy_adam": 2, "adam": 2, "adagrad": 1, "sgd": 0}
# Times the largest table: values that exist for a moment while it is made, averaged and restored, and whose memory
# TensorFlow keeps. Measured at 5 and 20 million rows of 16 and 64 units.
_PASSING = 5
# TensorFlow itself, gradients, batches: measured with small tables and shards, rounded up.
_BESIDES = 1 << 30
_FLOAT = 4
# A part that is less is not worth a word: 0.1 GiB.
_SHOWN = (1 << 30) // 10


def needed_bytes(table_rows: Mapping[str, int], config: TrainerConfig) -> int:
    """Of a training at its peak: tables, slots, averages, L2 weights, and what making the largest table takes besides.

    Args:
        table_rows: by feature.
        config: the `trainer` section.
    """
    copies = 1 + SLOTS[config.optimizer.name] + (1 if config.weight_averaging else 0)
    rows = sum(table_rows.values())
    passing = _PASSING * max(table_rows.values()) * config.embedding_dim * _FLOAT
    l2_weights = rows * _FLOAT if config.l2 != 0 else 0
    return copies * rows * config.embedding_dim * _FLOAT + passing + l2_weights + _BESIDES


def table_and_slot_bytes(table_rows: Mapping[str, int], config: TrainerConfig) -> tuple[int, int]:
    """Of the embedding tables, and of what the optimizer keeps for them."""
    tables = sum(table_rows.values()) * config.embedding_dim * _FLOAT
    return tables, tables * SLOTS[config.optimizer.name]


def available_bytes(root: Path = Path("/")) -> int | None:
    """What a process may still take: of the machine and of its container, whichever is less; None where not known.

    `root` is that of the file system.
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
) -> None:
    """Says what the training will take; raises `DotbiasError` if that is more than there is.

    Args:
        table_rows: by feature.
        config: the `trainer` section.
        available: bytes of the machine; None: not known.
        shards: bytes of the shards that are decoded at once.
        cache: bytes that `trainer.cache: memory` takes.
        gpu: bytes of each GPU, where the tables then are; None: they are in the memory of the machine.
    """
    needed = needed_bytes(table_rows, config)
    sizes = ", ".join(f"{name} {rows:,}" for name, rows in table_rows.items())
    tables = f"Tables of {sizes} rows x {config.embedding_dim} with {config.optimizer.name}"
    less = (
        "a smaller `trainer.embedding_dim`, `trainer.weight_averaging: 0`, `trainer.optimizer.name: adagrad`, "
        "a higher `frequency_threshold` or fewer bins of a feature"
    )
    if gpu is not None:
        _check(tables, needed, gpu, " on each GPU", f"{less}, `trainer.strategy: cpu`")
        # A variable on its way to or from a checkpoint: a table's moments are twice as wide as the table.
        tables = "Checkpoints"
        needed = 2 * max(table_rows.values()) * config.embedding_dim * _FLOAT + _BESIDES
    if shards >= _SHOWN:
        tables, less = f"{tables}, shards in flight ({_gib(shards)})", f"a smaller `pipeline.rows_per_shard`, {less}"
    if cache:
        tables, less = f"{tables} and the cache of decoded shards ({_gib(cache)})", f"`trainer.cache: disk`, {less}"
    _check(tables, needed + shards + cache, available, "", less)


def _check(what: str, needed: int, available: int | None, where: str, less: str) -> None:
    of_all = "" if available is None else f" of {_gib(available)} available{where}"
    message = f"{what} take about {_gib(needed)}{of_all}."
    if available is not None and needed > available:
        raise DotbiasError(f"{message} What takes less: {less}.")
    _log.info("%s", message)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
