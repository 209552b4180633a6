"""Work that goes on in threads while a DoFn hands on what is ready: for calls that release the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

P = ParamSpec("P")
R = TypeVar("R")


class Ahead(Generic[R]):
    """Calls run in `threads` threads; their results come in the order of the calls, errors too.

    At most `threads + 1` calls are unfinished or unclaimed, which bounds the memory that their arguments and results
    take.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._pending: deque[Future[R]] = deque()
        self._limit = threads + 1

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        """Begins a call; the results that the iterator has are to be claimed before the next."""
        self._pending.append(self._pool.submit(call, *args, **kwargs))
        return self._due()

    def _due(self) -> Iterator[R]:
        while len(self._pending) >= self._limit:
            yield self._pending.popleft().result()

    def drain(self) -> Iterator[R]:
        """Yields all that is left, and ends the threads."""
        while self._pending:
            yield self._pending.popleft().result()
        self._pool.shutdown()


class FlatMapAhead(beam.DoFn):
    """As `beam.FlatMap` does, in the global window, but a thread makes each element's results while those before go on.

    Args:
        call: (element, *arguments, *side inputs) -> iterable of results.
        arguments: the same for each element.
    """

    def __init__(self, call: Callable[..., Iterable[Any]], *arguments: Any) -> None:
        super().__init__()
        self._call = call
        self._arguments = arguments

    def default_type_hints(self) -> None:
        """None: Beam would take `*side_inputs: Any` for one argument of a type of its own."""

    def start_bundle(self) -> None:
        self._ahead: Ahead[list[Any]] = Ahead(1)

    def process(self, element: Any, *side_inputs: Any) -> Iterator[Any]:
        for results in self._ahead.submit(self._results, element, *side_inputs):
            yield from results

    def finish_bundle(self) -> Iterator[Any]:
        for results in self._ahead.drain():
            yield from map(GlobalWindows.windowed_value, results)

    def _results(self, element: Any, *side_inputs: Any) -> list[Any]:
        return list(self._call(element, *self._arguments, *side_inputs))
