"""Preprocesses as a first attempt in Beam does: a row is an element, the vocabulary is a side input.

Arguments: log, directory, threshold.
"""

import json
import random
import sys
import time

import apache_beam as beam

log, directory, threshold = sys.argv[1], sys.argv[2], int(sys.argv[3])


def encode(row, users, movies):
    return f"{users.get(row[0], len(users))},{movies.get(row[1], len(movies))},{row[2]}"


def vocabulary(rows, column):
    return (
        rows
        | f"Token{column}" >> beam.Map(lambda row: (row[column], 1))
        | f"Count{column}" >> beam.CombinePerKey(sum)
        | f"Keep{column}" >> beam.Filter(lambda counted: counted[1] >= threshold)
        | f"List{column}" >> beam.combiners.ToList()
        | f"Index{column}"
        >> beam.Map(lambda counted: {t: i for i, (t, _) in enumerate(sorted(counted, key=lambda c: (-c[1], c[0])))})
    )


begin = time.perf_counter()
with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
    rows = (
        pipeline
        | beam.io.ReadFromText(log, skip_header_lines=1)
        | beam.Map(lambda line: line.split(","))
        | beam.Reshuffle()
    )
    split = rows | beam.Partition(lambda row, _: int(random.random() < 0.1), 2)
    users, movies = (beam.pvalue.AsSingleton(vocabulary(split[0], column)) for column in (0, 1))
    for name, part in zip(("train", "eval"), split, strict=True):
        encoded = part | f"Encode{name}" >> beam.Map(encode, users, movies)
        _ = encoded | f"Write{name}" >> beam.io.WriteToText(f"{directory}/{name}", file_name_suffix=".csv.gz")
print(json.dumps({"seconds": time.perf_counter() - begin}))
