"""The data of the `sample` section: generated once, kept under the output root."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from dotbias.cli.console.json_files import read_json, write_json
from dotbias.cli.console.progress import ProgressDisplay
from pipeline.config import SampleConfig
from pipeline.manifest import DotbiasError, fingerprint

_DESCRIPTION_NAME = "sample.json"
# Files that are generated anew are the same input, so they should not look newer: 2020-01-01.
_MODIFIED = 1_577_836_800


@dataclass(frozen=True)
class SampleData:
    """`ceiling_auc` is what the true model reaches on the rows of `test`; both are None without test rows."""

    train: str
    test: str | None
    ceiling_auc: float | None


def sample_data(output_root: str, config: SampleConfig, progress: ProgressDisplay) -> SampleData:
    """Generates the files, unless those of the same options are there.

    Raises:
        DotbiasError: `output_root` is not a local directory.
    """
    if "://" in output_root:
        raise DotbiasError(f"the sample is generated on a local disk, and {output_root} is not; give --input")
    options = config.model_dump(mode="json")
    # Other options are other files, in another directory.
    directory = Path(output_root, "sample", fingerprint(options)[:8])
    if not (directory / _DESCRIPTION_NAME).exists():
        _generate(directory, config, progress)
    described = read_json(directory / _DESCRIPTION_NAME)
    test = str(directory / "test.csv") if config.test_rows else None
    return SampleData(str(directory / "train.csv"), test, described["test"]["ceiling_auc"] if test else None)


def _generate(directory: Path, config: SampleConfig, progress: ProgressDisplay) -> None:
    # Arrow is not needed for the checks before.
    from pipeline.sample.generator import Subset, TrueModel, write_sample

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    model = TrueModel(config)
    description: dict[str, object] = {"options": config.model_dump(mode="json")}
    rows_of: dict[Subset, int] = {"train": config.rows, "test": config.test_rows}
    for subset, rows in rows_of.items():
        if rows:
            path = directory / f"{subset}.csv"
            written = write_sample(model, str(path), subset, rows, progress)
            os.utime(path, (_MODIFIED, _MODIFIED))
            description[subset] = {**asdict(written), "path": path.name}
    # Written last: its presence means that the files are complete.
    write_json(directory / _DESCRIPTION_NAME, description)
