"""Mistypes commands: one line that says what to type instead, exit code 2, and no waiting for heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"apache_beam", "tensorflow", "tensorflow_transform", "tfx_bsl"}

# As `python run_pipeline.py` does for each line of flags, but says at the end which heavy modules were imported. Each
# command is a fork of a process that has read the configuration's models, which is most of the time of a start.
_COMMANDS = f"""
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
import pipeline.config, trainer.config
from dotbias.cli.main import main
assert not {HEAVY!r} & set(sys.modules)
for line in sys.stdin:
    flags, directory, output, environment = json.loads(line)
    if (child := os.fork()) == 0:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(directory)
        os.environ.update(environment)
        code = main(flags)
        print("imported", *sorted({HEAVY!r} & set(sys.modules)), flush=True)
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# Takes a directory, flags and variables of the environment; returns exit code, stdout and stderr.
Run = Callable[..., tuple[int, str, str]]

MOVIELENS = ("--config", str(ROOT / "configs" / "movielens.yaml"))
LOG = ("--input", "log.csv")

# (flags, what the line has to contain)
WITHOUT_BEAM: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    # Flags.
    (("--stage", "trian"), ("--stage", "'trian'", "'train'")),
    (("trian",), ("'trian'", "did you mean 'train'?")),
    (("evaluate", "--stage", "train"), ("named twice: evaluate and --stage train",)),
    (("train", "log.csv"), ("'log.csv'", "--input")),
    (("train", "--split", "eval"), ("--split belongs to --stage evaluate. Received: --stage train",)),
    (("--output-root", "x"), ("--output-root", "did you mean --output_root?")),
    (("--Run_ID", "x"), ("--Run_ID", "did you mean --run_id?")),
    (("log.csv",), ("'log.csv'", "--input")),
    (("--input",), ("--input", "expected at least one argument")),
    (("--run_id", "a/b"), ("--run_id", "'a/b'")),
    (("--output_root", ""), ("--output_root", "''")),
    (("--run_id", ""), ("--run_id", "''")),
    (("--run_id", ".."), ("--run_id", "'..'")),
    (("--split", "eval"), ("--split", "belongs to --stage evaluate", "--stage all")),
    ((*MOVIELENS, *LOG, "--stage", "train", "--export", "x"), ("--export", "belongs to --stage evaluate")),
    ((*MOVIELENS, *LOG, "--stage", "evaluate", "--split", "eval"), ("--split", "--input", "drop one")),
    (("--stage", "evaluate", "--split", "test"), ("--split", "'test'", "'eval'")),
    (("--stage", "evaluate", "--sample_users", "0"), ("--sample_users should be above 0 and at most 1", "0.0")),
    ((*MOVIELENS, "--stage", "evaluate", "--input", "missing.csv"), ("'missing.csv'", "matches no file")),
    (
        ("--titles", "x.csv", "--stage", "train"),
        ("--titles belongs to --stage all or evaluate",),
    ),
    (("--titles", "x.csv"), ("--titles", "there is no readable file x.csv")),
    ((*MOVIELENS, "--stage", "evaluate", "--titles", "x.csv"), ("--titles", "there is no readable file x.csv")),
    # Files.
    ((*MOVIELENS,), ("no input", "--input")),
    ((*MOVIELENS, "--input", "missing.csv"), ("'missing.csv'", "matches no file")),
    ((*MOVIELENS, "--input", "log.csv", "missing.csv"), ("'missing.csv'", "matches no file")),
    ((*MOVIELENS, "--input", "log.csv", "--input", "part-*.csv"), ("'part-*.csv'", "matches no file")),
    ((*MOVIELENS, "--input", "."), ("'.'", "is a directory")),
    (("--config", "missing.yaml"), ("--config", "there is no file missing.yaml")),
    (("--config", "movieland"), ("there is no file movieland", "did you mean --config movielens?")),
    (("--config", "."), ("--config", "is a directory")),
    # Configuration: keys.
    ((*MOVIELENS, *LOG, "--set", "trainer.embeding_dim=3"), ("`trainer.embedding_dim`?", "--set")),
    ((*MOVIELENS, *LOG, "--set", "embedding_dim=3"), ("`embedding_dim`", "did you mean `trainer.embedding_dim`?")),
    ((*MOVIELENS, *LOG, "--set", "pipline.seed=3"), ("`pipline`", "did you mean `pipeline`?")),
    (
        (*MOVIELENS, *LOG, "--set", "pipeline.features.userId.top=3"),
        ("`pipeline.features.userId.top`", "did you mean `pipeline.features.userId.top_k`?"),
    ),
    ((*MOVIELENS, *LOG, "--set", "colour=red"), ("`colour`", "known here: pipeline, trainer, sample")),
    ((*MOVIELENS, *LOG, "--set", "trainer.batch_size"), ("KEY=VALUE", "'trainer.batch_size'")),
    ((*MOVIELENS, *LOG, "--set", "trainer..seed=1"), ("KEY=VALUE", "'trainer..seed=1'")),
    ((*MOVIELENS, *LOG, "--set", "trainer.seed.x=1"), ("`trainer.seed` has no keys of its own", "42")),
    # Configuration: values.
    ((*MOVIELENS, *LOG, "--set", "trainer.embedding_dim=1"), ("`trainer.embedding_dim`", "equal to 2", "Received: 1")),
    ((*MOVIELENS, *LOG, "--set", "trainer.epochs=true"), ("`trainer.epochs`", "integer", "Received: True")),
    ((*MOVIELENS, *LOG, "--set", "trainer.epochs="), ("`trainer.epochs`", "integer", "Received: None")),
    ((*MOVIELENS, *LOG, "--set", "trainer.optimizer.learning_rate=.inf"), ("`trainer.optimizer.learning_rate`", "inf")),
    ((*MOVIELENS, *LOG, "--set", "pipeline.split.eval_fraction=1"), ("`pipeline.split.eval_fraction`", "less than 1")),
    ((*MOVIELENS, *LOG, "--set", "pipeline.label.scale=[5, 1]"), ("`pipeline.label`", "low < high", "[5.0, 1.0]")),
    ((*MOVIELENS, *LOG, "--set", "pipeline.columns={a: 1, a: 2}"), ("`a` is there twice",)),
    ((*MOVIELENS, *LOG, "--set", "pipeline.columns={a: "), ("--set", "expected the node content")),
    # Configuration: what the two sections say of each other.
    (
        (*MOVIELENS, *LOG, "--set", "trainer.hashing.movieId.num_bins=9"),
        ("`trainer.hashing.movieId`", "encoding: hashing", "Received: vocabulary"),
    ),
    ((*MOVIELENS, *LOG, "--set", "trainer.hashing.movie.num_bins=9"), ("`trainer.hashing.movie`", "'movieId'")),
    (
        (*MOVIELENS, *LOG, "--set", "pipeline.features.movieId={side: item, encoding: hashing}"),
        ("`trainer.hashing.movieId.num_bins` is required",),
    ),
]

# Only Beam can tell, so Beam is imported; TensorFlow is not.
WITH_BEAM: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((*MOVIELENS, *LOG, "--direct_num_worker", "2"), ("--direct_num_worker;", "did you mean --direct_num_workers?")),
    ((*MOVIELENS, *LOG, "--conf", "x.yaml"), ("--conf;", "did you mean --config?")),
    ((*MOVIELENS, *LOG, "--epochs", "5"), ("--epochs;", "--set trainer.epochs=")),
    ((*MOVIELENS, *LOG, "--zzz"), ("--zzz;", "not a flag of Dotbias or Beam")),
    ((*MOVIELENS, *LOG, "--direct_num_workers", "two"), ("--direct_num_workers", "invalid int value: 'two'")),
    ((*MOVIELENS, *LOG, "--direct_running_mode", "fast"), ("--direct_running_mode", "'fast'", "multi_processing")),
    ((*MOVIELENS, *LOG, "--temp_location"), ("--temp_location", "expected one argument")),
    (
        (*MOVIELENS, *LOG, "--runner", "DataflowRunner", "--region", "r"),
        ("Dataflow needs --project PROJECT and --temp_location gs://BUCKET/tmp",),
    ),
    (
        (*MOVIELENS, *LOG, "--runner", "dataflow", "--region=r", "--project=pro-ject", "--temp_location=/tmp"),
        ("--temp_location", "gs://", "'/tmp'"),
    ),
    ((*MOVIELENS, *LOG, "--runner", "beam.NoRunner"), ("'beam.NoRunner'", "cannot be imported")),
    ((*MOVIELENS, *LOG, "--runner", "DataflowRuner"), ("'DataflowRuner'", "did you mean DataflowRunner?")),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.0,5\n")
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    output = tmp_path_factory.mktemp("output")
    command = [sys.executable, "-c", _COMMANDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, answered = process.stdin, process.stdout

        def run(directory: Path, *flags: str, **environment: str) -> tuple[int, str, str]:
            print(json.dumps([flags, str(directory), str(output), environment]), file=asked, flush=True)
            code = int(answered.readline())
            return code, (output / "stdout").read_text(), (output / "stderr").read_text()

        yield run


def assert_one_line(stderr: str, parts: tuple[str, ...]) -> None:
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("run_pipeline.py: error: ")
    for part in parts:
        assert part in stderr


@pytest.mark.parametrize(("flags", "parts"), WITHOUT_BEAM, ids=lambda value: " ".join(value)[-60:])
def test_one_line_without_heavy_imports(
    run: Run, directory: Path, flags: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    code, stdout, stderr = run(directory, *flags)
    assert_one_line(stderr, parts)
    assert code == 2
    assert stdout == "imported\n"
    # Nothing was begun.
    assert {path.name for path in directory.iterdir()} == {"log.csv"}


@pytest.mark.parametrize(("flags", "parts"), WITH_BEAM, ids=lambda value: " ".join(value)[-60:])
def test_one_line_from_beam(run: Run, directory: Path, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    code, stdout, stderr = run(directory, *flags)
    assert_one_line(stderr, parts)
    assert code == 2
    assert stdout == "imported apache_beam\n"
    assert {path.name for path in directory.iterdir()} == {"log.csv"}


def test_training_without_a_dataset(run: Run, directory: Path) -> None:
    code, stdout, stderr = run(directory, *MOVIELENS, "--stage", "train")
    assert_one_line(stderr, ("out/runs/movielens/dataset", "--stage preprocess"))
    assert code == 1
    assert stdout == "imported\n"


def test_help_names_every_flag(run: Run, directory: Path) -> None:
    code, stdout, stderr = run(directory, "--help")
    assert (code, stderr) == (0, "")
    for flag in ("--config", "--input", "--output_root", "--run_id", "--stage", "--set", "--runner", "--verbose"):
        assert f"  {flag} " in stdout


FILES = [
    # A duplicate key, with its line.
    ("pipeline:\n  seed: 1\n  seed: 2\n", ("config.yaml, line 3", "`seed` is there twice")),
    # A tab where YAML wants spaces.
    ("pipeline:\n\tseed: 1\n", ("config.yaml, line 2",)),
    ("", ("config.yaml", "`pipeline` and `trainer`", "None")),
    ("- a\n", ("config.yaml", "['a']")),
    ("trainer: {epochs: 3}\n", ("error: config.yaml: `pipeline.columns` is required", "(and 2 more)")),
    # The misspelt key explains the missing one.
    (
        "pipeline:\n  columns: {u: int64, y: float32}\n  features: {u: {side: user}}\n  lable: {column: y}\n",
        ("config.yaml", "`pipeline.lable`", "did you mean `pipeline.label`?", "(and 1 more)"),
    ),
    (b"pipeline: \xff\n", ("config.yaml", "UTF-8")),
]


@pytest.mark.parametrize(("content", "parts"), FILES)
def test_a_file_that_is_no_configuration(
    run: Run, directory: Path, content: str | bytes, parts: tuple[str, ...]
) -> None:
    (directory / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, stdout, stderr = run(directory, "--config", "config.yaml", *LOG)
    assert_one_line(stderr, parts)
    assert code == 2
    assert stdout == "imported\n"


@pytest.mark.parametrize(
    ("stage", "index", "refused"),
    [("tune", 0, True), ("compare_encodings", 0, True), ("evaluate", 1, True), ("evaluate", 0, False)],
)
def test_several_workers_are_for_training(run: Run, directory: Path, stage: str, index: int, refused: bool) -> None:
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": index}}
    flags = (*MOVIELENS, "--stage", stage, *(LOG if stage == "compare_encodings" else ()))
    code, _, stderr = run(directory, *flags, TF_CONFIG=json.dumps(cluster))
    if refused:
        assert_one_line(stderr, (f"--stage {stage}", "TF_CONFIG names 2 workers"))
    else:
        # The chief gets as far as the missing dataset.
        assert_one_line(stderr, ("has no readable manifest.json",))
    assert code == (2 if refused else 1)
    assert {path.name for path in directory.iterdir()} == {"log.csv"}


def test_workers_do_not_make_a_dataset_each(run: Run, directory: Path) -> None:
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    code, _, stderr = run(directory, *MOVIELENS, *LOG, TF_CONFIG=json.dumps(cluster))
    assert_one_line(stderr, ("is not complete", "--stage preprocess once, without TF_CONFIG"))
    assert code == 2
