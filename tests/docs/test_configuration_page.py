"""Compares docs/configuration.md with the pydantic models: every key, default, value and bound."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.configuration.validation_errors import fields_of, known_paths

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
SECTIONS = "|".join(Configuration.model_fields)

# Key -> what the columns "type" and "default" say.
ROWS = {
    key: (kind, default)
    for key, kind, default in re.findall(
        rf"^\| `((?:{SECTIONS})\.[\w.<>]+)` \| (.*?) \| `?(.*?)`? \|", PAGE, re.MULTILINE
    )
}


def _keys() -> dict[str, FieldInfo]:
    """Returns the fields that hold a value; sections are not keys."""
    paths = known_paths(Configuration)
    sections = {path[:-1] for path in paths} | {path[:-2] for path in paths}
    return {".".join(path): field for path, field in fields_of(Configuration) if path not in sections}


KEYS = _keys()


def test_every_key_has_one_row() -> None:
    assert sorted(re.findall(rf"^\| `((?:{SECTIONS})\.[^`]+)`", PAGE, re.MULTILINE)) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_row_has_the_default(key: str) -> None:
    field = KEYS[key]
    default = field.get_default(call_default_factory=True)
    assert not isinstance(default, BaseModel)
    # As YAML (which JSON is) writes it.
    assert ROWS[key][1] == ("required" if field.is_required() else json.dumps(default))


@pytest.mark.parametrize("key", KEYS)
def test_a_row_has_the_values_and_bounds(key: str) -> None:
    field = KEYS[key]
    kind = ROWS[key][0]
    for value in _literals(field.annotation):
        assert f"`{value}`" in kind
    if bounds := _bounds([*field.metadata, *_of_elements(field.annotation)]):
        assert kind.removeprefix("list, ") == bounds


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in _literals(part)]


def _of_elements(annotation: Any) -> list[Any]:
    """Returns the bounds of the elements of a list."""
    if get_origin(annotation) is Annotated:
        return [bound for field in annotation.__metadata__ for bound in getattr(field, "metadata", [])]
    if get_origin(annotation) in (tuple, Union, UnionType):
        return [bound for part in get_args(annotation) for bound in _of_elements(part)]
    return []


def _bounds(metadata: list[Any]) -> str:
    """Formats bounds as the column "type" does: at least 1, above 0, in [0, 1)."""
    low = [bound.ge if isinstance(bound, Ge) else bound.gt for bound in metadata if isinstance(bound, Ge | Gt)]
    high = [bound.le if isinstance(bound, Le) else bound.lt for bound in metadata if isinstance(bound, Le | Lt)]
    is_open = any(isinstance(bound, Gt) for bound in metadata)
    if not low:
        return ""
    if not high:
        return f"above {low[0]}" if is_open else f"at least {low[0]}"
    closing = ")" if any(isinstance(bound, Lt) for bound in metadata) else "]"
    return f"in {'(' if is_open else '['}{low[0]}, {_power_of_two(high[0])}{closing}"


def _power_of_two(number: float) -> str:
    exponent = int(number).bit_length() - 1
    return f"2^{exponent}" if exponent > 20 and number == 1 << exponent else str(number)
