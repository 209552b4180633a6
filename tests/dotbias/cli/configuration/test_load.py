"""Reads configurations: defaults, overrides, the installed files, and the known keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dotbias.cli.configuration.load import Configuration, load_configuration
from dotbias.cli.configuration.validation_errors import known_paths
from dotbias.cli.configuration.yaml_files import parse_yaml
from dotbias.cli.failures import UsageError
from pipeline.config import PipelineConfig
from trainer.config import TrainerConfig

CONFIGS = Path(__file__).resolve().parents[4] / "configs"

MINIMAL = """
pipeline:
  columns: {userId: int64, movieId: string, clicked: float32}
  label: {column: clicked}
  features:
    userId: {side: user}
    movieId: {side: item}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return str(path)


def test_what_is_left_out_has_the_defaults_of_the_models(minimal: str) -> None:
    configuration = load_configuration(minimal)
    assert configuration.trainer == TrainerConfig()
    assert configuration.pipeline == PipelineConfig.model_validate(yaml.safe_load(MINIMAL)["pipeline"])
    assert configuration.sample is None


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_open_with_their_command(path: Path) -> None:
    load_configuration(str(path))
    comment = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert "python run_pipeline.py" in comment
    if path.name != "sample.yaml":
        assert f"--config {path.stem} " in comment


def test_a_shipped_file_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_configuration("movielens") == load_configuration(str(CONFIGS / "movielens.yaml"))
    # A file of the user's goes before.
    (tmp_path / "movielens").write_text(MINIMAL)
    assert set(load_configuration("movielens").pipeline.columns) == {"userId", "movieId", "clicked"}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trainer.epochs=7", 7),
        (" trainer.epochs = 7", 7),
        ("trainer.optimizer.learning_rate=1e-3", 0.001),
        ("trainer.optimizer={name: sgd, learning_rate: 1}", {"name": "sgd", "learning_rate": 1.0}),
        ("trainer.verify_checksums=false", False),
        ("pipeline.features.userId.top_k=null", None),
        ("pipeline.features.movieId.num_oov_buckets=3", 3),
        ("pipeline.input.delimiter=;", ";"),
        ("pipeline.input.patterns=logs/*.csv", ["logs/*.csv"]),
        ("pipeline.input.patterns=[a.csv, b.csv]", ["a.csv", "b.csv"]),
        # An equals sign belongs to the value.
        ("pipeline.input.patterns=day=1.csv", ["day=1.csv"]),
        ("pipeline.input.patterns=2026-11-24", ["2026-11-24"]),
    ],
)
def test_overrides(minimal: str, override: str, value: object) -> None:
    found: Any = load_configuration(minimal, (override,)).model_dump(mode="json")
    for key in override.partition("=")[0].strip().split("."):
        found = found[key]
    assert found == value


def test_the_last_override_wins(minimal: str) -> None:
    assert load_configuration(minimal, ("trainer.epochs=3", "trainer.epochs=4")).trainer.epochs == 4


def test_input_stands_in_for_the_patterns(minimal: str) -> None:
    configuration = load_configuration(minimal, ("pipeline.input.patterns=a.csv",), ("b.csv", "c.csv"))
    assert configuration.pipeline.input.patterns == ("b.csv", "c.csv")


def test_an_override_of_a_section_keeps_its_neighbours(minimal: str) -> None:
    configuration = load_configuration(minimal, ("pipeline.features.userId.top_k=5",))
    assert configuration.pipeline.features["userId"].side == "user"
    assert configuration.pipeline.features["userId"].top_k == 5
    assert set(configuration.pipeline.features) == {"userId", "movieId"}


@pytest.mark.parametrize(
    ("overrides", "origin"),
    [
        (("trainer.epochs=0",), "--set trainer.epochs=0:"),
        (("trainer.epochs=3", "trainer.epochs=0"), "--set trainer.epochs=0:"),
        (("trainer={epochs: 0}",), "--set trainer={epochs: 0}:"),
        # What is wrong is the section: the rest of it stands in the file.
        (("pipeline.label.column=rating",), "minimal.yaml with --set pipeline.label.column=rating:"),
    ],
)
def test_an_error_names_where_the_value_came_from(minimal: str, overrides: tuple[str, ...], origin: str) -> None:
    with pytest.raises(UsageError) as error:
        load_configuration(minimal, overrides)
    assert str(error.value).removeprefix(minimal.removesuffix("minimal.yaml")).startswith(origin)


def test_every_known_path_is_accepted_by_its_model() -> None:
    """Suggestions come from `known_paths`, so it has to agree with what pydantic accepts."""
    paths = set(known_paths(Configuration))
    assert ("pipeline",) in paths
    assert ("pipeline", "features", "<name>", "num_oov_buckets") in paths
    assert ("trainer", "optimizer", "learning_rate") in paths
    assert ("sample", "token_type") in paths

    def keys(value: Any, at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        named = at in {("pipeline", "features"), ("trainer", "hashing")}
        if not isinstance(value, dict) or at == ("pipeline", "columns"):
            return set()
        own = set() if named else {(*at, key) for key in value}
        return own.union(*(keys(below, (*at, "<name>" if named else key)) for key, below in value.items()))

    for path in CONFIGS.glob("*.yaml"):
        written = keys(load_configuration(str(path)).model_dump(mode="json"))
        assert {found for found in written} <= paths


# Texts that YAML writes without losing anything; other control characters it refuses to write.
_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Co", "Cn"), blacklist_characters="\ufeff\u2028\u2029"))
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXT)
_VALUES = st.recursive(
    _SCALARS, lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(_TEXT, below, max_size=3))
)


@given(_VALUES)
def test_yaml_round_trip(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "here") == value


_CONFIGURATIONS = st.builds(
    lambda trainer: {"pipeline": yaml.safe_load(MINIMAL)["pipeline"], "trainer": trainer},
    st.fixed_dictionaries(
        {},
        optional={
            "embedding_dim": st.integers(2, 10_000),
            "batch_size": st.integers(1, 10**6),
            "l2": st.floats(0, 1e6),
            "seed": st.integers(0, 2**31 - 1),
            "optimizer": st.fixed_dictionaries(
                {}, optional={"name": st.sampled_from(["sgd", "adam"]), "learning_rate": st.floats(1e-9, 10)}
            ),
        },
    ),
)


@given(_CONFIGURATIONS)
def test_a_configuration_survives_being_written_and_read(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    first = load_configuration(str(path))
    path.write_text(yaml.safe_dump(first.model_dump(mode="json")))
    assert load_configuration(str(path)) == first
    assert first.trainer.model_dump(exclude_unset=True) == values["trainer"]
