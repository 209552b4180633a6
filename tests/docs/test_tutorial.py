"""Runs the tutorial from its first cell to its last, and checks what its text says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns what the code cells print, in a checkout of its own, where nothing is done yet."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "examples").mkdir()
    for name in ("dotbias", "pipeline", "trainer", "run_pipeline.py", "examples/own_data.yaml"):
        (checkout / name).symlink_to(ROOT / name)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(checkout / "examples")}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    return [_printed(cell) for cell in notebook.cells if cell.cell_type == "code"]


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def test_the_run_ends_with_a_verdict(outputs: list[str]) -> None:
    assert "Verdict     Ready to ship" in outputs[2]
    assert "0 rejected" in outputs[2]


def test_a_customer_likes_films_of_liked_genres_more(outputs: list[str]) -> None:
    first, *films = outputs[3].splitlines()
    liked = first.partition(" likes ")[2].split(" and ")
    probability = {line.split()[0]: float(line.split()[-1]) for line in films}
    assert len(probability) == 6
    others = [value for genre, value in probability.items() if genre not in liked]
    assert sum(probability[genre] for genre in liked) / 2 > sum(others) / 4 + 0.2


def test_the_ten_nearest_films_share_the_genre(outputs: list[str]) -> None:
    first, *films = outputs[4].splitlines()
    genre = re.findall(r"nearest to (\w+)", first)[0]
    assert len(films) == 10
    assert sum(line.startswith(genre) for line in films) >= 9


def test_the_stored_outputs_are_of_these_cells(outputs: list[str]) -> None:
    stored = [_printed(cell) for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    # The last digits differ between machines, and the speed between runs.
    assert [re.sub(r"[\d.,]+", "#", text).split()[:8] for text in stored] == [
        re.sub(r"[\d.,]+", "#", text).split()[:8] for text in outputs
    ]
