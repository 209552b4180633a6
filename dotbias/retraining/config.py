"""Defines and checks the `retraining` section of a configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MarginConfig(_Options):
    """Sets how much worse than the champion a challenger may be, by metric; `null` leaves the metric out.

    A metric passes if the lower end of the 95 % interval of its gain is at least minus the margin. `log_loss` is in
    nats, and its gain is the champion's minus the challenger's.
    """

    # benchmarks/gate.py measures how often this promotes a model that differs only in the seed, and misses a worse one.
    auc: float | None = Field(0.005, ge=0)
    log_loss: float | None = Field(0.005, ge=0)
    # Few users have a list, so intervals are wide. null: reported, but not checked; for a log without labels, where
    # nothing else can be compared, 0.01.
    ndcg: float | None = Field(None, ge=0)


class FloorConfig(_Options):
    """Sets values that a challenger must reach, whatever the champion's are; `null` leaves one out.

    `ndcg` is for logs without labels, and the others are for logs with labels.
    """

    auc: float | None = Field(0.5, ge=0, le=1)
    # Log loss divided by that of always predicting the share of positive rows; below 1, the model is better than that.
    normalized_log_loss: float | None = Field(1.0, gt=0)
    # NDCG@10 over all items; 0 asks only that lists can be measured.
    ndcg: float | None = Field(0.0, ge=0, le=1)


class SliceConfig(_Options):
    """Sets by how much the AUC of a slice may fall before the challenger is refused; `null` leaves the slice out.

    A slice fails the gate if its AUC fell by more than this and the 95 % interval of the difference excludes 0.
    """

    new_users: float | None = Field(0.02, ge=0)
    new_items: float | None = Field(0.02, ge=0)
    # The same for the rows of each value of a further feature, by its name: {country: 0.02}.
    features: dict[str, Annotated[float, Field(ge=0)]] = {}


class DataConfig(_Options):
    """Sets how far the challenger's data may be from the champion's; `null` leaves a check out."""

    # Train rows a day, divided by the champion's.
    min_rows_ratio: float | None = Field(0.5, ge=0)
    max_rows_ratio: float | None = Field(2.0, gt=0)
    # Differences of shares.
    rejected: float | None = Field(0.01, ge=0)
    oov: float | None = Field(0.1, ge=0)
    label_mean: float | None = Field(0.1, ge=0)
    # Population stability index of a feature's frequencies; .25 is the usual mark of a large shift.
    psi: float | None = Field(0.25, ge=0)


class GateConfig(_Options):
    """Sets the limits that a challenger has to pass to become champion."""

    margin: MarginConfig = MarginConfig()
    floors: FloorConfig = FloorConfig()
    slices: SliceConfig = SliceConfig()
    data: DataConfig = DataConfig()
    # Refuses a challenger whose evaluation says "Do not ship".
    verdict: bool = True


class KeepConfig(_Options):
    """Sets how many of the last runs keep their files; the champion, its predecessor and a pinned run keep all."""

    # Shards of the dataset: most of the disk, and needed only to train the run again.
    shards: int = Field(2, ge=1)
    # Exported models, their states for a warm start, and versions in `serving/`.
    exports: int = Field(7, ge=1)


class RetrainingConfig(_Options):
    """Sets how `--stage retrain` makes the run of a date."""

    # Train rows are of [date - window_days, date - eval_days), eval rows of [date - eval_days, date), in UTC.
    window_days: int = Field(30, ge=1)
    eval_days: int = Field(1, ge=1)
    # Starts from the champion's weights.
    warm_start: bool = True
    # `full` trains on the whole window, `incremental` on the rows since the champion's eval rows began.
    mode: Literal["full", "incremental"] = "full"
    # Every n-th run starts from random values, as a check on drift in the weights.
    cold_every: int | None = Field(None, ge=1)
    gate: GateConfig = GateConfig()
    keep: KeepConfig = KeepConfig()
    # Warns after this many nights in a row without a promotion.
    warn_after: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> RetrainingConfig:
        if self.eval_days >= self.window_days:
            raise ValueError(
                f"`eval_days` should be less than `window_days` {self.window_days}. Received: {self.eval_days}"
            )
        if self.mode == "incremental" and not self.warm_start:
            raise ValueError("`mode: incremental` adds new rows to the champion's weights: it needs `warm_start: true`")
        return self
