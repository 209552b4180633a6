from __future__ import annotations

import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.devices.strategy import is_tpu, make_strategy, smallest_gpu_bytes


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="of a machine without a GPU")
def test_without_an_accelerator_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("auto", "cpu"):
        strategy = make_strategy(name)
        assert strategy.num_replicas_in_sync == 1 and not is_tpu(strategy)
        assert smallest_gpu_bytes(strategy) is None
    with pytest.raises(DotbiasError, match="sees no GPU"):
        make_strategy("gpu")


def test_several_workers_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(DotbiasError, match="`TF_CONFIG` does not name two or more workers"):
        make_strategy("multi_worker")
