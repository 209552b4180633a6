"""Generates the data of the section `sample` once, under the output root."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from dotbias.cli.console.json_files import read_json, write_json
from dotbias.cli.console.progress import ProgressDisplay
from pipeline.config import SampleConfig
from pipeline.manifest import DotbiasError, fingerprint

_DESCRIPTION_NAME = "sample.json"
# 2020-01-01: files that are generated again are the same input, so they must not look newer.
_MODIFIED = 1_577_836_800


@dataclass(frozen=True)
class SampleData:
    """Names the files. `ceiling_auc` is the AUC of the true model on `test`; both are None without test rows."""

    train: str
    test: str | None
    ceiling_auc: float | None


def sample_data(output_root: str, config: SampleConfig, progress: ProgressDisplay) -> SampleData:
    """Generates the files unless there are files of the same options.

    Raises:
        DotbiasError: `output_root` is not a local directory.
    """
    if "://" in output_root:
        raise DotbiasError(f"the sample is generated on a local disk, and {output_root} is not; give --input")
    options = config.model_dump(mode="json")
    # Each set of options has a directory.
    directory = Path(output_root, "sample", fingerprint(options)[:8])
    if not (directory / _DESCRIPTION_NAME).exists():
        _generate(directory, config, progress)
    described = read_json(directory / _DESCRIPTION_NAME)
    test = str(directory / "test.csv") if config.test_rows else None
    return SampleData(str(directory / "train.csv"), test, described["test"]["ceiling_auc"] if test else None)


def _generate(directory: Path, config: SampleConfig, progress: ProgressDisplay) -> None:
    # Imported here, since the checks before need no Arrow.
    from pipeline.sample.generator import Subset, TrueModel, write_sample

    # Made aside, since runs at the same time share the sample.
    aside = directory.with_name(f"{directory.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(parents=True)
    model = TrueModel(config)
    description: dict[str, object] = {"options": config.model_dump(mode="json")}
    rows_of: dict[Subset, int] = {"train": config.rows, "test": config.test_rows}
    for subset, rows in rows_of.items():
        if rows:
            path = aside / f"{subset}.csv"
            written = write_sample(model, str(path), subset, rows, progress)
            os.utime(path, (_MODIFIED, _MODIFIED))
            description[subset] = {**asdict(written), "path": path.name}
    write_json(aside / _DESCRIPTION_NAME, description)
    if not (directory / _DESCRIPTION_NAME).exists():
        # Files that are not whole, which an earlier version could leave.
        shutil.rmtree(directory, ignore_errors=True)
    try:
        aside.rename(directory)
    except OSError:
        # Another run has been faster, and has the same files.
        shutil.rmtree(aside)
