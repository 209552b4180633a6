from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.devices.memory import available_bytes, check_memory, needed_bytes
from trainer.train import train

GIB = 1 << 30
# What a training takes besides its tables.
BASE = 1.25 * GIB
ROWS = {"userId": 20_000_000, "movieId": 1}


@pytest.mark.parametrize(
    ("changes", "tables", "on_a_tpu"),
    [
        # Weights, two moments and the average.
        ({}, 4, 11),
        ({"weight_averaging": 0}, 3, 10),
        ({"optimizer": {"name": "adagrad"}}, 3, 10),
        ({"weight_averaging": 0, "optimizer": {"name": "adagrad"}}, 2, 9),
        # Two numbers for 16 units.
        ({"optimizer": {"name": "rowwise_adam"}}, 2.125, 9.125),
        # Twice while the initial values are drawn.
        ({"weight_averaging": 0, "optimizer": {"name": "sgd"}}, 2, 8),
    ],
)
def test_what_a_training_takes(changes: dict[str, object], tables: float, on_a_tpu: float) -> None:
    config = TrainerConfig.model_validate({"embedding_dim": 16, "l2": 0, **changes})
    assert needed_bytes(ROWS, config) == pytest.approx(tables * 20e6 * 16 * 4 + BASE, rel=1e-6)
    # The host of a TPU has the tables of the model that it measures, those that it reads for it, and five in passing.
    assert needed_bytes(ROWS, config, tpu=True) == pytest.approx(on_a_tpu * 20e6 * 16 * 4 + BASE, rel=1e-6)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_available_memory_is_the_less_of_machine_and_container(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal: 99 kB\nMemAvailable:    8388608 kB\n")
    assert available_bytes(tmp_path) == 8 * GIB
    write(tmp_path / "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/memory.current", f"{GIB}\n")
    assert available_bytes(tmp_path) == 8 * GIB
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{4 * GIB}\n")
    assert available_bytes(tmp_path) == 3 * GIB


def test_what_does_not_fit_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer.train")
    config = TrainerConfig(embedding_dim=16)
    check_memory({"userId": 10}, config, None)
    check_memory({"userId": 10}, config, 2 * GIB)
    assert "userId 10 rows x 16 with lazy_adam take about 1.3 GiB of 2.0 GiB available." in caplog.text
    with pytest.raises(DotbiasError, match=r"take about 6\.1 GiB of 2\.0 GiB available.*embedding_dim"):
        check_memory(ROWS, config, 2 * GIB)


def test_a_cache_in_memory_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer.train")
    check_memory({"userId": 10}, TrainerConfig(), 4 * GIB, cache=2 * GIB)
    assert "and the cache of decoded shards (2.0 GiB) take about 3.3 GiB of 4.0 GiB available." in caplog.text
    with pytest.raises(
        DotbiasError, match=r"take about 3\.3 GiB of 2\.0 GiB available.*take less: `trainer.cache: disk`"
    ):
        check_memory({"userId": 10}, TrainerConfig(), 2 * GIB, cache=2 * GIB)


def test_shards_in_flight_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer.train")
    check_memory({"userId": 10}, TrainerConfig(), 10 * GIB, shards=8 * GIB)
    assert "with lazy_adam, shards in flight (8.0 GiB) take about 9.3 GiB of 10.0 GiB available." in caplog.text
    with pytest.raises(
        DotbiasError, match=r"9\.3 GiB of 8\.0 GiB available.*take less: a smaller `pipeline.rows_per_shard`"
    ):
        check_memory({"userId": 10}, TrainerConfig(), 8 * GIB, shards=8 * GIB)
    # They are decoded in the memory of the machine, wherever the tables are.
    with pytest.raises(DotbiasError, match=r"Checkpoints, shards in flight \(8\.0 GiB\) take about 9\.2 GiB"):
        check_memory({"userId": 10}, TrainerConfig(), 8 * GIB, shards=8 * GIB, gpu=16 * GIB)


def test_a_training_counts_its_shards(
    dataset: Dataset, config: TrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.reader._BYTES_OF_ROW", 1 << 40)
    with pytest.raises(DotbiasError, match=r"shards in flight \([0-9,.]+ GiB\) take about"):
        train(dataset.path, str(tmp_path / "model"), config)


def test_each_gpu_holds_all_tables(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer.train")
    config = TrainerConfig(embedding_dim=16)
    with pytest.raises(DotbiasError, match=r"take about 6\.1 GiB of 4\.0 GiB available on each GPU.*strategy: cpu"):
        check_memory(ROWS, config, 64 * GIB, gpu=4 * GIB)
    # Of the machine, only what passes through it is asked for.
    check_memory(ROWS, config, 5 * GIB, cache=GIB, gpu=16 * GIB)
    assert "take about 6.1 GiB of 16.0 GiB available on each GPU." in caplog.text
    assert "cache of decoded shards (1.0 GiB) take about 2.2 GiB of 5.0 GiB available." in caplog.text
    with pytest.raises(DotbiasError, match=r"take about 1\.2 GiB of 1\.0 GiB available\."):
        check_memory(ROWS, config, GIB, gpu=16 * GIB)
