"""Makes decisions and runs for tests, without a dataset or a model."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from dotbias.evaluation.results import Estimate
from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.decision import Decision, Measured
from dotbias.retraining.gate import Check


def estimate(value: float | None, half_width: float = 0.01) -> Estimate:
    if value is None:
        return Estimate(value=None)
    return Estimate(value=value, low=value - half_width, high=value + half_width)


def measured(auc: float | None, log_loss: float = 0.5, ndcg: float | None = None) -> Measured:
    return Measured(auc=estimate(auc), log_loss=estimate(log_loss), ndcg=estimate(ndcg))


def decision(run_id: str, outcome: str = "promoted", **changes: Any) -> Decision:
    day = datetime.date.fromisoformat(run_id)
    values: dict[str, Any] = {
        "run_id": run_id,
        "date": day,
        "outcome": outcome,
        "reasons": [] if outcome == "promoted" else ["failed: gain in auc"],
        "champion": (day - datetime.timedelta(days=1)).isoformat(),
        "version": int(day.strftime("%Y%m%d00")) if outcome == "promoted" else None,
        "train_rows": 1000,
        "eval_rows": 100,
        "oov": {"user": 0.125},
        "checks": [
            Check(name="gain in auc", value=-0.01, rule="at least", limit=-0.005, passed=outcome == "promoted"),
        ],
        "challenger_metrics": measured(0.75),
        "champion_metrics": measured(0.74),
        "gains": measured(0.01),
        "refit_gains": None,
        "warm_start": {},
    }
    return Decision.model_validate({**values, **changes})


def write_decision(root: Path, made: Decision) -> None:
    run = root / "runs" / made.run_id
    run.mkdir(parents=True, exist_ok=True)
    (run / "decision.json").write_text(made.to_json())


def enthrone(root: Path, champion: Champion) -> None:
    throne = Throne(str(root))
    assert throne.replace(throne.read()[1], champion)
