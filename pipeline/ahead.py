"""Work that goes on in threads while a DoFn hands on what is ready: for calls that release the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

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
