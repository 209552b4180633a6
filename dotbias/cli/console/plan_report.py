"""Formats the output of `--stage plan`: the size of the job and of the model."""

from __future__ import annotations

from dotbias.cli.configuration.load import Configuration
from pipeline.planning.estimate import Plan
from pipeline.planning.sizing import GIB, Size, dataflow_cost, feature_to_join, worker_type
from trainer.devices.memory import needed_bytes

_WORKERS, _VCPUS = 50, 4


def plan_report(plan: Plan, configuration: Configuration) -> str:
    """Returns the text; it ends with a line end."""
    size = plan.size
    rows = [
        ("Rows", f"about {plan.rows_read:,} to read ({plan.sampled_rows:,} looked at), {size.rows:,} to keep"),
        ("Rejected", f"{plan.rejected_fraction:.3%} of the rows looked at"),
        *((f"Vocabulary {name}", f"about {tokens:,} tokens") for name, tokens in size.tokens.items()),
        ("Shards", f"{size.shards:,} of {size.rows_per_shard:,} rows"),
        ("Model", _tables(size, configuration)),
        (
            "This machine",
            f"{_bytes(size.in_process_bytes)} of memory, {size.in_process_cpu_seconds:,.0f} s of one core",
        ),
        ("Dataflow", _dataflow(size)),
    ]
    if (name := feature_to_join(size)) is not None:
        rows.append(("Advice", f"`pipeline.features.{name}.lookup: join`; no worker of 64 GiB holds this vocabulary"))
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {text}\n" for name, text in rows)


def table_rows(size: Size, configuration: Configuration) -> dict[str, int]:
    """Returns the number of rows of the embedding table of each feature."""
    bins = {name: hashing.num_bins for name, hashing in configuration.trainer.hashing.items()}
    features = configuration.pipeline.features
    return {name: tokens + features[name].num_oov_buckets for name, tokens in size.tokens.items()} | bins


def _tables(size: Size, configuration: Configuration) -> str:
    trainer = configuration.trainer
    rows = table_rows(size, configuration)
    tables = sum(rows.values()) * trainer.embedding_dim * 4
    return (
        f"{_bytes(tables)} of embedding tables; a training takes {_bytes(needed_bytes(rows, trainer))} "
        f"with {trainer.optimizer.name}"
    )


def _dataflow(size: Size) -> str:
    cost = dataflow_cost(size, _WORKERS * _VCPUS)
    return (
        f"{worker_type(size)} or larger: the largest step of one worker needs {_bytes(size.vocabulary_bytes)}; "
        f"{cost.vcpu_hours:,.1f} vCPU hours, {cost.shuffled_gib:,.1f} GiB shuffled, "
        f"{cost.wall_seconds / 60:,.0f} min with {_WORKERS} workers of {_VCPUS} vCPUs, without their start"
    )


def _bytes(count: float) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / 2**20:,.1f} MiB"
