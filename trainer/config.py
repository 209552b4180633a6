"""What the trainer can be told; checked before TensorFlow is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptimizerConfig(_Options):
    """`lazy_adam` moves only the rows that a batch looks up; `adam` sweeps whole tables at every step."""

    name: Literal["lazy_adam", "adam", "adagrad", "sgd"] = "lazy_adam"
    # None: 0.003 * (batch_size / 256) ** 0.5, see `automatic`.
    learning_rate: float | None = Field(None, gt=0)


class HashingConfig(_Options):
    """For a feature whose encoding is `hashing`."""

    num_bins: int = Field(ge=1, lt=2**31)


class EarlyStoppingConfig(_Options):
    """Training ends when `patience` epochs brought no better eval metric; the best weights are kept."""

    monitor: Literal["auc", "label-crossentropy"] = "auc"
    # On a small eval split, one epoch or two can be worse by chance.
    patience: int = Field(3, ge=1)


class CheckpointConfig(_Options):
    """When a checkpoint is written besides the end of each epoch, and how many are kept besides that of the best epoch.

    A run can be continued with other values.
    """

    # What a lost machine costs at most; writing takes about two seconds per GB of tables and slots.
    every_minutes: float = Field(10.0, gt=0)
    every_steps: int | None = Field(None, ge=1)
    # The last one, and the one before for when that cannot be read.
    keep: int = Field(2, ge=1)


class TuneConfig(_Options):
    """The budget of `--stage tune`, whichever is used up first."""

    # In all, those of earlier starts included.
    trials: int = Field(40, ge=1)
    # Of this start; the trial that is under way then is finished.
    minutes: float | None = Field(None, gt=0)


class TrainerConfig(_Options):
    """The `trainer` section of a configuration file."""

    # The last unit is the bias, so at least one more is needed for a dot product.
    # More costs memory and time in proportion, and hardly ever quality: what a log cannot tell, `l2` takes out.
    embedding_dim: int = Field(64, ge=2)
    # None: from the number of rows, between 256 and 8192, see `automatic`.
    batch_size: int | None = Field(None, ge=1)
    # At most; early stopping ends it sooner.
    epochs: int = Field(40, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    # The loss of a row gains l2 * (count ** -0.5 + 1 / count) * |embedding| ** 2 of each id that it looks up.
    # None: from 0.11 to 0.3, by how the labels were made, see `automatic`.
    l2: float | None = Field(None, ge=0)
    # How many times as strong that is for the bias unit. None: from 1 to 3, by rows per id, see `automatic`.
    bias_l2_factor: float | None = Field(None, ge=0)
    # Of the vectors; biases start at 0.
    initial_stddev: float = Field(0.05, ge=0)
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    # Each epoch's weights count this much for the average after the next one; 0: the last weights themselves, without
    # the memory of one more copy of the tables.
    weight_averaging: float = Field(0.7, ge=0, lt=1)
    # After early stopping, train once more on train and eval rows, for the epochs that were best.
    refit: bool = True
    hashing: dict[str, HashingConfig] = {}
    tune: TuneConfig = TuneConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    # Steps that run in one call: fewer returns to Python.
    steps_per_execution: int = Field(64, ge=1)
    # auto: the first of TPU, several workers (`TF_CONFIG`), GPU that is there, else the CPU.
    strategy: Literal["auto", "cpu", "gpu", "multi_worker", "tpu"] = "auto"
    # Decoded shards, so that only the first epoch decompresses and parses them: 4 bytes for each id and label.
    cache: Literal["none", "memory", "disk"] = "none"
    # Reads each shard once more before training and compares it with the manifest.
    verify_checksums: bool = True
    # Only operations whose result does not depend on the order in which threads finish: the same bits every time.
    deterministic: bool = False
    seed: int = Field(42, ge=0, lt=2**31)
