"""Trains where only the trainer is installed: `python -m trainer --dataset DATASET --model_dir MODEL_DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipeline.manifest import DotbiasError, join
from trainer.config import TrainerConfig
from trainer.loop.interruption import Interrupted
from trainer.output.result import EXPORT_DIRECTORY
from trainer.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 0 done, 1 failed, 2 wrong configuration, 130 Ctrl-C, 143 SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Trains a model on a dataset.")
    parser.add_argument("--dataset", required=True, help="directory with manifest.json")
    parser.add_argument("--model_dir", required=True, help="directory for checkpoints, metrics and export")
    parser.add_argument("--config", help="local YAML file with a `trainer` section; defaults without it")
    flags = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("trainer.train").setLevel(logging.INFO)
    try:
        values = yaml.safe_load(Path(flags.config).read_text()) if flags.config else {}
        config = TrainerConfig.model_validate((values or {}).get("trainer") or {})
    except (ValidationError, yaml.YAMLError, OSError) as error:
        print(f"{flags.config}: {error}", file=sys.stderr)
        return 2
    try:
        result = train(flags.dataset, flags.model_dir, config, _EpochLog())
    except DotbiasError as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    for name, value in result["eval"].items():
        print(f"eval {name}: {'not defined' if value is None else f'{value:.4f}'}")
    print(f"export: {join(flags.model_dir, EXPORT_DIRECTORY)}")
    return 0


class _EpochLog:
    """Logs a line when an epoch, or a period of `trainer.evaluate_every_rows`, begins."""

    def __init__(self) -> None:
        self._last: tuple[str, str, float] | None = None

    def __call__(self, stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        unit = "period" if "period" in metrics else "epoch"
        now = (stage, unit, metrics[unit])
        if now != self._last:
            self._last = now
            logging.getLogger("trainer.train").info("%s: %s %d, %s of %s rows", *now, f"{done:,}", f"{total:,}")


if __name__ == "__main__":
    sys.exit(main())
