"""Makes `report.html`: one page about a run, without network or other files, for people who decide about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
import yaml
from markupsafe import Markup
from pydantic import ValidationError

from dotbias.evaluation.exported.embeddings import Embedding, read_embeddings
from dotbias.evaluation.formats import interval, number, of_sample, percent, signed
from dotbias.evaluation.report.page import (
    Cell,
    Section,
    bullets,
    card,
    code,
    folded,
    folded_when_narrow,
    joined,
    page,
    paragraph,
    table,
    with_code,
)
from dotbias.evaluation.report.sections.calibration import calibration_section
from dotbias.evaluation.report.sections.data import data_section
from dotbias.evaluation.report.sections.embeddings import embeddings_section
from dotbias.evaluation.report.sections.quality import quality_section
from dotbias.evaluation.report.sections.ranking import ranking_section
from dotbias.evaluation.report.sections.slices import slices_section
from dotbias.evaluation.report.sections.training import training_section
from dotbias.evaluation.request import training_of
from dotbias.evaluation.results import WARNING_TITLES, Evaluation, Ranking, Verdict
from dotbias.evaluation.verdict import ECE_LIMIT, biases_alone, sentence, verdict
from pipeline.manifest import DatasetManifest, join, read_manifest
from trainer.config import TrainerConfig
from trainer.data.files import write_text

# Reasons that the verdict shows; the others are folded.
_REASONS = 3
# Titles of the metrics that training measures without labels.
_LIST_METRICS = {"NDCG@20": "ndcg@20", "Recall@20": "recall@20"}


@dataclass(frozen=True)
class RunContents:
    """Holds what a report shows: `metrics` from metrics.json, empty if there is none; `titles` by token, by feature."""

    run: str
    manifest: DatasetManifest
    metrics: Mapping[str, Any]
    embeddings: Mapping[str, Embedding]
    evaluation: Evaluation | None = None
    titles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write_run_page(
    path: str, run: str, export: str, evaluation: Evaluation | None, titles: Mapping[str, Mapping[str, str]]
) -> None:
    """Writes the page of a run.

    Args:
        path: file to write.
        run: directory of the run, which holds the dataset.
        export: directory of the model; `metrics.json` of its training is expected beside it.
        evaluation: evaluation of the export, None if there is none.
        titles: title by token, by feature.
    """
    dataset = join(run, "dataset")
    metrics = training_of(export) or {}
    contents = RunContents(
        run=run.rstrip("/").rpartition("/")[2],
        manifest=read_manifest(dataset, tf.io.gfile.GFile),
        metrics=metrics,
        embeddings=read_embeddings(dataset, export, _trainer_config(metrics)),
        evaluation=evaluation,
        titles=titles,
    )
    write_text(path, run_page(contents))


def _trainer_config(metrics: Mapping[str, Any]) -> TrainerConfig:
    try:
        return TrainerConfig.model_validate(metrics["config"])
    except (KeyError, ValidationError):
        # The export was copied without its metrics.json, or another version has trained it.
        return TrainerConfig()


def run_page(contents: RunContents) -> str:
    """Renders the page as HTML."""
    evaluation = contents.evaluation
    decided = verdict(evaluation, _auc_on_eval(contents))
    summary = joined(
        [paragraph(_subject(contents), "soft"), _verdict(decided, evaluation), _cards(contents, decided.decides)]
    )
    sections = [Section("warnings", "Warnings", _warnings(evaluation))]
    if evaluation is None:
        sections.append(Section("quality", "Quality", _unevaluated(contents.metrics)))
    else:
        subject = evaluation.subject
        of_labels = [] if subject.implicit else _sections_of_labels(contents, evaluation)
        lists = [] if evaluation.ranking is None else [_section_of_lists(evaluation.ranking, subject.makes_lists)]
        sections += [*lists, *of_labels] if subject.makes_lists else [*of_labels, *lists]
    sections += [
        Section("training", "Training", training_section(contents.metrics)),
        Section("data", "Data", data_section(contents.manifest, contents.embeddings)),
        Section("embeddings", "Embeddings", embeddings_section(contents.embeddings, contents.titles)),
        Section("configuration", "Configuration", _configuration(contents)),
    ]
    return page(f"Run {contents.run}", summary, sections, "Written by Dotbias. The page needs no network.")


def _sections_of_labels(contents: RunContents, evaluation: Evaluation) -> list[Section]:
    return [
        Section("quality", "Quality", quality_section(evaluation)),
        Section("calibration", "Calibration", calibration_section(evaluation, _fitted_here(contents))),
        Section("slices", "Slices", slices_section(evaluation)),
    ]


def _section_of_lists(ranking: Ranking, makes_lists: bool) -> Section:
    return Section("ranking", "Ranking", ranking_section(ranking, makes_lists=makes_lists))


def _subject(contents: RunContents) -> str:
    evaluation, manifest = contents.evaluation, contents.manifest
    if evaluation is None:
        return f"A model trained on {manifest.splits['train'].rows:,} rows."
    subject = evaluation.subject
    of = ", ".join(file.path for file in subject.files[:3]) if subject.split is None else f"the {subject.split} split"
    more = f" and {len(subject.files) - 3:,} more files" if len(subject.files) > 3 else ""
    model = f"The model before the refit, {subject.export}," if subject.before_refit else f"The model {subject.export}"
    sampled = of_sample(subject)
    return f"{model} on {subject.rows:,} rows of {of}{more}{f' ({sampled})' if sampled else ''}."


def _auc_on_eval(contents: RunContents) -> float | None:
    return (contents.metrics.get("eval") or {}).get("auc")


def _verdict(decided: Verdict, evaluation: Evaluation | None) -> Markup:
    """Shows the reasons, and strengths and use folded behind them; a warning is a link to its full text below."""
    titles = {} if evaluation is None else {sentence(w.text): WARNING_TITLES[w.code] for w in evaluation.warnings}
    link = Markup('{} <a href="#warnings">Details</a>')
    reasons: list[Cell] = [
        link.format(titles[reason]) if reason in titles else with_code(reason) for reason in decided.reasons
    ]
    parts = [bullets(reasons[:_REASONS])] if reasons else []
    if reasons[_REASONS:]:
        parts.append(folded(f"{len(reasons) - _REASONS} more reasons", bullets(reasons[_REASONS:])))
    strengths = [*([bullets(map(with_code, decided.strengths))] if decided.strengths else [])]
    strengths += [paragraph(with_code(text)) for text in (decided.use, decided.about) if text]
    if strengths:
        title = "What the numbers show" if decided.kind == "go" else "What speaks for the model, and what was measured"
        parts.append(folded_when_narrow(title, joined(strengths)))
    return Markup('<div class="verdict {}"><h2>{}</h2>{}</div>').format(decided.kind, decided.headline, joined(parts))


def _cards(contents: RunContents, decide: bool) -> Markup:
    """Shows the main numbers; they are coloured only where they decide."""
    evaluation = contents.evaluation
    makes_lists = evaluation is not None and evaluation.subject.makes_lists
    if makes_lists or contents.manifest.label.column is None:
        return _cards_of_lists(contents)
    if evaluation is None:
        note = "on the eval split, measured in training; 0.5 is chance, 1 is perfect"
        return Markup('<div class="cards">{}</div>').format(card("AUC", number(_auc_on_eval(contents), 3), note))

    def kind(good: bool) -> str:
        return ("go" if good else "look") if decide else ""

    metrics, biases = evaluation.metrics, biases_alone(evaluation)
    auc, ece = metrics["auc"], metrics["ece"]
    chance = "0.5 is chance, 1 is perfect"
    cards = [card("AUC", number(auc.value, 3), f"{interval(auc, 3)}; {chance}" if interval(auc) else chance)]
    if biases is not None:
        gain, saved = biases.auc_gain, biases.log_loss_gain.value
        log_loss = biases.log_loss.value
        note = interval(gain, 3)
        if saved is not None and log_loss:
            note += f"{'; ' if note else ''}log loss {percent(saved / log_loss)} lower"
        sure = gain.value is not None and (gain.value if gain.low is None else gain.low) > 0
        cards.append(card("AUC gain over biases alone", signed(gain.value, 3), note, kind(sure)))
    if ece.value is not None:
        means = (
            f"predicted {percent(metrics['prediction_mean'].value)}, positive {percent(metrics['label_mean'].value)}"
        )
        cards.append(
            card("Calibration error", percent(ece.value), f"on average; {means}", kind(ece.value <= ECE_LIMIT))
        )
    count = len(evaluation.warnings)
    linked = Markup('<a href="#warnings">see Warnings</a>') if count else "all checks passed"
    cards.append(card("Warnings", f"{count}", linked, "look" if count else "go"))
    return Markup('<div class="cards">{}</div>').format(joined(cards))


def _cards_of_lists(contents: RunContents) -> Markup:
    """Shows the main numbers of a model that was trained without labels."""
    note = "of all items, for eval users; 1 is perfect"
    if contents.evaluation is None or contents.evaluation.ranking is None:
        measured = contents.metrics.get("eval") or {}
        cards = [card(name, number(measured.get(key), 3), note) for name, key in _LIST_METRICS.items()]
        return Markup('<div class="cards">{}</div>').format(joined(cards))
    model, popularity = (ranker.at[0] for ranker in contents.evaluation.ranking.rankers[:2])
    cards = [
        card(f"NDCG@{model.k}", number(model.ndcg.value, 3), f"{interval(model.ndcg, 3)}; {note}"),
        card(f"Recall@{model.k}", number(model.recall.value, 3), f"{interval(model.recall, 3)}; {note}"),
        card(f"NDCG@{model.k} of popularity", number(popularity.ndcg.value, 3), "the same list for all users"),
    ]
    return Markup('<div class="cards">{}</div>').format(joined(cards))


def _warnings(evaluation: Evaluation | None) -> Markup:
    if evaluation is None:
        return paragraph(Markup("Not checked yet. Run {} to check.").format(code("--stage evaluate")))
    if not evaluation.warnings and evaluation.subject.makes_lists:
        return paragraph("None. Eval rows do not repeat train rows.")
    if not evaluation.warnings:
        return paragraph(
            "None. Eval rows do not repeat train rows, both classes occur, the mean prediction is right, and the model "
            "ranks better than biases alone."
        )
    return bullets(
        Markup("{}: {}").format(code(warning.code), with_code(sentence(warning.text)))
        for warning in evaluation.warnings
    )


def _unevaluated(metrics: Mapping[str, Any]) -> Markup:
    known = metrics.get("eval") or {}
    rows = [[name, number(value)] for name, value in known.items()]
    told = Markup(
        "Intervals, baselines, ROC, calibration, slices and ranking need an evaluation. Run the command of this run "
        "with {}."
    ).format(code("--stage evaluate"))
    return joined(
        [paragraph(told), *([table("Eval split, measured in training", ["", "value"], rows)] if rows else [])]
    )


def _fitted_here(contents: RunContents) -> bool:
    """Returns whether this model's map from logit to probability was fitted on the measured rows."""
    evaluation, metrics = contents.evaluation, contents.metrics
    if evaluation is None or evaluation.subject.split != "eval" or "calibration" not in metrics:
        return False
    return evaluation.subject.before_refit or not metrics["train"].get("refit")


def _configuration(contents: RunContents) -> Markup:
    manifest, metrics = contents.manifest, contents.metrics
    versions = {**manifest.versions, **metrics.get("versions", {})}
    if contents.evaluation is not None:
        versions |= contents.evaluation.versions
    files = [[file.path, f"{file.bytes:,}"] for file in manifest.input]
    config = yaml.safe_dump({"pipeline": manifest.config, "trainer": metrics.get("config", {})}, sort_keys=False)
    parts = [
        folded("Configuration", Markup("<pre>{}</pre>").format(config)),
        folded("Versions", table("Versions", ["package", "version"], sorted(versions.items()))),
    ]
    if files:
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        parts.append(folded(f"Input: {count}", table("Input", ["file", "bytes"], files[:100])))
    return joined(parts)
