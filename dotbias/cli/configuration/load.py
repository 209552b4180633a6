"""Loads and checks the configuration file and `--set`; a mistake is one line that says where and what to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dotbias.cli.configuration.shipped import no_such_file, shipped_file
from dotbias.cli.configuration.validation_errors import explain
from dotbias.cli.configuration.yaml_files import parse_yaml
from dotbias.cli.failures import UsageError
from dotbias.evaluation.encodings.variants import CompareConfig
from dotbias.retraining.config import RetrainingConfig
from pipeline.config import PipelineConfig, SampleConfig
from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig, set_dotted


class Configuration(BaseModel):
    """Holds a whole file, and checks what its sections say about each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: PipelineConfig
    trainer: TrainerConfig = TrainerConfig()
    # The data to generate when no input is named.
    sample: SampleConfig | None = None
    # The encodings that `--stage compare_encodings` tries.
    compare: CompareConfig = CompareConfig()
    # The window, gate and retention of `--stage retrain`.
    retraining: RetrainingConfig = RetrainingConfig()

    @model_validator(mode="after")
    def _hashing_agrees(self) -> Configuration:
        hashed = [name for name, feature in self.pipeline.features.items() if feature.encoding == "hashing"]
        for name in self.trainer.hashing:
            if name not in self.pipeline.features:
                raise ValueError(
                    f"`trainer.hashing.{name}` names no feature; `pipeline.features` has {list(self.pipeline.features)}"
                )
            if name not in hashed:
                raise ValueError(
                    f"`trainer.hashing.{name}` needs `pipeline.features.{name}.encoding: hashing`. Received: vocabulary"
                )
        for name in hashed:
            if name not in self.trainer.hashing:
                raise ValueError(
                    f"`trainer.hashing.{name}.num_bins` is required, "
                    f"since `pipeline.features.{name}.encoding` is hashing"
                )
        return self

    @model_validator(mode="after")
    def _comparison_names_features(self) -> Configuration:
        if unknown := sorted(set(self.compare.features or ()) - set(self.pipeline.features)):
            raise ValueError(
                f"`compare.features` should be some of {list(self.pipeline.features)}. Received: {unknown}"
            )
        return self


def load_configuration(path: str, overrides: tuple[str, ...] = (), patterns: tuple[str, ...] = ()) -> Configuration:
    """Reads and checks a configuration.

    Args:
        path: the YAML file, local or a URL that Beam can open; or the name of a shipped one, such as `movielens`.
        overrides: "dotted.key=value" with the value in YAML; later ones win.
        patterns: stand in for `pipeline.input.patterns` unless empty.

    Raises:
        UsageError: names the file or the override, the key, the rule and the value received.
    """
    text, path = _read(path)
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        raise UsageError(f"{path} should hold the sections `pipeline` and `trainer`. Received: {values!r}")
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _set(values, keys, value, f"--set {override}")
        origins[keys] = f"--set {override}"
    if patterns:
        keys = ("pipeline", "input", "patterns")
        _set(values, keys, list(patterns), "--input")
        origins[keys] = "--input"
    try:
        # Validated as JSON in strict mode, which takes a list for a tuple, but neither `true` nor "8" for a number.
        return Configuration.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UsageError(explain(error, Configuration, path, origins)) from None


def _read(path: str) -> tuple[str, str]:
    """Returns the text, and the path for messages."""
    try:
        if "://" in path:
            # Only a remote configuration costs the import of Beam.
            from apache_beam.io.filesystems import FileSystems

            with FileSystems.open(path) as file:
                content: bytes = file.read()
        elif not Path(path).exists() and (shipped := shipped_file(path)) is not None:
            path, content = str(shipped), shipped.read_bytes()
        else:
            content = Path(path).read_bytes()
        return content.decode(), path
    except FileNotFoundError:
        raise UsageError(no_such_file(path)) from None
    except IsADirectoryError:
        raise UsageError(f"--config: {path} is a directory, not a file") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config: {path} is not a text file in UTF-8") from None
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror or error}") from None


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, value = override.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise UsageError(f"--set should be KEY=VALUE, such as trainer.epochs=5. Received: {override!r}")
    return keys, parse_yaml(value, f"--set {override}")


def _set(values: dict[str, Any], keys: tuple[str, ...], value: Any, origin: str) -> None:
    try:
        set_dotted(values, ".".join(keys), value)
    except DotbiasError as error:
        raise UsageError(f"{origin}: {error}") from None
