"""Compares the model of a new run with the one in production on the same new rows.

    python examples/evaluate_production.py --config configs/mine.yaml --run_id 2026-11-24 \
        --production /models/dotbias/7 --input new.csv

Both are asked through their exports. The new rows should contain no row that one of them was trained on. Exits with 1
if the new model is clearly worse: the upper end of its interval of AUC is below the AUC of the production model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[1] / "run_pipeline.py")]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares a run's model with the one in production on new rows.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--run_id", required=True)
    parser.add_argument("--output_root", default="out")
    parser.add_argument("--production", required=True, help="the directory of the SavedModel that serves")
    parser.add_argument("--input", required=True, nargs="+", help="new files")
    options = parser.parse_args()

    stage = ["--stage", "evaluate", "--config", options.config, "--run_id", options.run_id]
    stage += ["--output_root", options.output_root, "--input", *options.input]
    subprocess.run([*COMMAND, *stage], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*COMMAND, *stage, "--export", options.production], check=True, stdout=subprocess.DEVNULL)

    run = Path(options.output_root) / "runs" / options.run_id
    new = evaluation_of(run, str(run / "model" / "export"))
    production = evaluation_of(run, options.production)
    print(f"{'':24}{'new':>10}{'production':>12}")
    for name in ("auc", "log-loss", "ece"):
        print(f"{name:24}{new['metrics'][name]['value']:10.4f}{production['metrics'][name]['value']:12.4f}")
    worse = bool(new["metrics"]["auc"]["high"] < production["metrics"]["auc"]["value"])
    print("The new model is clearly worse." if worse else "The new model is not clearly worse.")
    return int(worse)


def evaluation_of(run: Path, export: str) -> dict[str, Any]:
    """Reads the latest evaluation of an export on new files."""
    found = sorted((run / "evaluation").glob("input-*/evaluation.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        evaluation: dict[str, Any] = json.loads(path.read_text())
        if evaluation["subject"]["export"] == export:
            return evaluation
    raise FileNotFoundError(f"no evaluation of {export} in {run}/evaluation")


if __name__ == "__main__":
    sys.exit(main())
