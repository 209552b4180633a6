"""Reads YAML as configuration files need it: no key twice, and numbers are numbers."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dotbias.cli.failures import UsageError


class _Loader(yaml.SafeLoader):
    """Differs from PyYAML, which keeps the last of two equal keys and reads 1e-3 as text, 2026-11-24 as a date."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float) or isinstance(key, bool):
                raise yaml.MarkedYAMLError(
                    problem=f"a key should be a name. Received: {key!r}", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key `{key}` is there twice (first on line {seen[key]})",
                    problem_mark=key_node.start_mark,
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


# A copy, since the parent class shares them.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_yaml(text: str, origin: str) -> Any:
    """Returns the value of a YAML text.

    >>> parse_yaml("{learning_rate: 1e-3, since: 2026-11-24}", "--set")
    {'learning_rate': 0.001, 'since': '2026-11-24'}

    Raises:
        UsageError: it is not YAML, or a key is there twice; names `origin` and the line.
    """
    try:
        # The loader is a SafeLoader, so it makes plain values only.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{origin}, line {mark.line + 1}" if mark and "\n" in text.strip() else origin
        raise UsageError(f"{where}: {' '.join(filter(None, (error.context, error.problem)))}") from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a scalar looks like a number and is none, such as 0b2.
        raise UsageError(f"{origin}: {' '.join(str(error).split())}") from None
