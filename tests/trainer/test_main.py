from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset


def test_the_command(
    dataset: Dataset, config: TrainerConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"trainer": config.model_dump(mode="json")}))
    arguments = ["--dataset", dataset.path, "--model_dir", str(tmp_path / "model"), "--config"]
    assert main([*arguments, str(tmp_path / "config.yaml")]) == 0
    assert "eval auc: 0." in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text("trainer: {embeding_dim: 4}")
    assert main([*arguments, str(tmp_path / "config.yaml")]) == 2
    assert "embeding_dim" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("trainer: {embedding_dim: 3}")
    assert main([*arguments, str(tmp_path / "config.yaml")]) == 1
    assert "another run" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
