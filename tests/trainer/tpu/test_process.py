from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping

import pytest

from pipeline.manifest import DotbiasError, Progress
from trainer.loop.interruption import Interrupted, PendingSignals
from trainer.tpu.process import run_alone


def say_who(name: str, progress: Progress) -> tuple[str, int, str | None, bool]:
    logging.getLogger("trainer.train").info("Hello, %s.", name)
    progress("train", 1, 2, {"loss": 0.5})
    return name, os.getpid(), os.environ.get("TPU_LOAD_LIBRARY"), os.getpgid(0) == os.getpid()


def test_each_call_has_a_process_of_its_own_that_may_load_the_tpu(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, int, int | None, Mapping[str, float]]] = []
    before = os.environ.get("TPU_LOAD_LIBRARY")
    with caplog.at_level(logging.INFO, "trainer.train"):
        results = [run_alone(say_who, name, progress=lambda *call: told.append(call)) for name in ("one", "two")]
    names, processes, library, leads_its_group = zip(*results, strict=True)
    assert names == ("one", "two")
    assert len({*processes, os.getpid()}) == 3
    assert library == ("1", "1") and os.environ.get("TPU_LOAD_LIBRARY") == before != "1"
    # Ctrl-C in a terminal reaches the process that waits, and that one tells the other.
    assert all(leads_its_group)
    assert told == [("train", 1, 2, {"loss": 0.5})] * 2
    assert [record.getMessage() for record in caplog.records] == ["Hello, one.", "Hello, two."]


def fail(progress: Progress) -> None:
    raise DotbiasError("The loss is nan")


def die(progress: Progress) -> None:
    os._exit(3)


@pytest.mark.parametrize(("function", "message"), [(fail, "^The loss is nan$"), (die, "ended with code 3")])
def test_what_stops_the_process_is_said_here(function: object, message: str) -> None:
    with pytest.raises(DotbiasError, match=message):
        run_alone(function, progress=None)  # type: ignore[arg-type]


def wait_for_signal(progress: Progress) -> None:
    with PendingSignals() as signals:
        progress("train", 0, None, {})
        for _ in range(600):
            if signals.received:
                raise Interrupted(min(signals.received), "saved")
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_process_that_trains(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match="saved") as interrupted:
        run_alone(wait_for_signal, progress=lambda *_: os.kill(os.getpid(), number))
    assert interrupted.value.signal_number == number
