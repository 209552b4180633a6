"""`GroupMessages` groups messages by key, without copying them where one thread runs the whole job."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import apache_beam as beam
from apache_beam.typehints.typehints import KV, coerce_to_kv_type

from pipeline.beam.submission import runs_in_one_thread


class GroupMessages(beam.PTransform):
    """Does what `beam.GroupByKey` does for (key, message).

    The in-process runner encodes and decodes what it groups several times, and up to five copies exist at once. There,
    messages stay where they are and Beam groups their numbers.
    """

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        if not runs_in_one_thread(messages.pipeline.options):
            return messages | beam.GroupByKey()
        # The transform, and with it what no step has taken after a failure, lives as long as its pipeline.
        self._kept = _Kept()
        key = coerce_to_kv_type(messages.element_type).tuple_types[0]
        return (
            messages
            | beam.Map(_keep, self._kept.name).with_output_types(KV[key, int])
            | beam.GroupByKey()
            | beam.Map(_take, self._kept.name).with_output_types(KV[key, Iterable[bytes]])
        )


class _Kept(dict[int, bytes]):
    """Holds messages by number. Steps find it by its name, because Beam sends them a copy of what they refer to."""

    by_name: ClassVar[WeakValueDictionary[int, _Kept]] = WeakValueDictionary()
    _names = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.name = next(self._names)
        self.by_name[self.name] = self
        self.numbers = itertools.count()


def _keep(message: tuple[Any, bytes], name: int) -> tuple[Any, int]:
    kept = _Kept.by_name[name]
    number = next(kept.numbers)
    kept[number] = message[1]
    return message[0], number


def _take(numbers: tuple[Any, Iterable[int]], name: int) -> tuple[Any, list[bytes]]:
    return numbers[0], [*map(_Kept.by_name[name].pop, numbers[1])]
