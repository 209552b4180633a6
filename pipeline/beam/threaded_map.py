"""Runs calls in threads while a DoFn passes on the results that are ready; for calls that release the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

P = ParamSpec("P")
R = TypeVar("R")


class ThreadedCalls(Generic[R]):
    """Runs calls in `threads` threads and returns results and errors in the order of the calls.

    At most `threads + 1` calls are running or have an unread result, which bounds the memory for arguments and results.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._pending: deque[Future[R]] = deque()
        self._limit = threads + 1

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        """Starts a call. The caller must read all results of the iterator before the next call."""
        self._pending.append(self._pool.submit(call, *args, **kwargs))
        return self._due()

    def _due(self) -> Iterator[R]:
        while len(self._pending) >= self._limit:
            yield self._pending.popleft().result()

    def drain(self) -> Iterator[R]:
        """Yields the remaining results and ends the threads."""
        while self._pending:
            yield self._pending.popleft().result()
        self._pool.shutdown()


class ThreadedFlatMap(beam.DoFn):
    """Does what `beam.FlatMap` does, in the global window, with the call in a thread while earlier results move on.

    Args:
        call: (element, *arguments, *side inputs) -> iterable of results.
        arguments: passed to each call.
    """

    def __init__(self, call: Callable[..., Iterable[Any]], *arguments: Any) -> None:
        super().__init__()
        self._call = call
        self._arguments = arguments

    def default_type_hints(self) -> None:
        """Returns no type hints: Beam would read `*side_inputs: Any` as one argument."""

    def start_bundle(self) -> None:
        self._calls: ThreadedCalls[list[Any]] = ThreadedCalls(1)

    def process(self, element: Any, *side_inputs: Any) -> Iterator[Any]:
        for results in self._calls.submit(self._results, element, *side_inputs):
            yield from results

    def finish_bundle(self) -> Iterator[Any]:
        for results in self._calls.drain():
            yield from map(GlobalWindows.windowed_value, results)

    def _results(self, element: Any, *side_inputs: Any) -> list[Any]:
        return list(self._call(element, *self._arguments, *side_inputs))
