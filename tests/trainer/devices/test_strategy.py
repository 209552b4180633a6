from __future__ import annotations

import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.devices.strategy import make_strategy, smallest_gpu_bytes, wants_tpu
from trainer.devices.tpu import is_tpu, moves_tables_itself


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="of a machine without a GPU")
def test_without_an_accelerator_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("auto", "cpu"):
        strategy = make_strategy(name)
        assert strategy.num_replicas_in_sync == 1
        assert not is_tpu(strategy) and not moves_tables_itself(strategy)
        assert smallest_gpu_bytes(strategy) is None
    with pytest.raises(DotbiasError, match="sees no GPU"):
        make_strategy("gpu")


def test_several_workers_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(DotbiasError, match="`TF_CONFIG` does not name two or more workers"):
        make_strategy("multi_worker")


def test_auto_takes_the_tpu_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    assert [wants_tpu(name) for name in ("auto", "cpu", "tpu")] == [False, False, True]
    monkeypatch.setenv("TPU_NAME", "local")
    assert [wants_tpu(name) for name in ("auto", "cpu", "tpu")] == [True, False, True]


def test_a_tpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPU_NAME", "local")
    with pytest.raises(DotbiasError, match="no TPU can be reached"):
        make_strategy("tpu")
