"""Reads all train rows, in batches, and does nothing with them. Arguments: reader, dataset, rows of a batch.

All but `arrow`, which decodes and permutes whole shards, are consumed inside of TensorFlow, as `fit` does. `memory` and
`disk` are `dotbias` with a cache of that kind, which holds all shards when the clock starts.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Enough passes that tracing, which happens once in a training, hardly counts.
EPOCHS = 4


def dotbias(dataset: str, batch_size: int, cache: str = "none") -> int:
    from trainer.config import TrainerConfig
    from trainer.data.cache import close_cache, open_cache
    from trainer.data.dataset import Dataset
    from trainer.data.reader import Shuffle, read_batches

    data = open_cache(Dataset.open(dataset, TrainerConfig()), cache, dataset)
    rows = consume(lambda: read_batches(data, "train", batch_size, shuffle=Shuffle(seed=42, epochs=EPOCHS)))
    close_cache(data)
    return rows


def memory(dataset: str, batch_size: int) -> int:
    return dotbias(dataset, batch_size, "memory")


def disk(dataset: str, batch_size: int) -> int:
    return dotbias(dataset, batch_size, "disk")


def usual(dataset: str, batch_size: int) -> int:
    from usual import usual_reader

    return consume(lambda: usual_reader(dataset, batch_size).repeat(EPOCHS))


def arrow(dataset: str, batch_size: int) -> int:
    """Reads whole shards in threads of Arrow and ISA-L, not in batches: the best possible speed without TensorFlow."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    from isal import igzip

    names = ["userId", "movieId", "label"]
    types = {"userId": pa.int32(), "movieId": pa.int32(), "label": pa.float32()}

    def decode(path: Path) -> int:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(igzip.decompress(path.read_bytes())),
            read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )
        order = np.random.default_rng(len(table)).permutation(len(table))
        return len(table.take(pa.array(order)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return timed(lambda: sum(pool.map(decode, sorted(Path(dataset, "train").iterdir()) * EPOCHS)))


def consume(make: object) -> int:
    import tensorflow as tf

    def count(rows: tf.Tensor, batch: object) -> tf.Tensor:
        return rows + tf.size(batch[1], tf.int64)

    return timed(lambda: int(make().reduce(tf.constant(0, tf.int64), count)))


def timed(read: object) -> int:
    """Prints the speed of the second of two readings: the first brings the files into memory."""
    read()
    began, cpu = time.perf_counter(), time.process_time()
    rows = read()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"rows_per_second": rows / seconds, "cpu_seconds_per_million": cpu / rows * 1e6, "rows": rows}))
    return rows


if __name__ == "__main__":
    readers = {reader.__name__: reader for reader in (dotbias, memory, disk, usual, arrow)}
    readers[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
