"""Rehearses jobs of growing size: what `--stage plan` foresees beside what the command then takes.

    python benchmarks/preprocessing/rehearsal.py                              1 and 25 million rows, 3 GiB, 2 minutes
    python benchmarks/preprocessing/rehearsal.py --rows 100000000             9 GiB of memory, 3 GB of disk, 5 minutes
    python benchmarks/preprocessing/rehearsal.py --rows 5000000 --rows_per_user 1.5 --lookup join

The log has the columns of MovieLens, in files of five million rows, users and items by power laws. It is preprocessed
by the shipped command with `configs/movielens.yaml` and the in-process runner, as a process of its own; messages are
counted where the job unpacks them. Prints a table in Markdown; a ratio over 1 means that more was foreseen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import Measured, machine, python, run

ROWS_PER_FILE = 5_000_000
ITEMS = 59_047
# 1995 to 2023, as in the ratings of MovieLens.
FIRST, LAST = 789_652_009, 1_697_164_147


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 25_000_000])
    parser.add_argument("--rows_per_user", type=float, default=154, help="as in 25 million ratings of MovieLens")
    parser.add_argument("--lookup", default="table", help="of users: `table` or `join`")
    options = parser.parse_args()
    print(f"{machine()}; {options.rows_per_user:g} rows a user, lookup: {options.lookup}\n")
    print("| rows | what | foreseen | happened | ratio |\n|---|---|---|---|---|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as directory:
            log = f"{directory}/*.csv"
            _run("write", directory, str(rows), str(round(rows / options.rows_per_user)))
            foreseen = _run("plan", log, directory, options.lookup).said
            happened = _run("preprocess", log, directory, options.lookup)
        for what, planned, found in compare(foreseen, happened):
            print(f"| {rows:,} | {what} | {planned:,.4g} | {found:,.4g} | {planned / found:.2f} |", flush=True)


def _run(step: str, *arguments: str) -> Measured:
    return run(python("preprocessing/rehearsal.py", "--step", step, *arguments))


def compare(foreseen: dict[str, Any], happened: Measured) -> Iterator[tuple[str, float, float]]:
    """Yields (what, foreseen, happened)."""
    from pipeline.planning.sizing import GIB, Size

    size, said = Size(**foreseen["size"]), happened.said
    counts = said["manifest"]["counts"]
    yield "rows read", foreseen["rows_read"], counts["read"]
    yield "rows kept", size.rows, counts["train"] + counts["eval"]
    for name, tokens in size.tokens.items():
        yield f"tokens of {name}", tokens, said["manifest"]["features"][name]["vocabulary_size"]
    yield "shards", size.shards, sum(len(split["shards"]) for split in said["manifest"]["splits"].values())
    yield "messages", size.messages, said["messages"]
    if not size.joined:
        # What a join shuffles is not counted.
        yield "bytes shuffled, MiB", size.shuffled_bytes / 2**20, said["bytes"] / 2**20
    yield "CPU seconds of the command", size.in_process_cpu_seconds, happened.cpu_seconds
    yield "peak of its memory, GiB", size.in_process_bytes / GIB, happened.peak_gib


def write(directory: str, rows: str, users: str) -> None:
    """Writes the log; rare users and items have ids all over their range."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    draws = np.random.default_rng(42)

    def power_law(size: int, exponent: float) -> Callable[[int], Any]:
        ids = draws.permutation(size) + 1
        cumulative = np.cumsum((np.arange(size) + 1.0) ** -exponent)
        return lambda count: ids[np.searchsorted(cumulative / cumulative[-1], draws.random(count))]

    user, item = power_law(int(users), 0.5), power_law(ITEMS, 0.9)
    for number, start in enumerate(range(0, int(rows), ROWS_PER_FILE)):
        count = min(ROWS_PER_FILE, int(rows) - start)
        columns = {"userId": user(count), "movieId": item(count), "rating": draws.integers(1, 11, count) / 2}
        table = pa.table({**columns, "timestamp": draws.integers(FIRST, LAST, count)})
        pyarrow.csv.write_csv(table, f"{directory}/{number:03}.csv")
    print("{}")


def plan(log: str, directory: str, lookup: str) -> None:
    print(json.dumps(_command("plan", log, directory, lookup)))


def preprocess(log: str, directory: str, lookup: str) -> None:
    """Runs the command; counts the messages that shards and vocabularies unpack."""
    from pipeline.output import shards
    from pipeline.vocabulary import frequency

    counted: Counter[str] = Counter()
    lock = threading.Lock()
    gather, merge_in_turn = shards.gather, frequency.merge_in_turn

    def counting_gather(messages: list[bytes], schema: Any) -> Any:
        with lock:
            counted.update(messages=len(messages), bytes=sum(map(len, messages)))
        return gather(messages, schema)

    def counting_merge(batches: Iterable[Any]) -> Any:
        def each() -> Iterator[Any]:
            for batch in batches:
                with lock:
                    counted["bytes"] += batch.nbytes
                yield batch

        return merge_in_turn(each())

    shards.gather, frequency.merge_in_turn = counting_gather, counting_merge  # type: ignore[assignment]
    _command("preprocess", log, directory, lookup)
    (manifest,) = Path(directory).glob("runs/*/dataset/manifest.json")
    print(json.dumps({**counted, "manifest": json.loads(manifest.read_text())}))


def _command(stage: str, log: str, directory: str, lookup: str) -> dict[str, Any]:
    from dotbias.cli.main import main

    facts = f"{directory}/{stage}.json"
    chosen = ["--config", "movielens", "--set", f"pipeline.features.userId.lookup={lookup}"]
    if code := main([stage, *chosen, "--input", log, "--output_root", directory, "--json", facts]):
        sys.exit(code)
    said: dict[str, Any] = json.loads(Path(facts).read_text())
    return said


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        {"write": write, "plan": plan, "preprocess": preprocess}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
