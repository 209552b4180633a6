"""Compares the dataset in a directory with the one that a configuration and an input would make."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.manifest import (
    MANIFEST_NAME,
    DatasetManifest,
    DotbiasError,
    InputFile,
    ManifestError,
    join,
    read_manifest,
)
from pipeline.storage.files import open_file
from pipeline.storage.matching import has_grown, is_unchanged
from pipeline.storage.trees import exists


def existing_manifest(dataset: str, config: PipelineConfig, files: list[InputFile]) -> DatasetManifest | None:
    """Returns the manifest of a complete dataset, None if there is none.

    Raises:
        DotbiasError: the dataset was made with another configuration or from another input.
        ManifestError: the manifest cannot be read.
    """
    try:
        manifest = read_manifest(dataset, open_file)
    except ManifestError:
        if not exists(join(dataset, MANIFEST_NAME)):
            return None
        raise
    there, wanted = (_flat(_that_matters(c)) for c in (manifest.config, config.model_dump(mode="json")))
    for key in sorted(there.keys() | wanted.keys()):
        if there.get(key) != wanted.get(key):
            raise DotbiasError(
                f"{dataset} was made with `pipeline.{key}` {json.dumps(there.get(key))}, not "
                f"{json.dumps(wanted.get(key))}. Choose another --run_id, or delete the directory."
            )
    for before, now in zip(manifest.input, files, strict=False):
        if not is_unchanged(before, now) and (before.in_window or not has_grown(before, now)):
            raise DotbiasError(
                f"{dataset} was made from another input: {_describe(before)} then, {_describe(now)} now. "
                "Choose another --run_id, or delete the directory."
            )
    if len(manifest.input) != len(files):
        raise DotbiasError(
            f"{dataset} was made from {len(manifest.input)} files, but the input has {len(files)} now. "
            "Choose another --run_id, or delete the directory."
        )
    return manifest


def _describe(file: InputFile) -> str:
    modified = f"{datetime.fromtimestamp(file.modified, timezone.utc):%Y-%m-%d %H:%M:%S}"
    return f"{file.path} ({file.bytes:,} bytes, modified {modified} UTC)"


def _that_matters(config: dict[str, Any]) -> dict[str, Any]:
    # Files are compared by themselves, whatever patterns name them. `counts_cache` and `lookup` change no row.
    return {
        **_without("counts_cache", config),
        "input": _without("patterns", config["input"]),
        "features": {name: _without("lookup", feature) for name, feature in config["features"].items()},
    }


def _without(key: str, section: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != key}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns values by dotted key; a section's own key holds the order of its keys, which matters for columns."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update({prefix + key: list(value), **_flat(value, f"{prefix}{key}.")})
        else:
            flat[prefix + key] = value
    return flat
