"""Runs a file of Google Workflows: those steps and functions that deploy/schedule.yaml has; a test answers requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

# Method, address, body.
Request = tuple[str, str, Any]


class WorkflowError(Exception):
    """Reports an error that a workflow raised and did not catch."""


class _Map(dict):  # type: ignore[type-arg]
    """Maps keys to values that are attributes too, as in `launched.body.job.id`."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise WorkflowError(f"KeyError: {name}")
        return self[name]


class _Module:
    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)


def _default(value: Any, other: Any) -> Any:
    return other if value is None else value


class Workflow:
    """Runs `main` of a file.

    `answer` gets each request and returns (status, body); `now` is the time in ISO format; sleeping takes no time, and
    `slept` counts its seconds.
    """

    def __init__(self, text: str, environment: Mapping[str, str], now: str, answer: Callable[[Request], Any]) -> None:
        self._flows = yaml.safe_load(text)
        self._answer = answer
        self.slept = 0
        retry = object()
        self._functions: dict[str, Any] = {
            "sys": _Module(get_env=environment.__getitem__, now=lambda: now),
            "time": _Module(format=lambda moment: moment),
            "text": _Module(substring=lambda text, start, end: text[start:end]),
            "map": _Module(get=lambda value, key: (value or {}).get(key)),
            "json": _Module(decode=json.loads),
            "http": _Module(default_retry=retry),
            "default": _default,
            "if_": lambda condition, one, other: one if condition else other,
            "true": True,
            "false": False,
            "null": None,
        }

    def run(self, argument: Any) -> Any:
        return self._call_flow("main", {"args": _mapped(argument)})

    def _call_flow(self, name: str, arguments: dict[str, Any]) -> Any:
        flow = self._flows[name]
        assert arguments.keys() == set(flow["params"])
        return self._run_steps(flow["steps"], dict(arguments))[1]

    def _run_steps(self, steps: list[dict[str, Any]], variables: dict[str, Any]) -> tuple[bool, Any]:
        """Returns whether a step returned, and what."""
        names = [next(iter(step)) for step in steps]
        assert len(set(names)) == len(names)
        position = 0
        while position < len(steps):
            (step,) = steps[position].values()
            following = step.get("next")
            known = {"assign", "call", "args", "result", "try", "retry", "except", "switch", "return", "raise", "next"}
            assert step.keys() <= known, step.keys() - known
            if "switch" in step:
                for case in step["switch"]:
                    if self._value(case["condition"], variables):
                        returned, value = self._end(case, variables)
                        if returned:
                            return True, value
                        following = case.get("next", following)
                        break
            elif "try" in step:
                returned, value = self._try(step, variables)
                if returned:
                    return True, value
            else:
                self._do(step, variables)
                returned, value = self._end(step, variables)
                if returned:
                    return True, value
            position = position + 1 if following is None else names.index(following)
        return False, None

    def _try(self, step: dict[str, Any], variables: dict[str, Any]) -> tuple[bool, Any]:
        assert step.get("retry", "${http.default_retry}") == "${http.default_retry}"
        try:
            self._do(step["try"], variables)
        except WorkflowError as error:
            if "except" not in step:
                raise
            # A variable that is new in the block ends with it.
            inner = {**variables, step["except"]["as"]: error.args[0]}
            outcome = self._run_steps(step["except"]["steps"], inner)
            variables.update({name: inner[name] for name in variables})
            return outcome
        return False, None

    def _end(self, step: dict[str, Any], variables: dict[str, Any]) -> tuple[bool, Any]:
        if "raise" in step:
            raise WorkflowError(self._value(step["raise"], variables))
        return "return" in step, self._value(step.get("return"), variables)

    def _do(self, step: dict[str, Any], variables: dict[str, Any]) -> None:
        for assignment in step.get("assign", ()):
            ((name, value),) = assignment.items()
            variables[name] = self._value(value, variables)
        if "call" in step:
            result = self._call(step["call"], self._value(step["args"], variables))
            if "result" in step:
                variables[step["result"]] = _mapped(result)

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "sys.sleep":
            self.slept += arguments["seconds"]
            return None
        if name not in ("http.get", "http.post"):
            return self._call_flow(name, arguments)
        assert arguments.keys() <= {"url", "auth", "query", "body"}
        assert arguments["auth"] == {"type": "OAuth2"}
        query = "&".join(f"{key}={value}" for key, value in arguments.get("query", {}).items())
        url = arguments["url"] + (f"?{query}" if query else "")
        status, body = self._answer((name.removeprefix("http."), url, arguments.get("body")))
        if status >= 400:
            raise WorkflowError(_Map(code=status, message=f"HTTP server responded with error code {status}"))
        return {"code": status, "body": body}

    def _value(self, value: Any, variables: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            return _Map({key: self._value(inner, variables) for key, inner in value.items()})
        if isinstance(value, list):
            return [self._value(inner, variables) for inner in value]
        if isinstance(value, str) and (expression := re.fullmatch(r"\$\{(.*)\}", value)):
            # The expressions of Workflows that the file has are those of Python too, but for this name.
            code = re.sub(r"\bif\(", "if_(", expression[1])
            return eval(code, {"__builtins__": {}}, {**self._functions, **variables})
        return value


def _mapped(value: Any) -> Any:
    if isinstance(value, dict):
        return _Map({key: _mapped(inner) for key, inner in value.items()})
    return [_mapped(inner) for inner in value] if isinstance(value, list) else value
