from __future__ import annotations

import pickle
import threading
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam.in_process import InProcess
from pipeline.config import PipelineConfig
from pipeline.input import kept_batches, parsing
from pipeline.input.interactions import Interactions, some_rows
from pipeline.input.kept_batches import KeptBatches
from pipeline.input.sources import ReadInteractions, Source, describe_input, keep_batches
from pipeline.manifest import InputFile
from pipeline.preprocess import preprocess
from tests.pipeline.preprocessing import FN_API_RUNNER, HEADER, config, make, ratings

ROWS = pa.record_batch({"userId": pa.array(range(1000), pa.int64())})


class Read(InProcess):
    """Holds the batches of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Interactions] = []

    @staticmethod
    def add(batch: Interactions, read: Read) -> None:
        read.batches.append(batch)


def test_batches_are_kept_until_their_rows_have_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_batches, "KEPT_BYTES", 2 * ROWS.nbytes + 1)
    kept = KeptBatches([])
    batches = [Interactions(0, number, ROWS, {}) for number in range(3)]
    rejected = Interactions(0, 3, ROWS[:0], {"empty": some_rows([], 1)})
    assert [kept.add(batch.offset, batch) for batch in [rejected, *batches]] == [True, True, True, False]
    assert [kept.get(place) for place in range(4)] == [*batches[:2], None, None]
    assert [kept.take(place) for place in (1, 1)] == [batches[1], None]


def test_steps_in_this_process_have_the_object_of_the_launcher() -> None:
    kept = KeptBatches([])
    sent = pickle.dumps(kept)
    assert pickle.loads(sent) is kept
    del kept
    with pytest.raises(KeyError):
        pickle.loads(sent)
    assert InProcess() is not InProcess()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Lists the blocks that are parsed."""
    blocks: list[bytes] = []
    parse = parsing._parse_at_once

    def counting(data: bytes, form: parsing.CsvFormat) -> pa.RecordBatch | None:
        blocks.append(data)
        return parse(data, form)

    monkeypatch.setattr(parsing, "_parse_at_once", counting)
    return blocks


@pytest.fixture
def options(tmp_path: Path) -> PipelineConfig:
    """Names a log of three files, each a block of 28,000 bytes of rows."""
    paths = [tmp_path / f"{number}.csv" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text(HEADER + "".join(ratings(1000, seed=number)))
    return config(paths)


@pytest.mark.parametrize(("kept_bytes", "parsed_again"), [(84_000, 0), (60_000, 1), (0, 3)])
def test_a_pass_parses_what_the_one_before_did_not_keep(
    kept_bytes: int, parsed_again: int, options: PipelineConfig, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_batches, "KEPT_BYTES", kept_bytes)
    files = describe_input(options, None)
    kept, passes = KeptBatches(files), []
    for name in ("cut", "analyze", "transform"):
        read = Read()
        with beam.Pipeline(options=PipelineOptions([FN_API_RUNNER])) as pipeline:
            _ = pipeline | ReadInteractions(Source(files, files, kept=kept), options, name) | beam.Map(Read.add, read)
        passes.append(sorted((batch.file, batch.offset, str(batch.rows.to_pydict())) for batch in read.batches))
    assert len(passes[0]) == 3
    assert passes[0] == passes[1] == passes[2]
    assert len(parsed) == 3 + 2 * parsed_again
    assert len(set(parsed)) == 3


@pytest.mark.parametrize(
    ("flags", "num_parsed"), [([], 3), (["--direct_running_mode=multi_threading"], 6)], ids=["one thread", "others"]
)
def test_a_job_keeps_batches_where_one_thread_runs_it(
    flags: list[str], num_parsed: int, options: PipelineConfig, parsed: list[bytes], tmp_path: Path
) -> None:
    make(tmp_path / "dataset", options, *flags)
    assert len(parsed) == num_parsed


def read_ahead(files: list[InputFile], options: PipelineConfig) -> KeptBatches:
    kept = KeptBatches(files)
    before = set(threading.enumerate())
    kept.read_ahead(options)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    return kept


def test_a_job_asks_for_what_was_read_ahead(options: PipelineConfig, parsed: list[bytes], tmp_path: Path) -> None:
    kept = read_ahead(describe_input(options, None), options)
    assert len(parsed) == 3
    preprocess(str(tmp_path / "dataset"), options, [FN_API_RUNNER], kept=kept)
    assert len(parsed) == 3


def test_reading_ahead_ends_where_there_is_no_more_room_or_the_job_reads(
    options: PipelineConfig, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = describe_input(options, None)
    with monkeypatch.context() as patch:
        patch.setattr(kept_batches, "KEPT_BYTES", 30_000)
        read_ahead(files, options)
        assert len(parsed) == 2
    kept = KeptBatches(files)
    kept.get("the first block")
    kept._read(options)
    assert len(parsed) == 2


def test_nothing_is_read_ahead_where_counts_are_kept_and_mistakes_are_left_to_the_job(
    options: PipelineConfig, parsed: list[bytes]
) -> None:
    files = describe_input(options, None)
    read_ahead(files, options.model_copy(update={"counts_cache": "counts"}))
    Path(files[0].path).write_text("a,b\n1,2\n")
    read_ahead(describe_input(options, None), options)
    assert not parsed


def test_what_was_read_ahead_counts_only_if_the_log_has_not_changed(options: PipelineConfig) -> None:
    files = describe_input(options, None)
    kept, beam_options = KeptBatches(files), PipelineOptions([FN_API_RUNNER])
    assert keep_batches(Source(files, files), beam_options, kept).kept is kept
    with open(options.input.patterns[0], "a") as file:
        file.write("1,2,3.0,4\n")
    changed = describe_input(options, None)
    assert keep_batches(Source(changed, changed), beam_options, kept).kept is not kept
    assert keep_batches(Source(files, files), PipelineOptions(["--runner=PrismRunner"]), kept).kept is None
