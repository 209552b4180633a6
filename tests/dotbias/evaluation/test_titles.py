"""Titles from CSV files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotbias.evaluation.titles import read_titles
from pipeline.manifest import DotbiasError


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("movieId,title,genres\n1,Toy Story (1995),Comedy\n", {"1": "Toy Story (1995)"}),
        # Columns in another order, quotes, a line end in a value.
        ('name,id\n"Heat, ""the"" film",6\n"two\nlines",7\n', {"6": 'Heat, "the" film', "7": "two\nlines"}),
        # A byte-order mark; rows without a title or too short; the last of two.
        ("\ufeffmovieId,title\n1,a\n1,b\n2,\n3\n", {"1": "b"}),
        ("movieId,title\n", {}),
    ],
)
def test_titles_by_token(tmp_path: Path, text: str, titles: dict[str, str]) -> None:
    path = tmp_path / "titles.csv"
    path.write_text(text, encoding="utf-8")
    assert read_titles(str(path), ["movieId"]) == {"movieId": titles}


def test_only_features_that_the_file_is_about(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text("movieId,title\n1,a\n")
    assert read_titles(str(path), ["movieId", "genre"]) == {"movieId": {"1": "a"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"movieId,genres\n1,x\n", "should have a header with a column `title`.*Received: movieId, genres"),
        (b"filmId,title\n1,x\n", "named `id` or like a feature of the items: movieId"),
        (b"", "Received: nothing"),
        (b"movieId,title\n1,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "titles.csv"
    path.write_bytes(content)
    with pytest.raises(DotbiasError, match=message):
        read_titles(str(path), ["movieId"])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DotbiasError, match=r"no readable file .*titles.csv \(No such file"):
        read_titles(str(tmp_path / "titles.csv"), ["movieId"])
