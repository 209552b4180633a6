"""Runs the examples in docstrings, and checks how docstrings begin."""

from __future__ import annotations

import doctest
import importlib

import pytest

# Module -> the functions that have an example.
EXAMPLES = {
    "pipeline.config": ["timestamp_of"],
    "pipeline.manifest": ["join", "shard_name"],
    "pipeline.rows.splits": ["quantile_cut"],
    "trainer.loop.defaults": [
        "automatic_batch_size",
        "automatic_bias_l2_factor",
        "automatic_learning_rate",
        "automatic_softmax_learning_rate",
    ],
    "dotbias.cli.configuration.yaml_files": ["parse_yaml"],
    "dotbias.evaluation.measure.metrics": ["accuracy", "auc", "brier", "log_loss"],
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module: str) -> None:
    imported = importlib.import_module(module)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(imported, module) if test.examples]
    assert sorted(test.name.removeprefix(f"{module}.") for test in found) == EXAMPLES[module]
    for test in found:
        output: list[str] = []
        result = doctest.DocTestRunner().run(test, out=output.append)
        assert result.failed == 0, "".join(output)
