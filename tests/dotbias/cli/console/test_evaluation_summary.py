"""Checks the text of an evaluation."""

from __future__ import annotations

from dotbias.cli.console.evaluation_summary import evaluation_summary, verdict_lines
from dotbias.evaluation.results import (
    Baseline,
    Curve,
    Estimate,
    Evaluation,
    EvaluationWarning,
    Ranker,
    Ranking,
    RankingAtK,
    Sample,
    Slice,
)
from dotbias.evaluation.verdict import verdict
from tests.dotbias.evaluation.contents import evaluation, ranking, subject, warning

SURE, UNSURE, NONE = Estimate(value=0.8, low=0.75, high=0.85), Estimate(value=0.6), Estimate(value=None)


def a_slice(kind: str, value: str, auc: Estimate, note: str = "") -> Slice:
    return Slice(
        kind=kind,
        value=value,
        rows=1234,
        positives=5,
        users=7,
        prediction_mean=0.5,
        label_mean=0.4,
        auc=auc,
        log_loss=SURE,
        note=note,
    )


def ranker(name: str) -> Ranker:
    at = RankingAtK(k=10, recall=SURE, ndcg=UNSURE, coverage=0.25, popularity=0.9)
    return Ranker(name=name, at=[at], mrr=SURE)  # type: ignore[arg-type]


EVALUATION = Evaluation(
    fingerprint="f",
    subject=subject(
        export="out/export",
        rows=10_000,
        positives=2500,
        users=300,
        rejected=3,
        rejected_by_reason={"userId: empty": 3},
        resamples=1000,
    ),
    metrics={"auc": SURE, "log-loss": UNSURE, "pr-auc": NONE},
    calibration=[],
    roc=Curve(x=[], y=[]),
    pr=Curve(x=[], y=[]),
    slices=[
        a_slice("userId: warm or cold", "warm", SURE),
        a_slice("userId: warm or cold", "cold", NONE, "fewer than 50 rows"),
        a_slice("movieId: popularity decile", "1", SURE),
        a_slice("movieId: popularity decile", "2", UNSURE),
    ],
    baselines=[
        Baseline(name="biases alone", auc=SURE, log_loss=SURE, auc_gain=Estimate(value=-0.01), log_loss_gain=SURE)
    ],
    ranking=Ranking(
        users=10_000,
        eligible=20_000,
        items=500,
        relevant=9,
        unrankable=1,
        relevant_popularity=0.5,
        rankers=[ranker("model"), ranker("popularity")],
    ),
    warnings=[EvaluationWarning(code="one-class", text="word " * 40)],
    versions={},
)


def test_everything() -> None:
    text = evaluation_summary(EVALUATION, "out/runs/a/evaluation/eval", 12.34, "out/runs/a/report.html")
    for lines in (
        "Evaluated   out/export\n            on 10,000 eval rows: 300 users, 25.0% positive",
        "            3 rejected: userId: empty",
        "Metrics     auc              0.8000  (0.7500 to 0.8500)\n            log-loss         0.6000\n",
        "            pr-auc           \N{EN DASH}\n            with 95% intervals from 1,000 resamples of users",
        "Gain        over biases alone  auc       -0.0100\n",
        "log-loss  +0.8000  (+0.7500 to +0.8500)",
        "Slices      userId: warm or cold: warm           1,234 rows  auc 0.8000  (0.7500 to 0.8500)\n",
        "            userId: warm or cold: cold           1,234 rows  fewer than 50 rows\n",
        # Of other kinds the lowest alone.
        "            movieId: popularity decile: 2        1,234 rows  auc 0.6000\n",
        "10,000 users, a random sample of 20,000, each all of 500 items but those seen in train",
        "            recall@10        0.8000  (0.7500 to 0.8500)  0.8000\n",
        "            coverage@10      0.2500                      0.2500\n",
        "compared with positive or not; training compares with the label",
        "Verdict     These numbers cannot decide\n            Word word",
        "Seconds     evaluate 12.3",
        "Files       all     out/runs/a/evaluation/eval/evaluation.json",
        "            report  out/runs/a/report.html\n",
    ):
        assert lines in text, text
    assert "decile: 1" not in text
    # A warning that decides is told once.
    assert text.count("ord") == 40
    assert max(map(len, text.splitlines())) <= 120
    assert text.endswith("\n")


def test_the_model_before_the_refit() -> None:
    refitted = EVALUATION.model_copy(update={"subject": subject(before_refit=True)})
    assert "            before the refit; the served model was" in evaluation_summary(refitted, "x", None, None)


def test_a_sample_of_the_users() -> None:
    sample = Sample(share=0.25, seed=42, rows=4000, users=800)
    sampled = evaluation(subject=subject(sample=sample))
    said = "a random sample: 200 of 800 users, with all their rows, 1,000 of 4,000"
    assert f"            {said}\n" in evaluation_summary(sampled, "x", None, None)
    assert _lines(sampled)[-1] == f"on {said}"


def _lines(measured: Evaluation) -> list[str]:
    return verdict_lines(verdict(measured), measured)


def test_the_verdict_at_the_end_of_a_run() -> None:
    assert _lines(evaluation(subject=subject(before_refit=True))) == [
        "Ready to ship",
        "auc 0.8000  (0.7900 to 0.8100), of the model before the refit",
        "auc +0.0300  (+0.0200 to +0.0400) over biases alone",
    ]
    doubtful = _lines(evaluation(warnings=[warning(text="word " * 40)], baselines=[]))
    assert doubtful[:2] == ["Look before you ship", "auc 0.8000  (0.7900 to 0.8100), of the export"]
    assert " ".join(doubtful[2:]).count("ord") == 40 and max(map(len, doubtful)) <= 108
    undefined = {**evaluation().metrics, "auc": Estimate(value=None)}
    assert _lines(evaluation(metrics=undefined))[:2] == ["Do not ship", "auc \N{EN DASH}, of the export"]


def test_what_was_there_already() -> None:
    text = evaluation_summary(EVALUATION.model_copy(update={"ranking": None}), "x", None, None)
    assert text.startswith("Skipped     evaluate: already done by an earlier start\n")
    assert "Ranking" not in text and "Seconds" not in text and "report" not in text


def test_a_model_that_makes_lists() -> None:
    lists = ranking(0.1, 0.05, other_export=0.08, fold_in=0.09)
    text = evaluation_summary(evaluation(subject=subject(objective="softmax"), ranking=lists), "x", 1.0, None)
    for lines in (
        "model                       most popular first  other export  users by their items alone\n",
        "            ndcg@10          0.1000  (0.0900 to 0.1100)  0.0500              0.0800        0.0900\n",
        "            novelty@10       7.5000                      7.5000              7.5000        7.5000\n",
        "            ndcg@10 +0.0500  (+0.0400 to +0.0600) over most popular first\n",
        "Slices      userId: train rows: 5-9         30 users  recall@20 0.2000  (0.1900 to 0.2100)",
    ):
        assert lines in text, text
    assert "Metrics" not in text and max(map(len, text.splitlines())) <= 120
