"""Makes the flags that the generators of logs share, and checks their values."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Config = TypeVar("Config", bound=BaseModel)


def add_model_flags(parser: argparse.ArgumentParser, config: type[BaseModel]) -> None:
    """Adds the flags of the true model, and takes the defaults of all flags from the fields of `config`."""
    parser.add_argument("--embedding_dim", type=int, help="of the true model, bias included; default: %(default)s")
    parser.add_argument("--signal", type=float, help="standard deviation of its dot products; default: %(default)s")
    parser.add_argument(
        "--exponent", type=float, help="popularity of rank r is (r + 1) ** -exponent; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, help="default: %(default)s")
    parser.set_defaults(
        **{name: field.default for name, field in config.model_fields.items() if not field.is_required()}
    )


def checked(parser: argparse.ArgumentParser, config: type[Config], values: dict[str, Any]) -> Config:
    """Makes a configuration from the values of flags; exits with code 2 and one line if a value is out of range."""
    try:
        return config(**values)
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"--{first['loc'][0]}: {first['msg'].removeprefix('Input ')}. Received: {first['input']}")
