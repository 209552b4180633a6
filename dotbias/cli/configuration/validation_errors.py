"""Explains an error of pydantic in one line: where, which key, the rule, the value, and the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Path = tuple[str, ...]

# The part of a path for names that the user gives, such as those of the features.
ANY_NAME = "<name>"


def explain(error: ValidationError, model: type[BaseModel], file: str, origins: Mapping[Path, str]) -> str:
    """Returns one line about the most telling error.

    Args:
        error: raised by validating `model`.
        model: the model of the whole file.
        file: where values come from, unless `origins` has their key.
        origins: by key, the flag that a value came from.
    """
    # A misspelt key gives two errors, an unknown key and a missing one; the first explains the second.
    errors = sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")
    first = errors[0]
    path = tuple(str(part) for part in first["loc"])
    line = f"{_origin(path, file, origins)}: {_rule(first, path, model)}"
    return line if len(errors) == 1 else f"{line} (and {len(errors) - 1} more)"


def known_paths(model: type[BaseModel]) -> list[Path]:
    """Returns all keys of a model and of the models in it, from the top down."""
    return [path for path, _ in fields_of(model)]


def fields_of(model: type[BaseModel]) -> Iterator[tuple[Path, FieldInfo]]:
    """Yields all fields of a model and of the models in it, with keys; `ANY_NAME` stands for the user's names."""
    for name, field in model.model_fields.items():
        yield (name,), field
        named, below = _models_in(field.annotation)
        for submodel in below:
            for path, subfield in fields_of(submodel):
                yield (name, ANY_NAME, *path) if named else (name, *path), subfield


def _models_in(annotation: Any) -> tuple[bool, list[type[BaseModel]]]:
    """Returns whether a field maps names that the user gives, and the models that it can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return False, [annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType, Annotated):
        models = [model for part in arguments if part is not NoneType for model in _models_in(part)[1]]
        return any(_models_in(part)[0] for part in arguments), models
    if origin is dict:
        return True, _models_in(arguments[1])[1]
    return False, []


def _rule(details: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    key = ".".join(path)
    kind, received = details["type"], details["input"]
    if kind == "extra_forbidden":
        return f"unknown key `{key}`{_suggestion(path, model)}"
    if kind == "missing":
        return f"`{key}` is required"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"`{key}` should hold keys of its own. Received: {_show(received)}"
    if kind == "value_error":
        rule = str(details["ctx"]["error"])
        # A message about a whole section names its keys itself.
        whole = isinstance(received, dict) or not path
        about = f"`{key}`: {rule}" if path and whole else rule if whole else f"`{key}` {rule}"
        return about if whole or "Received" in rule else f"{about}. Received: {_show(received)}"
    rule = details["msg"].removeprefix("Input ")
    if rule.startswith("should "):
        return f"`{key}` {rule}. Received: {_show(received)}"
    return f"`{key}`: {rule[0].lower()}{rule[1:]}. Received: {_show(received)}"


def _suggestion(path: Path, model: type[BaseModel]) -> str:
    paths = known_paths(model)
    siblings = [known[-1] for known in paths if len(known) == len(path) and _matches(known[:-1], path[:-1])]
    close = difflib.get_close_matches(path[-1], siblings, n=1)
    if close:
        return f"; did you mean `{'.'.join((*path[:-1], close[0]))}`?"
    elsewhere = [known for known in paths if known[-1] == path[-1]]
    if elsewhere:
        return f"; did you mean `{'.'.join(elsewhere[0])}`?"
    return f"; known here: {', '.join(siblings)}"


def _matches(known: Path, path: Path) -> bool:
    return all(name in (ANY_NAME, part) for name, part in zip(known, path, strict=True))


def _origin(path: Path, file: str, origins: Mapping[Path, str]) -> str:
    # The last flag that set this key or a section around it; earlier ones were replaced.
    for key, flag in reversed(list(origins.items())):
        if path[: len(key)] == key:
            return flag
    # A message about a section may be about a key in it that a flag set.
    below = [flag for key, flag in origins.items() if key[: len(path)] == path]
    return f"{file} with {' '.join(below)}" if below and path else file


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
