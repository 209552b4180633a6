"""`GroupMessages` groups messages by key, without copying them where one thread runs the whole job."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.typehints.typehints import KV, coerce_to_kv_type

from pipeline.beam.in_process import InProcess
from pipeline.beam.submission import runs_in_one_thread


class GroupMessages(beam.PTransform):
    """Does what `beam.GroupByKey` does for (key, message).

    The in-process runner encodes and decodes what it groups several times, and up to five copies exist at once. There,
    messages stay where they are and Beam groups their numbers.
    """

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        if not runs_in_one_thread(messages.pipeline.options):
            return messages | beam.GroupByKey()
        # The transform, and with it what no step has taken after a failure, lasts as long as its pipeline.
        self._kept = _Kept()
        key = coerce_to_kv_type(messages.element_type).tuple_types[0]
        return (
            messages
            | beam.Map(_keep, self._kept).with_output_types(KV[key, int])
            | beam.GroupByKey()
            | beam.Map(_take, self._kept).with_output_types(KV[key, Iterable[bytes]])
        )


class _Kept(InProcess):
    """Holds messages by number."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[int, bytes] = {}
        self.numbers = itertools.count()


def _keep(message: tuple[Any, bytes], kept: _Kept) -> tuple[Any, int]:
    number = next(kept.numbers)
    kept.messages[number] = message[1]
    return message[0], number


def _take(numbers: tuple[Any, Iterable[int]], kept: _Kept) -> tuple[Any, list[bytes]]:
    return numbers[0], [kept.messages.pop(number) for number in numbers[1]]
