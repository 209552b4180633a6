"""Defines and checks the options of the trainer, without TensorFlow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.manifest import DotbiasError


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptimizerConfig(_Options):
    """Chooses the optimizer: `lazy_adam` moves the rows that a batch looks up, `adam` all rows at every step.

    `rowwise_adam` moves what `lazy_adam` does, and keeps two numbers a row instead of two for each unit.
    """

    name: Literal["lazy_adam", "rowwise_adam", "adam", "adagrad", "sgd"] = "lazy_adam"
    # None: 0.003 * (batch_size / 256) ** 0.5, see `trainer.loop.defaults`.
    learning_rate: float | None = Field(None, gt=0)


class HashingConfig(_Options):
    """Sets the table size of a feature whose encoding is `hashing`."""

    num_bins: int = Field(ge=1, lt=2**31)


class EarlyStoppingConfig(_Options):
    """Ends training after `patience` periods without a better eval metric; the best weights are kept."""

    # None: auc, or ndcg (NDCG@20 over all items, for a sample of users) with `objective: softmax`.
    monitor: Literal["auc", "label-crossentropy", "ndcg"] | None = None
    # On a small eval split, one or two periods can be worse by chance.
    patience: int = Field(3, ge=1)


class SoftmaxConfig(_Options):
    """Sets how `objective: softmax` scores items, and which items it compares the item of a row with."""

    # Items drawn uniformly for each batch.
    candidates: int = Field(512, ge=1)
    # Items of the batch's rows among the candidates.
    in_batch: int = Field(0, ge=0)
    # Logits are <u, v> / temperature. None: from the items, and the rows of a user, see `trainer.loop.defaults`.
    temperature: float | None = Field(None, gt=0)
    # Scales vectors to length 1.
    normalize: bool = True
    item_bias: bool = True


# In the directory of a model.
CHECKPOINT_DIRECTORY = "checkpoints"


class CheckpointConfig(_Options):
    """Sets when checkpoints are written, besides after each period, and how many are kept, besides the best period's.

    They are deleted when training ends. An interrupted training can go on with other values.
    """

    # A lost machine costs at most this much work; writing takes about two seconds per GB of tables and slots.
    every_minutes: float = Field(10.0, gt=0)
    every_steps: int | None = Field(None, ge=1)
    # The last one, and the one before in case the last one cannot be read.
    keep: int = Field(2, ge=1)


class TuneConfig(_Options):
    """Limits `--stage tune`; the search ends when either limit is reached."""

    # Trials of earlier starts count too.
    trials: int = Field(40, ge=1)
    # Counts from this start; the trial that is running then is finished.
    minutes: float | None = Field(None, gt=0)


class TrainerConfig(_Options):
    """Holds the `trainer` section of a configuration file."""

    # The last unit is the bias, so at least one more is needed for a dot product.
    # More units cost memory and time in proportion, but hardly ever quality: `l2` shrinks those that the log does not
    # need.
    embedding_dim: int = Field(64, ge=2)
    # `cross_entropy` predicts labels; `softmax` finds items, from positive rows alone. auto: `softmax` if the log has
    # no labels.
    objective: Literal["auto", "cross_entropy", "softmax"] = "auto"
    softmax: SoftmaxConfig = SoftmaxConfig()
    # None: from the number of rows, between 256 and 8192, see `trainer.loop.defaults`.
    batch_size: int | None = Field(None, ge=1)
    # The most epochs; early stopping usually ends training sooner.
    epochs: int = Field(40, ge=1)
    # A period ends after this many train rows, rounded up to whole batches. None: after each epoch. Weights are then
    # averaged and measured, and early stopping counts it.
    evaluate_every_rows: int | None = Field(None, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    # The loss of a row gains l2 * (count ** -0.5 + 1 / count) * |embedding| ** 2 of each id that it looks up.
    # None: from 0.11 to 0.27 by how labels were made, more where one side has few ids, see `trainer.loop.defaults`.
    l2: float | None = Field(None, ge=0)
    # L2 of the bias unit is this many times `l2`. None: by rows per id and labels, see `trainer.loop.defaults`.
    bias_l2_factor: float | None = Field(None, ge=0)
    # Standard deviation of the vectors; biases start at 0.
    initial_stddev: float = Field(0.05, ge=0)
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    # Weight of the average so far in the average after the next period. 0: no average and one copy of the tables less.
    weight_averaging: float = Field(0.7, ge=0, lt=1)
    # After early stopping, train once more on train and eval rows, for the best number of periods.
    refit: bool = True
    # After training, weigh vectors and biases by what eval rows say of them, see `trainer.output.rescaling`. The
    # objective `softmax` does not need it.
    rescale: bool = True
    hashing: dict[str, HashingConfig] = {}
    tune: TuneConfig = TuneConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    # Steps in one call of TensorFlow; more of them mean fewer returns to Python.
    steps_per_execution: int = Field(64, ge=1)
    # auto: a TPU, else several workers (`TF_CONFIG`), else a GPU, else the CPU.
    strategy: Literal["auto", "cpu", "gpu", "multi_worker", "tpu"] = "auto"
    # Keeps decoded shards, 4 bytes for each id and label, so that only the first epoch decompresses and parses them.
    cache: Literal["none", "memory", "disk"] = "none"
    # Reads each shard before training and compares its checksum with the manifest.
    verify_checksums: bool = True
    # Gives the same bits every time: no operation whose result depends on the order in which threads finish.
    deterministic: bool = False
    seed: int = Field(42, ge=0, lt=2**31)


def set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, such as `trainer.optimizer.name`, in nested dictionaries; make sections that are missing.

    Raises:
        DotbiasError: a part of the key has a value and so no keys of its own.
    """
    *sections, name = key.split(".")
    section = values
    for depth, part in enumerate(sections, start=1):
        below = section.get(part)
        if below is None:
            below = section[part] = {}
        if not isinstance(below, dict):
            raise DotbiasError(f"`{'.'.join(sections[:depth])}` has no keys of its own. Its value is {below!r}")
        section = below
    section[name] = value
