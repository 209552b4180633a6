"""Reads titles of items from a CSV file such as MovieLens' movies.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.manifest import DotbiasError

_TITLE_COLUMNS = ("title", "name")


def read_titles(path: str, features: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """Reads the title of each token, by feature.

    Args:
        path: a CSV file whose header has a column `title` or `name`, and a column with the name of a feature or, for
            all features, `id`; other columns do not matter.
        features: names of the features.

    Raises:
        DotbiasError: the file cannot be read, or has other columns.
    """
    features = list(features)
    try:
        # Without `-sig`, a byte-order mark would become part of the first column's name.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            header = list(rows.fieldnames or [])
            title = next((name for name in _TITLE_COLUMNS if name in header), None)
            ids = {name: name if name in header else "id" for name in features if {name, "id"} & set(header)}
            if title is None or not ids:
                raise DotbiasError(
                    f"{path} should have a header with a column `title` and a column of ids, named `id` or like a "
                    f"feature of the items: {', '.join(features)}. Received: {', '.join(header) or 'nothing'}"
                )
            found: dict[str, dict[str, str]] = {name: {} for name in ids}
            for row in rows:
                for name, column in ids.items():
                    if row[column] and row[title]:
                        found[name][row[column]] = row[title]
            return dict(found)
    except OSError as error:
        raise DotbiasError(f"there is no readable file {path} ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DotbiasError(f"{path} is not a CSV file in UTF-8: {error}") from None
