"""The pages in Chromium: drawn, in any width and colour scheme, without an error and without a request."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from dotbias.evaluation.encodings.comparison_page import comparison_page
from dotbias.evaluation.encodings.recommendation import recommend
from dotbias.evaluation.report.run_page import run_page
from dotbias.retraining.history import read_history
from dotbias.retraining.history_page import write_history
from tests.dotbias.evaluation.comparisons import comparison, variant
from tests.dotbias.evaluation.contents import contents, evaluation, slice_, subject, warning
from tests.dotbias.retraining.nights import decision, measured, write_decision
from trainer.config import TrainerConfig
from trainer.search.evidence import Gain
from trainer.search.finals import Choice
from trainer.search.report import write_report
from trainer.search.rounds import Search, Trial
from trainer.search.trainings import Whole

_BROWSER, _DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (_BROWSER and _DRIVER), reason="needs chromium and chromedriver on the PATH: packages of the system"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    assert _BROWSER is not None and _DRIVER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    # What the browser loads for its own first page is not ours.
    driver.get("about:blank")
    driver.get_log("performance")
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module", params=["evaluated", "right after training"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(run_page(contents() if request.param == "evaluated" else contents(evaluation=None)))
    return path


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1280)])
def test_the_page(browser: Any, path: Path, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    figures = _open(browser, path, width)
    # Nothing of what the user gave was run.
    assert browser.title.startswith("Run <script>")

    page = browser.execute_script("return document.documentElement.scrollWidth")
    assert page <= width
    assert len(figures) >= 6
    for figure in figures:
        assert figure["marks"] > 0, figure
        # A figure that is drawn larger than its place would lie on what is beside it or below.
        assert figure["drawn"] == pytest.approx(figure["place"], abs=1), figure
    colours = browser.execute_script(_COLOURS)
    assert _luminance(colours["page"]) > 0.9 if scheme == "light" else _luminance(colours["page"]) < 0.05
    # WCAG's least contrasts: of text, and of what has to be made out in figures.
    for kind, least in (("body", 4.5), ("soft", 4.5), ("tick", 4.5), ("line", 3)):
        assert _contrast(colours[kind], colours["page"]) >= least, kind


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_table_shows_that_it_scrolls(browser: Any, path: Path, scheme: str) -> None:
    """A shadow at the right edge, in a colour that differs from the page."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    _open(browser, path, 400)
    tables = [table for table in browser.execute_script(_TABLES) if table["width"] > table["place"]]
    assert bool(tables) == (path.read_text().count("<table") > 4)
    for table in tables:
        at_edge, inside = _strip(browser, table)
        assert abs(at_edge - inside) > 12, table["caption"]


def test_the_verdict_leaves_room_on_a_phone_and_the_page_uses_a_wide_screen(browser: Any, tmp_path: Path) -> None:
    """Even with many reasons; they are there, folded."""
    doubtful = evaluation(
        subject=subject(before_refit=True),
        warnings=[warning(text="word " * 40), warning("off-in-the-mean", "word " * 40)],
        slices=[slice_("userId: warm or cold", str(n), 300, 0.5, prediction_mean=0.9) for n in range(5)],
    )
    path = tmp_path / "report.html"
    path.write_text(run_page(contents(evaluation=doubtful)))
    _open(browser, path, 400)
    verdict = "return document.querySelector('.verdict').getBoundingClientRect().height"
    assert browser.execute_script(verdict) < 0.5 * 900
    everything = browser.execute_script("return document.querySelector('.verdict').textContent")
    assert everything.count("hardly better than chance") == 5 and "It ranks a positive row" in everything
    _open(browser, path, 1280)
    for selector, least in ((".verdict", 1200), (".cards", 1200), (".figures", 1200), (".figures figure", 550)):
        width = "return document.querySelector(arguments[0]).getBoundingClientRect().width"
        assert browser.execute_script(width, selector) > least, selector
    shown = "return document.querySelector('.verdict details.narrow').open"
    assert browser.execute_script(shown)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_of_a_comparison(browser: Any, tmp_path: Path, width: int) -> None:
    compared = comparison(
        [variant("configured", "configured"), variant("reseeded", "reseeded"), variant("half", "hashing", 50 << 20)],
        [0.0, 0.0002, -0.0004],
    )
    path = tmp_path / "report.html"
    path.write_text(comparison_page(compared, recommend(compared), "out/recommended.yaml"))
    figures = _open(browser, path, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert len(figures) == 5
    for figure in figures:
        assert figure["marks"] > 0 and figure["drawn"] == pytest.approx(figure["place"], abs=1), figure


def test_the_page_of_a_search(browser: Any, tmp_path: Path) -> None:
    laboratory: Any = None
    search = Search(laboratory, TrainerConfig(), finds_items=False, journal=str(tmp_path / "journal"), name="search")
    options = [{"l2": 0.1 * 2**power, "bias_l2_factor": 1.0} for power in (0, 1, -1, 0.5, -0.5)]
    search.trials = [
        Trial(number // 3, values, None if number == 2 else 0.01 * number) for number, values in enumerate(options)
    ]
    search.wholes = {0: Whole(3, 6, 0.5, {}), 1: Whole(4, 7, 0.52, {})}
    write_report(str(tmp_path), search, Choice({1: Gain(0.02, 0.004)}, 1, 1000))
    assert len(_open(browser, tmp_path / "report.html", 1280)) == 1


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("labels", [True, False])
def test_the_page_of_the_nights(browser: Any, tmp_path: Path, width: int, labels: bool) -> None:
    first = None if labels else measured(None, ndcg=0.25)
    for day in range(1, 11):
        later = {} if day > 1 else {"champion": None, "champion_metrics": None, "gains": None}
        lists = {} if first is None else dict.fromkeys(("challenger_metrics", "champion_metrics", "gains"), first)
        outcome = "kept" if day in (4, 9) else "promoted"
        write_decision(tmp_path, decision(f"2026-11-{day:02}", outcome, **lists | later))
    write_history(str(tmp_path), read_history(str(tmp_path), None, 1))
    figures = _open(browser, tmp_path / "history.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    names = ["chart-history-auc", "chart-history-log_loss"] if labels else ["chart-history-ndcg"]
    assert [figure["id"] for figure in figures] == [*names, "chart-history-gains"]
    for figure in figures:
        assert figure["marks"] >= 10 and figure["drawn"] == pytest.approx(figure["place"], abs=1), figure
    shown = browser.execute_script("return document.body.innerText")
    assert "8 of 10 nights promoted" in shown and "2026-11-09" in shown


def _open(browser: Any, path: Path, width: int) -> list[dict[str, Any]]:
    """Opens a page, which has to need nothing else and to make no error; returns its figures."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    assert {request for request in _requests(browser) if not request.startswith("data:")} == {path.as_uri()}
    figures: list[dict[str, Any]] = browser.execute_script(_FIGURES)
    return figures


def _strip(browser: Any, table: dict[str, Any]) -> tuple[float, float]:
    """Grey levels, in [0, 255], at the right edge of a table and left of its shadow."""
    clip = {"x": 0, "y": table["top"], "width": 400, "height": table["height"], "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    image = tf.io.decode_png(base64.b64decode(shot["data"]), channels=1).numpy()[:, :, 0]
    right = round(table["right"])
    # The median over the height leaves out lines and letters.
    return float(np.median(image[:, right - 2])), float(np.median(image[:, right - 24]))


def _requests(browser: Any) -> set[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


_FIGURES = """
return [...document.querySelectorAll(".js-plotly-plot")].map(figure => {
  const drawn = figure.querySelector(".main-svg").getBoundingClientRect();
  const place = (figure.closest("[role=img]") || figure).getBoundingClientRect();
  return {
    id: figure.id,
    marks: figure.querySelectorAll(".scatterlayer .trace path, .barlayer .point path").length,
    drawn: [drawn.width, drawn.height], place: [place.width, place.height],
  };
});
"""

_TABLES = """
return [...document.querySelectorAll(".scrolls")].filter(box => box.checkVisibility()).map(box => {
  const place = box.getBoundingClientRect();
  return {
    caption: box.querySelector("caption").textContent, width: box.scrollWidth, place: box.clientWidth,
    top: place.top + scrollY, height: place.height, right: place.right,
  };
});
"""

_COLOURS = """
const of = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
return {
  page: of("html", "backgroundColor"), body: of("body", "color"), soft: of("figcaption", "color"),
  tick: of(".js-plotly-plot .xtick text", "fill"), line: of(".js-plotly-plot .js-line", "stroke"),
};
"""


def _luminance(colour: str) -> float:
    """Relative luminance, in [0, 1], of a CSS colour as browsers write it."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)
