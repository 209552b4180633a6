"""Tests the files of a comparison: numbers, tables, and a page that needs no other file."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dotbias.evaluation.encodings.comparison import Comparison
from dotbias.evaluation.encodings.comparison_page import read_comparison, write_comparison
from dotbias.evaluation.encodings.recommendation import recommend
from dotbias.evaluation.encodings.tables import cost_table, markdown, quality_table, slice_table
from tests.dotbias.evaluation.comparisons import comparison, variant


@pytest.fixture
def compared() -> Comparison:
    variants = [
        variant("configured", "configured", 100 << 20),
        variant("reseeded", "reseeded"),
        variant("<b>half</b>", "hashing", 50 << 20, colliding=0.4871),
    ]
    return comparison(variants, [0.0, 0.0002, -0.0004], cold_gains=[0.0, 0.0, -0.03])


def test_tables(compared: Comparison) -> None:
    quality = {row[0]: row[1:] for row in quality_table(compared).rows}
    assert quality["the configured"] == ["0.8000", "-", "0.5000", "-", "6 of 9"]
    assert quality["the reseeded"][1] == "+0.0002 (-0.0008 to +0.0012)"
    costs = {row[0]: row[1:] for row in cost_table(compared).rows}
    assert costs["the configured"][:4] == ["50.0% / 50.0%", "- / -", "40.0% / 40.0%", "12.3% / 12.3%"]
    assert costs["the <b>half</b>"][:4] == ["48.7% / 48.7%", "49.0% / 49.0%", "40.0% / 40.0%", "- / -"]
    assert costs["the <b>half</b>"][4:] == ["50.0", "100.0", "50.0", "12.3", "56.8"]
    assert "the reseeded" not in costs
    cold = slice_table(compared, "movieId")
    assert cold.header == ["variant", "0 (cold)", "1,000 or more"]
    assert cold.rows[2] == ["the <b>half</b>", "0.7700", "0.7996"]
    assert cold.rows[-1] == ["rows", "500", "500"]


def test_markdown_is_aligned(compared: Comparison) -> None:
    caption, empty, *lines = markdown(quality_table(compared)).splitlines()
    assert caption.startswith("Quality on 1,000 eval rows") and not empty
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + 3


def test_the_files(compared: Comparison, tmp_path: Path) -> None:
    write_comparison(str(tmp_path), compared, recommend(compared), "out/recommended.yaml")
    assert read_comparison(str(tmp_path)) == compared
    assert read_comparison(str(tmp_path / "elsewhere")) is None
    with (tmp_path / "comparison.csv").open() as file:
        assert ["the configured", "0.8000", "-", "0.5000", "-", "6 of 9"] in list(csv.reader(file))
    page = (tmp_path / "report.html").read_text()
    assert "Use the &lt;b&gt;half&lt;/b&gt;" in page and "--config out/recommended.yaml" in page
    # Titles are text everywhere, in Plotly's hover labels too.
    assert "<b>half" not in page
    without_plotly = re.sub(r"<script>.*?plotly\.js.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", without_plotly)
    parser = HTMLParser()
    parser.feed(page)
    parser.close()
    for figure in ("gain-auc-gain", "gain-log-loss-gain", "frequency-userId", "frequency-movieId", "collisions"):
        assert page.count(f'id="chart-{figure}"') == 1
