import gc

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from apache_beam.testing.util import assert_that, equal_to

from pipeline.beam.grouping import GroupMessages, _Kept
from pipeline.beam.in_process import InProcess
from pipeline.beam.submission import runs_in_one_thread

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
IN_ONE_THREAD = [RUNNER]
REPEATED = [RUNNER, "--direct_runner_bundle_repeat=1"]
IN_THREADS = [RUNNER, "--direct_running_mode=multi_threading"]
IN_PROCESSES = [RUNNER, "--direct_running_mode=multi_processing"]
MESSAGE_BYTES = 1 << 20


def message(number: int) -> bytes:
    return b"%d" % number + bytes(MESSAGE_BYTES)


def number(message: bytes) -> int:
    return int(message.rstrip(b"\0"))


def grouped_messages(pipeline: beam.Pipeline) -> beam.PCollection:
    """Groups six messages by two keys."""
    numbers = pipeline | beam.Create(range(6))
    messages = numbers | beam.Map(lambda n: (n % 2, message(n))).with_output_types(tuple[int, bytes])
    return messages | GroupMessages()


def all_kept() -> list[_Kept]:
    gc.collect()
    return [kept for kept in InProcess._by_name.values() if isinstance(kept, _Kept)]


@pytest.mark.parametrize(
    ("arguments", "least_bytes", "most_bytes"),
    [(IN_ONE_THREAD, 0, 1000), (IN_THREADS, 6 * MESSAGE_BYTES, 7 * MESSAGE_BYTES)],
)
def test_in_one_thread_the_runner_groups_numbers_instead_of_messages(arguments, least_bytes, most_bytes, monkeypatch):
    appended, append = [], GroupingBuffer.append

    def counting(buffer, data):
        appended.append(len(data))
        append(buffer, data)

    monkeypatch.setattr(GroupingBuffer, "append", counting)
    with beam.Pipeline(options=PipelineOptions(arguments)) as pipeline:
        numbers = grouped_messages(pipeline) | beam.MapTuple(lambda key, messages: (key, sorted(map(number, messages))))
        assert_that(numbers, equal_to([(0, [0, 2, 4]), (1, [1, 3, 5])]))
    assert least_bytes <= sum(appended) <= most_bytes
    assert not any(kept.messages for kept in all_kept()), "a message stays in memory"


def test_kept_messages_end_with_their_pipeline():
    before = len(all_kept())
    pipeline = beam.Pipeline(options=PipelineOptions(IN_ONE_THREAD))
    grouped_messages(pipeline)
    assert len(all_kept()) == before + 1
    del pipeline
    assert len(all_kept()) == before


@pytest.mark.parametrize(
    "arguments", [REPEATED, IN_THREADS, IN_PROCESSES, ["--runner=PrismRunner"], ["--runner=DataflowRunner"]]
)
def test_other_workers_share_no_memory_or_repeat_their_steps(arguments):
    assert runs_in_one_thread(PipelineOptions(IN_ONE_THREAD))
    assert not runs_in_one_thread(PipelineOptions(arguments))
