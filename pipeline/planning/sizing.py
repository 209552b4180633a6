"""Computes what a job of a given size needs, for `--stage plan` and docs/scale.md.

    python -m pipeline.planning.sizing

prints the table of docs/scale.md. The constants were measured by `benchmarks/preprocess.py` and
`benchmarks/scale.py`; replace the prices by those of your own region and contract.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pipeline.input.kept_batches import KEPT_BYTES
from pipeline.output.fan_out import num_messages, takes_two_steps

GIB = 2**30

# Seconds of one core for reading, counting, encoding, shuffling and writing a million rows of two int64 features (up
# to twice as many beside other work), and their timestamps.
CPU_SECONDS_PER_MILLION_ROWS = 0.7
CPU_SECONDS_PER_MILLION_TIMESTAMPS = 0.25
# Seconds of one core for the imports of a process, and the graphs of Beam and TensorFlow.
START_CPU_SECONDS = 6
# Memory of a process that has imported Beam and TensorFlow.
BASE_BYTES = 1.0 * GIB
# Bytes that the in-process runner holds for each byte of what it joins.
IN_PROCESS_COPIES = 5.5
# Peak of the step that sorts and writes a vocabulary, on one worker.
VOCABULARY_BYTES_PER_TOKEN = {"int64": 115, "string": 140}
# TensorFlow's lookup table, in each process that encodes.
TABLE_BYTES_PER_TOKEN = {"int64": 30, "string": 57}
# Ranges and partitions of a joined vocabulary; and the time to ask for, find and put in the indices of a million rows
# whose tokens hardly repeat.
JOIN_PARTITIONS = 128
CPU_SECONDS_PER_MILLION_ROWS_JOINED = 1.0
# Seconds of one core per million tokens in the vocabulary's last step; and to merge their counts and load the table.
CPU_SECONDS_PER_MILLION_TOKENS = 0.45
CPU_SECONDS_PER_MILLION_TOKENS_MERGED_AND_LOADED = 0.8
# A Dataflow job also shuffles, schedules and starts workers.
DATAFLOW_OVERHEAD = 1.5
# A token; a token and its count, and how many of them a bundle collects before it sends them.
TOKEN_BYTES = {"int64": 8, "string": 24}
COUNT_BYTES = {"int64": 16, "string": 32}
PAIRS_PER_BUNDLE = 2_000_000
# Bytes for each row of a shard while it is written, and the shards that a process writes at the same time.
SHARD_BYTES_PER_ROW = 140
SHARDS_AT_ONCE = 2
# What compression leaves of the rows, in messages of at least so many.
COMPRESSED, COMPRESSED_ROWS = 0.75, 500
# An Arrow message and Beam's key, and the time to make, move and read them, for each (batch, shard).
MESSAGE_BYTES = 300
CPU_SECONDS_PER_MILLION_MESSAGES = 20
# A shuffle in two steps sends each row twice, the first time with its shard, and names the batch of the rows of each
# (batch, shard); and the time to unpack and pack a million rows once more.
SHARD_NUMBER_BYTES, PIECE_BYTES = 4, 20
CPU_SECONDS_PER_MILLION_ROWS_AGAIN = 0.1

# Dollars: per vCPU and hour, GiB and hour, GiB shuffled (batch, us-central1).
VCPU_HOUR, MEMORY_GIB_HOUR, SHUFFLED_GIB = 0.056, 0.003557, 0.011
MEMORY_GIB_PER_VCPU = 4


@dataclass(frozen=True)
class Size:
    """Describes a dataset: its rows, of `payload_bytes` each, and by feature the tokens of its vocabulary.

    `joined` names the features with `lookup: join`. With `has_timestamp`, rows have a timestamp too.
    """

    rows: int
    tokens: dict[str, int]
    token_types: dict[str, str]
    payload_bytes: int
    rows_per_shard: int = 1_000_000
    joined: tuple[str, ...] = ()
    has_timestamp: bool = False

    @property
    def shards(self) -> int:
        return max(1, math.ceil(self.rows / self.rows_per_shard))

    @property
    def two_steps(self) -> bool:
        """Returns whether the shuffle goes over groups of shards."""
        return takes_two_steps(self.rows, self.shards)

    @property
    def messages(self) -> int:
        """Returns the number of messages of the shuffle."""
        return num_messages(self.rows, self.shards, self.two_steps)

    @property
    def row_bytes(self) -> float:
        """Returns the bytes shuffled to the shards."""
        bytes_of_row, overhead = self.payload_bytes, self.messages * MESSAGE_BYTES
        if self.two_steps:
            bytes_of_row += self.payload_bytes + SHARD_NUMBER_BYTES
            overhead += num_messages(self.rows, self.shards, two_steps=False) * PIECE_BYTES
        compressed = COMPRESSED if self.rows >= COMPRESSED_ROWS * self.messages else 1
        return self.rows * bytes_of_row * compressed + overhead

    @property
    def count_bytes(self) -> float:
        """Returns the bytes of (token, count) that are shuffled at most: one pair a row, if tokens hardly repeat."""
        return sum(
            max(n, self.rows * min(n / PAIRS_PER_BUNDLE, 1)) * COUNT_BYTES[self.token_types[name]]
            for name, n in self.tokens.items()
        )

    @property
    def join_bytes(self) -> float:
        """Returns the bytes that joins shuffle at most: the rows with their tokens, a question and an answer a row."""
        if not self.joined:
            return 0
        # Tokens take the place of indices in the rows, and indices that of tokens in the answers.
        of_tokens = sum(2 * TOKEN_BYTES[self.token_types[name]] for name in self.joined)
        return self.rows * (self.payload_bytes + SHARD_NUMBER_BYTES + of_tokens)

    @property
    def shuffled_bytes(self) -> float:
        """Returns all bytes shuffled."""
        return self.row_bytes + self.count_bytes + self.join_bytes

    @property
    def shard_bytes(self) -> float:
        """Returns what each process needs while it writes shards."""
        return min(self.rows, self.rows_per_shard) * SHARD_BYTES_PER_ROW * SHARDS_AT_ONCE

    @property
    def vocabulary_bytes(self) -> float:
        """Returns the peak of the largest step on one worker: writing the largest vocabulary, or a range of it."""
        return max(
            (
                n * VOCABULARY_BYTES_PER_TOKEN[self.token_types[name]] / (JOIN_PARTITIONS if name in self.joined else 1)
                for name, n in self.tokens.items()
            ),
            default=0,
        )

    @property
    def table_bytes(self) -> float:
        """Returns the bytes of TensorFlow's lookup tables in each process that encodes."""
        return sum(
            n * TABLE_BYTES_PER_TOKEN[self.token_types[name]]
            for name, n in self.tokens.items()
            if name not in self.joined
        )

    @property
    def in_process_bytes(self) -> float:
        """Returns the peak of the whole job on one machine, on Beam's in-process runner."""
        # Rows are kept from the first pass to the second, with ids of 8 bytes instead of 4.
        first_pass = min(2 * self.rows * self.payload_bytes, KEPT_BYTES) + self.vocabulary_bytes
        # Messages to shards stay where they are and are not compressed.
        last_step = self.rows * self.payload_bytes + self.messages * MESSAGE_BYTES + self.shard_bytes
        joined = IN_PROCESS_COPIES * self.join_bytes
        return BASE_BYTES + self.table_bytes + joined + max(first_pass, last_step)

    @property
    def shared_cpu_seconds(self) -> float:
        """Returns the seconds of one core for the work that all workers share."""
        rows = self.rows * (
            CPU_SECONDS_PER_MILLION_ROWS
            + (CPU_SECONDS_PER_MILLION_TIMESTAMPS if self.has_timestamp else 0)
            + (CPU_SECONDS_PER_MILLION_ROWS_AGAIN if self.two_steps else 0)
            + CPU_SECONDS_PER_MILLION_ROWS_JOINED * len(self.joined)
        )
        return (rows + self.messages * CPU_SECONDS_PER_MILLION_MESSAGES) / 1e6

    @property
    def in_process_cpu_seconds(self) -> float:
        """Returns the seconds of one core for the whole command on one machine."""
        of_tokens = CPU_SECONDS_PER_MILLION_TOKENS + CPU_SECONDS_PER_MILLION_TOKENS_MERGED_AND_LOADED
        tokens = sum(self.tokens.values()) * of_tokens / 1e6
        return START_CPU_SECONDS + self.shared_cpu_seconds + tokens

    @property
    def lone_cpu_seconds(self) -> float:
        """Returns the seconds of one core for the last step of the largest vocabulary, which one worker does."""
        alone = (n for name, n in self.tokens.items() if name not in self.joined)
        return max(alone, default=0) * CPU_SECONDS_PER_MILLION_TOKENS / 1e6


@dataclass(frozen=True)
class DataflowCost:
    """Holds the cost of a batch job; `wall_seconds` leaves out the minutes in which workers start."""

    vcpu_hours: float
    shuffled_gib: float
    wall_seconds: float
    dollars: float


def dataflow_cost(size: Size, vcpus: int) -> DataflowCost:
    """Estimates a job in which all workers share the rows and each vocabulary's last step has a worker of its own."""
    wall = DATAFLOW_OVERHEAD * (size.shared_cpu_seconds / vcpus + size.lone_cpu_seconds)
    vcpu_hours = wall * vcpus / 3600
    shuffled = size.shuffled_bytes / GIB
    dollars = vcpu_hours * (VCPU_HOUR + MEMORY_GIB_PER_VCPU * MEMORY_GIB_HOUR) + shuffled * SHUFFLED_GIB
    return DataflowCost(vcpu_hours, shuffled, wall, dollars)


_WORKERS = (("n2-standard-4", 4, 16), ("n2-highmem-4", 4, 32), ("n2-highmem-8", 8, 64))


def worker_type(size: Size) -> str:
    """Returns the smallest machine whose memory holds the largest step, and tables and shards of each process."""
    return next((name for name, vcpus, gib in _WORKERS if _fits(size, vcpus, gib)), "n2-highmem-16")


def feature_to_join(size: Size) -> str | None:
    """Returns the feature with the largest vocabulary that is not joined, if no machine up to 64 GiB holds it."""
    alone = {name: n for name, n in size.tokens.items() if name not in size.joined}
    if not alone or any(_fits(replace(size, rows_per_shard=1), vcpus, gib) for _, vcpus, gib in _WORKERS):
        return None
    return max(alone, key=lambda name: alone[name])


def _fits(size: Size, vcpus: int, gib: int) -> bool:
    return vcpus * (BASE_BYTES + size.table_bytes + size.shard_bytes) + size.vocabulary_bytes < 0.8 * gib * GIB


def main() -> None:
    columns = [
        "rows",
        "ids",
        "rows a shard",
        "vCPU hours",
        "shuffled, GiB",
        "50 workers of 4",
        "200 workers",
        "dollars",
        "worker",
    ]
    print("|", " | ".join([*columns, "vocabulary step, GiB"]), "|")
    print("|---" * 10 + "|")
    for rows, ids, per_shard in (
        (10**8, 10**6, 10**6),
        (10**9, 10**7, 10**6),
        (10**10, 5 * 10**7, 10**7),
        (5 * 10**10, 10**8, 10**6),
        (5 * 10**10, 10**8, 10**7),
    ):
        size = Size(rows, {"user": ids * 9 // 10, "item": ids // 10}, {"user": "int64", "item": "int64"}, 12, per_shard)
        small, large = (dataflow_cost(size, 4 * workers) for workers in (50, 200))
        print(
            f"| {rows:,} | {ids:,} | {per_shard:,} | {large.vcpu_hours:,.1f} | {large.shuffled_gib:,.0f} "
            f"| {small.wall_seconds / 60:,.1f} min | {large.wall_seconds / 60:,.1f} min | {large.dollars:,.2f} "
            f"| {worker_type(size)} | {size.vocabulary_bytes / GIB:.1f} |"
        )


if __name__ == "__main__":
    main()
