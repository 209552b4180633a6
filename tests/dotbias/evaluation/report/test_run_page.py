"""Checks the page without a browser: it is whole, needs no other file, and escapes the user's text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dotbias.evaluation.report.page import Section, page, paragraph, with_code
from dotbias.evaluation.report.run_page import run_page
from dotbias.evaluation.results import Curve, Estimate
from tests.dotbias.evaluation.contents import (
    HOSTILE,
    contents,
    evaluation,
    manifest,
    metrics,
    ranking,
    subject,
    warning,
)

_VOID = {"meta", "link", "br", "img", "input", "hr"}
_LOADS = {"src", "href", "srcset", "action", "data", "poster", "background"}


class Page(HTMLParser):
    """Tags that are open, what attributes would load, ids, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.styles = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in _LOADS]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        elif not self.open or self.open[-1] != "script":
            self.text += data


@pytest.fixture(scope="module")
def parsed() -> Page:
    return Page(run_page(contents()))


def test_all_that_is_opened_is_closed_and_ids_are_of_one_element_each(parsed: Page) -> None:
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids) > 10


def test_nothing_is_loaded(parsed: Page) -> None:
    assert [load for load in parsed.loads if not load.startswith("#") and load != "data:,"] == []
    assert "@import" not in parsed.styles and "url(" not in parsed.styles
    # Links lead to sections that exist.
    assert {load[1:] for load in parsed.loads if load.startswith("#")} <= set(parsed.ids)


def test_text_of_the_user_stays_text(parsed: Page) -> None:
    assert "img" not in parsed.tags
    # Plotly's library and its settings, then one for each figure.
    assert parsed.tags.count("script") == 3 + len([i for i in parsed.ids if i.startswith("chart-")])
    # In the title, as a reason, a file, a slice and the title of an item.
    assert parsed.text.count(HOSTILE) >= 5
    assert "Heat & Dust" in parsed.text


def test_text_in_figures_is_escaped_twice() -> None:
    """Text is escaped for the page, by Plotly's JSON, and for Plotly, which takes <b> for bold."""
    scripts = re.findall(r"<script>(.*?)</script>", run_page(contents()), re.DOTALL)
    with_slice = [script for script in scripts if "document.title" in script]
    assert len(with_slice) == 1
    assert "\\u003cscript" not in with_slice[0] and "&lt;script" in with_slice[0].replace("\\u0026", "&")


def test_every_figure_has_words_for_who_does_not_see_it(parsed: Page) -> None:
    charts = [i for i in parsed.ids if i.startswith("chart-")]
    slices = [i for i in charts if i.startswith("chart-slices-")]
    assert len(charts) == parsed.tags.count("figure") == 14
    # The advice how to read slices stands once, above all charts.
    assert len(slices) == 2 and parsed.tags.count("figcaption") == 12
    assert len(re.findall(r'role="img" aria-label="[^"]{20,}"', run_page(contents()))) == len(charts)


def test_the_same_contents_make_the_same_page() -> None:
    assert run_page(contents()) == run_page(contents())


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        # Right after a training.
        ({"evaluation": None}, ["Not evaluated yet", "--stage evaluate", "0.800"]),
        (
            {"evaluation": evaluation(warnings=[warning()])},
            ["Look before you ship", "The rows have too few new ids.", "no-cold-ids"],
        ),
        ({"evaluation": evaluation(ranking=None, slices=[], calibration=[])}, ["Ready to ship", "no rows to compare"]),
        ({"embeddings": {}, "titles": {}}, ["Ready to ship"]),
        ({"metrics": {**metrics(), "eval": {}}, "evaluation": None}, ["Not evaluated yet"]),
        # A model that makes lists, of a log with labels.
        (
            {
                "evaluation": evaluation(
                    subject=subject(objective="softmax"), ranking=ranking(0.1, 0.05, other_export=0.08, fold_in=0.09)
                )
            },
            ["Ready to ship", "NDCG@10 of popularity", "Lists by user", "users by their items alone", "hit rate@k"],
        ),
        # Rows of one class.
        (
            {
                "evaluation": evaluation(
                    metrics={**evaluation().metrics, "auc": Estimate(value=None), "pr-auc": Estimate(value=None)},
                    roc=Curve(x=[], y=[]),
                    pr=Curve(x=[], y=[]),
                )
            },
            ["AUC is not defined for these rows.", "AUC\N{EN DASH}0.5 is chance", "PR-AUC\N{EN DASH}"],
        ),
        ({"metrics": {**metrics(), "eval": {"auc": None}}, "evaluation": None}, ["auc\N{EN DASH}"]),
        # An export that was copied alone.
        ({"metrics": {}}, ["Ready to ship", "There is no metrics.json"]),
    ],
)
def test_what_is_not_there_is_said_or_left_out(changes: dict[str, Any], shown: list[str]) -> None:
    parsed = Page(run_page(contents(**changes)))
    assert parsed.open == []
    for text in shown:
        assert text in parsed.text


def test_numbers_that_cannot_decide_are_not_in_green() -> None:
    flattered = evaluation(warnings=[warning("trained-on-these-rows", "the model has seen them")])
    assert 'class="card go"' in run_page(contents())
    assert 'class="card go"' not in run_page(contents(evaluation=flattered))


@pytest.mark.parametrize(
    ("before_refit", "refitted", "fitted_here"), [(False, False, True), (True, True, True), (False, True, False)]
)
def test_the_model_before_the_refit_is_called_that(before_refit: bool, refitted: bool, fitted_here: bool) -> None:
    """Without a refit, the calibration of the model was fitted on the eval rows."""
    of = evaluation(subject=subject(before_refit=before_refit))
    refit = {"rows": 10_000, "epochs": []} if refitted else None
    of_training = {**metrics(), "train": {**metrics()["train"], "refit": refit}}
    text = Page(run_page(contents(evaluation=of, metrics=of_training))).text
    assert ("The model before the refit" in text) == ("Measured: the model before the refit" in text) == before_refit
    assert ("were fitted on these rows" in text) == fitted_here


def test_a_training_that_was_measured_by_rows_is_told_in_rows() -> None:
    told = "5 epochs; the 4th was the best on eval."
    assert told in Page(run_page(contents())).text
    of_training = metrics()
    for record in of_training["train"]["epochs"]:
        record |= {"rows": 3000 * record["epoch"], "epoch": record["epoch"] / 3}
    of_training["train"] |= {"best_epoch": 4 / 3, "refit": {"rows": 10_000, "epochs": [{"epoch": 4 / 3}]}}
    text = Page(run_page(contents(metrics=of_training))).text
    assert "1.67 epochs, 15,000 rows in all, measured 5 times; best on eval after 12,000 rows." in text
    assert "all 10,000 rows, train and eval, for 1.33 epochs." in text


def test_counts_reconcile_with_the_manifest(parsed: Page) -> None:
    for number in (manifest().counts.read, manifest().counts.train, manifest().counts.rejected):
        assert f"{number:,}" in parsed.text


def test_a_page_escapes_all_its_parts() -> None:
    parsed = Page(page(HOSTILE, paragraph(HOSTILE), [Section("one", HOSTILE, paragraph(HOSTILE, "soft"))], HOSTILE))
    # Twice the title, the summary, the link, the heading, the section and the footer.
    assert parsed.text.count(HOSTILE) == 7
    assert parsed.tags.count("script") == 3


def test_arrays_are_not_written_out_in_full() -> None:
    """The size of the page hardly depends on the number of ids."""
    few = contents()
    embedding = few.embeddings["movieId"]
    rng = np.random.default_rng(0)
    many = type(embedding)(
        side="item",
        counts=np.ceil(1e6 / np.arange(1, 200_002)).astype(np.float32),
        table=rng.normal(size=(200_001, 4)).astype(np.float32),
        vocabulary_size=200_000,
        tokens=[str(number) for number in range(1000)],
    )
    assert len(run_page(contents(embeddings={"movieId": many}))) < len(run_page(few)) + 100_000


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("set `a.b: 1` or `c`", "set <code>a.b: 1</code> or <code>c</code>"),
        ("<b> in `<i>`", "&lt;b&gt; in <code>&lt;i&gt;</code>"),
        ("an odd `one` and `", "an odd <code>one</code> and `"),
        ("none", "none"),
        ("", ""),
    ],
)
def test_code_in_a_text(text: str, markup: str) -> None:
    assert with_code(text) == markup
