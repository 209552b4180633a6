"""The flags of `run_pipeline.py`. What is not known here is left for Beam."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn, get_args

from dotbias.cli.failures import UsageError

# Found beside run_pipeline.py, wherever the command is started.
SAMPLE_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "sample.yaml"

Stage = Literal["plan", "preprocess", "train", "tune", "evaluate", "compare_encodings", "all"]

_DESCRIPTION = """\
From an interaction log to a dot-product-plus-bias model that can be served.
An Apache Beam job turns the log into training shards; a TensorFlow trainer turns the shards into a SavedModel."""

_EXAMPLES = """\
examples:
  python run_pipeline.py
      the sample: generates interactions, preprocesses them and trains, on this machine
  python run_pipeline.py --config configs/movielens.yaml --input 'ratings*.csv' --run_id 2026-11-24
      your own log
  python run_pipeline.py --config configs/movielens.yaml --input ratings.csv --set trainer.embedding_dim=64
      another value for one key of the configuration
  python run_pipeline.py --config configs/movielens.yaml --stage evaluate --input new.csv
      the model of that run, measured on rows that it has not seen
  python run_pipeline.py --config gs://bucket/retrain.yaml --output_root gs://bucket/out --stage preprocess \\
      --runner DataflowRunner --project my-project --region europe-west1 --temp_location gs://bucket/tmp
      the Beam job on Dataflow

All other flags go to Beam, such as --runner, --direct_num_workers and --direct_running_mode.
A command that is started again skips what is finished. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
130 stopped by Ctrl-C and 143 by SIGTERM: the same command goes on, training from a checkpoint made for the purpose."""


@dataclass(frozen=True)
class Arguments:
    """`input` stands in for `pipeline.input.patterns` unless it is empty; `beam` holds the flags not known here.

    `split` is None where new files are evaluated, or nothing is; `export` where the run's own is,
    `titles` where items have none.
    """

    config: str
    input: tuple[str, ...]
    output_root: str
    run_id: str
    stage: Stage
    split: Literal["train", "eval"] | None
    export: str | None
    titles: str | None
    overrides: tuple[str, ...]
    runner: str | None
    verbose: bool
    beam: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would print the usage as well; what is wrong should not be searched for.
        raise UsageError(message)


def parse_arguments(argv: list[str]) -> Arguments:
    """Raises `UsageError` for what can be judged without Beam; `--help` prints and exits."""
    parser = _parser()
    known, others = parser.parse_known_args(argv)
    _refuse_what_cannot_be_beams(others, _flags_of(parser))
    _check_evaluation(known)
    config = known.config or str(SAMPLE_CONFIG)
    return Arguments(
        config=config,
        input=tuple(known.input),
        output_root=known.output_root.rstrip("/") or "/",
        run_id=PurePosixPath(config).stem if known.run_id is None else _checked_run_id(known.run_id),
        stage=known.stage,
        split=known.split or ("eval" if known.stage == "evaluate" and not known.input else None),
        export=known.export,
        titles=known.titles,
        overrides=tuple(known.set),
        runner=known.runner,
        verbose=known.verbose,
        beam=tuple(others),
    )


def own_flags() -> list[str]:
    """The flags that `parse_arguments` knows, to suggest one of them."""
    return _flags_of(_parser())


def _flags_of(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def _parser() -> _Parser:
    # No abbreviations: `--conf` is a typing error, and `--input_file` could be Beam's one day.
    parser = _Parser(
        prog="run_pipeline.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a YAML file with the sections `pipeline` and `trainer`; default: the sample"
    )
    parser.add_argument(
        "--input",
        metavar="PATTERN",
        nargs="+",
        action="extend",
        default=[],
        help="files or globs of the log, local or gs://; instead of `pipeline.input.patterns`",
    )
    parser.add_argument(
        "--output_root", metavar="DIRECTORY", default="out", help="runs go to DIRECTORY/runs/; default: %(default)s"
    )
    parser.add_argument(
        "--run_id", metavar="NAME", help="the run's directory, for instance its date; default: the name of the file"
    )
    parser.add_argument(
        "--stage",
        choices=get_args(Stage),
        default="all",
        help="what to do; `all` preprocesses, trains and evaluates on the eval rows, `plan` looks at a sample of the "
        "log and says what it will take, `tune` searches for better options of the trainer on a dataset that is there, "
        "`evaluate` measures an exported model on a split of it or on the new files of --input, `compare_encodings` "
        "trains with vocabularies and with hashing, and says which to take; default: %(default)s",
    )
    parser.add_argument("--split", choices=("eval", "train"), help="what to evaluate; default: eval, without --input")
    parser.add_argument("--export", metavar="DIRECTORY", help="the exported model to evaluate; default: the run's own")
    parser.add_argument(
        "--titles", metavar="FILE", help="a CSV file with titles and ids of items, for the report of an evaluation"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another value for one key, e.g. trainer.epochs=5; repeatable",
    )
    parser.add_argument(
        "--runner", metavar="RUNNER", help="where the Beam job runs; default: in this process (DirectRunner)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the logs of Beam and TensorFlow")
    return parser


def _refuse_what_cannot_be_beams(others: list[str], flags: list[str]) -> None:
    if others and not others[0].startswith("-"):
        raise UsageError(f"unexpected argument {others[0]!r}; files of the log go behind --input")
    for argument in others:
        name = argument.split("=", maxsplit=1)[0]
        # Beam spells its flags with underscores, so these can only be meant for us.
        if name not in flags and name.lower().replace("-", "_").replace("__", "--", 1) in flags:
            suggestion = difflib.get_close_matches(name.lower().replace("-", "_"), flags, n=1, cutoff=0)[0]
            raise UsageError(f"unknown flag {name}; did you mean {suggestion}?")


def _check_evaluation(known: argparse.Namespace) -> None:
    if known.titles is not None and known.stage not in ("evaluate", "all"):
        raise UsageError(f"--titles is for the report of an evaluation. Received: --stage {known.stage}")
    for flag in ("split", "export"):
        if getattr(known, flag) is not None and known.stage != "evaluate":
            raise UsageError(f"--{flag} belongs to --stage evaluate. Received: --stage {known.stage}")
    if known.split is not None and known.input:
        raise UsageError("--stage evaluate measures either a --split of the dataset or the files of --input: leave one")


def _checked_run_id(run_id: str) -> str:
    if not run_id or "/" in run_id or run_id in (".", "..") or run_id != run_id.strip():
        raise UsageError(f"`--run_id` should be the name of one directory, such as 2026-11-24. Received: {run_id!r}")
    return run_id
