"""Builds the Beam graph that recommends items to all users, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dotbias.recommending.bigquery import load_lists
from dotbias.recommending.inputs import Side, load_items, read_block
from dotbias.recommending.results import (
    LISTS_DIRECTORY,
    RECOMMENDATIONS_NAME,
    Excluded,
    Format,
    Part,
    Recommendations,
    read_recommendations,
)
from dotbias.recommending.seen import SeenFile, read_pairs, unpack
from pipeline.manifest import DotbiasError, join
from pipeline.output.attempts import ATTEMPTS_DIRECTORY, delete_leftovers, temporary_directory
from pipeline.storage.files import read_file, write_file
from pipeline.storage.trees import delete_files, exists, file_sizes, move_files


@dataclass(frozen=True)
class Job:
    """Describes the job to the workers.

    Attributes:
        directory: where the recommendations are published.
        attempt: where the job writes; `tmp/` in it has the files of `inputs`.
        users, items: the users who get lists, and the items that can be listed.
        bias: b of the model.
        block: users of a part.
        k: items of a list.
        format: of the parts.
        seen, exclude: shards, and files that were named, whose pairs are not to be listed.
        project: which pays for loading `result.table`; None: its own.
        result: the description, without counts and parts.
    """

    directory: str
    attempt: str
    users: Side
    items: Side
    bias: float
    block: int
    k: int
    format: Format
    seen: tuple[SeenFile, ...]
    exclude: tuple[SeenFile, ...]
    project: str | None
    result: Recommendations

    @property
    def inputs(self) -> str:
        return temporary_directory(self.attempt)

    @property
    def finished(self) -> str:
        """Returns the directory with the description of each part that is written."""
        return finished_directory(self.attempt)

    @property
    def num_blocks(self) -> int:
        return -(-self.users.size // self.block)


def finished_directory(attempt: str) -> str:
    return join(temporary_directory(attempt), "finished")


def build(pipeline: beam.Pipeline, job: Job) -> beam.PCollection:
    """Build the graph; its last step publishes the recommendations."""
    files = [("seen", file) for file in job.seen] + [("exclude", file) for file in job.exclude]
    seen = (
        pipeline
        | "SeenFiles" >> beam.Create(files)
        | "SpreadFiles" >> beam.Reshuffle()
        | "ReadPairs" >> beam.ParDo(_ReadPairs(job)).with_outputs("counts", main="pairs")
    )
    # Users without a pair get a list as well.
    blocks = pipeline | "Blocks" >> beam.Create([(block, b"") for block in range(job.num_blocks)])
    parts = (
        (seen.pairs, blocks)
        | beam.Flatten()
        | "GatherBlocks" >> beam.GroupByKey()
        | "Recommend" >> beam.ParDo(_Recommend(job))
    )
    return (
        pipeline
        | "Once" >> beam.Create([None])
        | "Publish" >> beam.Map(_publish, job, beam.pvalue.AsList(seen.counts), beam.pvalue.AsList(parts))
    )


@beam.typehints.with_output_types(tuple[int, bytes])
class _ReadPairs(beam.DoFn):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def process(self, named: tuple[str, SeenFile]) -> Iterator[Any]:
        kind, file = named
        counts, messages = read_pairs(file, self._job.users, self._job.items, self._job.inputs, self._job.block)
        yield beam.pvalue.TaggedOutput("counts", (kind, counts))
        yield from messages


class _Recommend(beam.DoFn):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def process(self, gathered: tuple[int, Iterable[bytes]]) -> Iterator[Part]:
        block, messages = gathered
        job = self._job
        name = f"{LISTS_DIRECTORY}/part-{block:05d}-of-{job.num_blocks:05d}.{job.format}"
        finished = join(job.finished, f"{block:05d}.json")
        # From an earlier start of the same job in the same directory, which was killed.
        if exists(finished) and exists(join(job.attempt, name)):
            yield Part.model_validate_json(read_file(finished))
            return
        items, item_tokens = load_items(job.inputs)
        vectors, tokens = read_block(job.inputs, block)
        lists = items.best(vectors, job.bias, unpack(list(messages)), job.k)
        rank = np.arange(len(lists.users)) - np.repeat(np.cumsum(lists.lengths) - lists.lengths, lists.lengths) + 1
        rows = pa.table(
            {
                "user": tokens.take(pa.array(lists.users)),
                "rank": pa.array(rank, pa.int32()),
                "item": item_tokens.take(pa.array(lists.items)),
                "score": pa.array(lists.scores, pa.float32()),
            }
        )
        data = _serialized(rows, job.format)
        write_file(join(job.attempt, name), data, job.inputs)
        short = int((lists.lengths < job.k).sum())
        part = Part(path=name, users=len(vectors), short=short, rows=len(rows), bytes=len(data))
        write_file(finished, part.model_dump_json().encode(), job.inputs)
        yield part


def _serialized(rows: pa.Table, format: Format) -> bytes:
    sink = pa.BufferOutputStream()
    if format == "csv":
        pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    else:
        pyarrow.parquet.write_table(rows, sink)
    return bytes(sink.getvalue())


def _publish(_: None, job: Job, counts: list[tuple[str, Excluded]], parts: list[Part]) -> str:
    """Move the parts to their places and write the description; a retry goes on with what is left."""
    there = read_recommendations(job.directory)
    path = join(job.directory, RECOMMENDATIONS_NAME)
    if there is not None and there.fingerprint == job.result.fingerprint:
        return path
    total = {
        kind: Excluded(
            rows=sum(c.rows for name, c in counts if name == kind),
            used=sum(c.used for name, c in counts if name == kind),
        )
        for kind in ("seen", "exclude")
    }
    parts = sorted(parts, key=lambda part: part.path)
    made = job.result.model_copy(
        update={
            **total,
            "rows": sum(part.rows for part in parts),
            "short": sum(part.short for part in parts),
            "parts": parts,
        }
    )
    made.check(sum(file.rows or 0 for file in job.seen))
    if exists(path):
        # Without a description, a mixture of old and new parts does not look complete.
        delete_files([RECOMMENDATIONS_NAME], job.directory)
    move_files([part.path for part in parts], job.attempt, job.directory)
    found = {n: size for n, size in file_sizes(job.directory).items() if not n.startswith(f"{ATTEMPTS_DIRECTORY}/")}
    for part in parts:
        if found.pop(part.path, None) != part.bytes:
            raise DotbiasError(
                f"{join(job.directory, part.path)} is not the file that this job has written: something else deletes "
                "or replaces files there. Find out what it is, and rerun."
            )
    # Parts of an earlier request.
    delete_files(sorted(name for name in found if name.startswith(f"{LISTS_DIRECTORY}/")), job.directory)
    if made.table is not None:
        load_lists(made.table, join(job.directory, LISTS_DIRECTORY, f"*.{job.format}"), made.rows, job.project)
    write_file(path, (made.model_dump_json(indent=2) + "\n").encode(), job.inputs)
    delete_leftovers(job.attempt)
    return path
