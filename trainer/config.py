"""What the trainer can be told; checked before TensorFlow is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptimizerConfig(_Options):
    """`lazy_adam` moves only the rows that a batch looks up; `adam` sweeps whole tables at every step."""

    name: Literal["lazy_adam", "adam", "adagrad", "sgd"] = "lazy_adam"
    learning_rate: float = Field(0.003, gt=0)


class HashingConfig(_Options):
    """For a feature whose encoding is `hashing`."""

    num_bins: int = Field(ge=1, lt=2**31)


class EarlyStoppingConfig(_Options):
    """Training ends when `patience` epochs brought no better eval metric; the best weights are kept."""

    monitor: Literal["auc", "label-crossentropy"] = "auc"
    patience: int = Field(2, ge=1)


class TrainerConfig(_Options):
    """The `trainer` section of a configuration file."""

    # The last unit is the bias, so at least one more is needed for a dot product.
    embedding_dim: int = Field(16, ge=2)
    batch_size: int = Field(8192, ge=1)
    # At most; early stopping ends it sooner.
    epochs: int = Field(20, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    # The loss of a row gains l2 * count ** -0.5 * |embedding| ** 2 of each id that it looks up. Sparser logs want more.
    l2: float = Field(0.15, ge=0)
    # Of the vectors; biases start at 0.
    initial_stddev: float = Field(0.05, ge=0)
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    hashing: dict[str, HashingConfig] = {}
    # Steps that run in one call: fewer returns to Python.
    steps_per_execution: int = Field(64, ge=1)
    # auto: the first of TPU, several workers (`TF_CONFIG`), GPU that is there, else the CPU.
    strategy: Literal["auto", "cpu", "gpu", "multi_worker", "tpu"] = "auto"
    # Reads each shard once more before training and compares it with the manifest.
    verify_checksums: bool = True
    seed: int = Field(42, ge=0, lt=2**31)
