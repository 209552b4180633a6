from __future__ import annotations

import threading

import pytest

from pipeline.beam.threaded_map import ThreadedCalls


def run(calls: int, threads: int, call: object) -> list[int]:
    threaded: ThreadedCalls[int] = ThreadedCalls(threads)
    results = [result for number in range(calls) for result in threaded.submit(call, number)]  # type: ignore[arg-type]
    return [*results, *threaded.drain()]


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_calls(calls: int, threads: int) -> None:
    # The first call ends last.
    released = threading.Event()

    def square(number: int) -> int:
        if number == 0 and calls > threads > 1:
            released.wait(10)
        elif number == 1:
            released.set()
        return number * number

    assert run(calls, threads, square) == [number * number for number in range(calls)]


def test_no_more_calls_are_begun_than_are_claimed() -> None:
    begun = []
    threaded: ThreadedCalls[int] = ThreadedCalls(2)
    for number in range(10):
        claimed = number - 2 if number >= 2 else None
        # Nobody waits for a result that is not due.
        assert list(threaded.submit(lambda number=number: begun.append(number) or number)) == (
            [] if claimed is None else [claimed]
        )
        assert len(begun) <= number + 1
    assert list(threaded.drain()) == [8, 9]


def test_errors_come_in_their_turn() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        run(10, 2, fail_at_two)
