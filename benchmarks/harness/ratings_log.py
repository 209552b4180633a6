"""Writes a log with the columns of MovieLens: turns the clicks of a generated log into ratings with timestamps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

# 1995 to 2023, as in ml-25m and later; most of the numbers occur once or twice.
_FIRST, _LAST = 789_652_009, 1_697_164_147


def write_ratings(clicks: Path, path: Path) -> Path:
    """Gives a click a rating of 4.0 to 5.0, and other rows one of 0.5 to 3.5, each with a random timestamp."""
    random = np.random.default_rng(42)
    names = ["userId", "movieId", "rating", "timestamp"]
    with pyarrow.csv.open_csv(clicks) as rows, path.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        for batch in rows:
            steps = np.where(batch["clicked"].to_numpy() > 0, random.integers(8, 11, len(batch)), 0)
            steps = np.where(steps > 0, steps, random.integers(1, 8, len(batch)))
            columns = [batch["userId"], batch["movieId"], pa.array(steps / 2)]
            columns.append(pa.array(random.integers(_FIRST, _LAST, len(batch))))
            options = pyarrow.csv.WriteOptions(include_header=False)
            pyarrow.csv.write_csv(pa.Table.from_arrays(columns, names), file, options)
    return path
