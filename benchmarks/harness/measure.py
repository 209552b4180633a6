"""Runs commands one after the other and measures each as a whole process."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# A benchmark is run from a checkout, which need not be installed.
sys.path.insert(0, str(ROOT))


class Measured(NamedTuple):
    """Holds `seconds` and `cpu_seconds` of a whole process, its peak memory, and the JSON of its last line.

    The kernel starts a process's peak at the memory of its parent, so this process has to stay small.
    """

    seconds: float
    cpu_seconds: float
    peak_gib: float
    said: dict[str, Any]


def run(command: Sequence[str]) -> Measured:
    """Runs a command that prints a JSON object as its last line; raises if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(command)} failed; run it alone to see why.")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, _gib(usage), json.loads(output.splitlines()[-1]))


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / script), *arguments]


def in_turn(commands: dict[str, list[str]], repeats: int) -> dict[str, list[Measured]]:
    """Runs all commands in turn, `repeats` times, so that a slow minute of the machine affects each of them."""
    results: dict[str, list[Measured]] = {name: [] for name in commands}
    for turn in range(repeats):
        for name, command in commands.items():
            measured = run(command)
            results[name].append(measured)
            print(f"# turn {turn + 1}: {name} {measured.seconds:.1f} s, {measured.peak_gib:.2f} GiB", file=sys.stderr)
    return results


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def machine() -> str:
    """Names the machine for the results."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def _gib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 2**20
