"""Recommends items to all users of a run, or those of a file: prepares the arrays and runs the job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.options.pipeline_options import GoogleCloudOptions

from dotbias.evaluation.exported.fingerprint import export_fingerprint
from dotbias.recommending.inputs import TOKEN_TYPES, Side, write_array, write_block, write_side
from dotbias.recommending.job import Job, build
from dotbias.recommending.listed import users_of_file, users_of_table
from dotbias.recommending.results import Excluded, Format, Recommendations, read_recommendations
from dotbias.recommending.seen import SeenFile, shards_of
from dotbias.recommending.watch import watched
from pipeline.beam.options import ViewedOptions
from pipeline.beam.submission import Submission, ends_with_the_job, runs_in_process, submission
from pipeline.input.bigquery import describe_table_named
from pipeline.manifest import DotbiasError, InputFile, Progress, fingerprint, join, read_manifest, tool_versions
from pipeline.output.attempts import (
    ATTEMPTS_DIRECTORY,
    continued_attempt,
    delete_ended_attempts,
    delete_leftovers,
    new_attempt,
)
from pipeline.storage.matching import match_input
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup
from trainer.output.catalogue import Tokens, read_list, side_features, side_rows, side_vectors
from trainer.output.catalogue import read_tokens as read_vocabulary
from trainer.output.export import load_export

RECOMMENDATIONS_DIRECTORY = "recommendations"
# Users of a part, and of an element of the job: their vectors and train rows are in memory at once.
BLOCK = 4096


@dataclass(frozen=True)
class RecommendRequest:
    """Holds the options of the recommendations.

    Attributes:
        run: directory with `dataset`; the result goes to `recommendations` in it.
        export: a model of that dataset.
        k: items of a list, at least 1.
        format: of the files.
        users: a file with a token on each line, or a Parquet file with the column of the users.
        users_table: a BigQuery table with that column instead. None, both: all users of the vocabulary.
        items: a file with the allowed items; None: all that the export recommends.
        exclude: CSV or Parquet files or patterns, with the columns of users and items, of what is not to be listed.
        splits: of the dataset, whose rows are not to be listed.
        table: a BigQuery table that gets the lists too; the run is on gs:// then, and the format Parquet.
    """

    run: str
    export: str
    k: int
    format: Format
    users: str | None = None
    users_table: str | None = None
    items: str | None = None
    exclude: Sequence[str] = ()
    splits: Sequence[str] = ("train",)
    table: str | None = None

    @property
    def dataset(self) -> str:
        return join(self.run, "dataset")

    @property
    def directory(self) -> str:
        return join(self.run, RECOMMENDATIONS_DIRECTORY)


def recommend(
    request: RecommendRequest, beam_arguments: list[str], progress: Progress
) -> tuple[Recommendations | Submission, bool]:
    """Recommend unless that is done; return the description, or the job if a service runs it, and whether it ran now.

    Recommendations of another request or another model are replaced.

    Raises:
        DotbiasError: dataset, export or files are missing or do not fit each other, or there is no user.
    """
    options = ViewedOptions(beam_arguments)
    project = options.view_as(GoogleCloudOptions).project
    manifest = read_manifest(request.dataset, tf.io.gfile.GFile)
    of_export = export_fingerprint(request.export)
    files = {
        "users": match_input([request.users]) if request.users else [],
        "items": match_input([request.items]) if request.items else [],
        "exclude": match_input(list(request.exclude)) if request.exclude else [],
    }
    if request.users_table is not None:
        files["users"] = [describe_table_named(request.users_table, project)]
    identity = fingerprint(
        {
            "dataset": fingerprint(manifest.model_dump(mode="json")),
            "export": of_export,
            "k": request.k,
            "format": request.format,
            "splits": list(request.splits),
            "table": request.table,
            "block": BLOCK,
            "files": {name: [file.model_dump(mode="json") for file in named] for name, named in files.items()},
            "versions": tool_versions(),
        }
    )
    there = read_recommendations(request.directory)
    if there is not None and there.fingerprint == identity:
        delete_leftovers(join(request.directory, ATTEMPTS_DIRECTORY))
        return there, False
    if runs_in_process(options):
        # A start after a kill finds the parts that were finished.
        attempt = continued_attempt(request.directory, identity)
    else:
        attempt = new_attempt(request.directory, on_a_service=True)
    delete_ended_attempts(request.directory, but=attempt)
    progress("recommend", 0, None, {})
    job = _prepare(request, Dataset(request.dataset, manifest, {}), files, identity, attempt, project)
    with ExitStack() as stack:
        if ends_with_the_job(options):
            stack.enter_context(watched(job, progress))
        pipeline = stack.enter_context(beam.Pipeline(options=options))
        build(pipeline, job)
    if not ends_with_the_job(options):
        return submission(pipeline.result), True
    made = read_recommendations(request.directory)
    assert made is not None
    delete_leftovers(join(request.directory, ATTEMPTS_DIRECTORY))
    return made, True


def _prepare(
    request: RecommendRequest,
    shards: Dataset,
    files: dict[str, list[InputFile]],
    identity: str,
    attempt: str,
    project: str | None,
) -> Job:
    """Write the arrays for the workers, and describe the job."""
    model, data = load_export(request.export)
    if {n: f.fingerprint for n, f in data.manifest.features.items()} != {
        n: f.fingerprint for n, f in shards.manifest.features.items()
    }:
        raise DotbiasError(
            f"{request.export} is a model of another dataset than {request.dataset}, whose train rows cannot be left "
            "out then; name the export of that run."
        )
    # With what the dataset says of several features of a side.
    data = Dataset(request.dataset, shards.manifest, data.num_bins)
    inputs = join(attempt, "tmp")
    items, unknown_items = _write_items(request, model, data, inputs)
    users, unknown_users = _write_users(request, model, data, inputs, project)
    return Job(
        directory=request.directory,
        attempt=attempt,
        users=users,
        items=items,
        bias=float(model.bias),
        block=BLOCK,
        k=request.k,
        format=request.format,
        seen=tuple(shards_of(data.manifest, request.dataset, request.splits)),
        exclude=tuple(SeenFile(file.path) for file in files["exclude"]),
        project=project,
        result=Recommendations(
            fingerprint=identity,
            export=request.export,
            k=request.k,
            format=request.format,
            splits=list(request.splits),
            table=request.table,
            users=users.size,
            items=items.size,
            unknown_users=unknown_users,
            unknown_items=unknown_items,
            rows=0,
            short=0,
            seen=Excluded(),
            exclude=Excluded(),
            files=files,
            parts=[],
            versions=tool_versions(),
        ),
    )


def _write_items(request: RecommendRequest, model: object, data: Dataset, inputs: str) -> tuple[Side, int]:
    """Write the vectors and tokens of the items; return them and how many listed ones the model does not know."""
    name = side_features(data, "item")[0]
    recommender = getattr(model, "recommender", None)
    if recommender is None:
        raise DotbiasError(
            f"{request.export} has no list of items: the ids of {name!r} are hashed, or its vocabulary is empty. For "
            "hashed ids, write an export with a list of them: `--stage export --items FILE`."
        )
    tokens = recommender.tokens.numpy()
    table = model.tables[name]  # type: ignore[attr-defined]
    stored = getattr(recommender, "vectors", None)
    vectors = table[: len(tokens)].numpy() if stored is None else stored.numpy()
    of_export = getattr(recommender, "allowed", None)
    chosen = np.arange(len(tokens)) if of_export is None else of_export.numpy()
    unknown = 0
    if request.items is not None:
        listed = read_list(request.items, data.manifest.features[name].token_dtype, "--items")
        at = {token: position for position, token in enumerate(tokens.tolist())}
        known = [at[token] for token in listed.tolist() if token in at]
        unknown = len(listed) - len(known)
        chosen = np.intersect1d(chosen, np.array(known, np.int64))
        if not len(chosen):
            raise DotbiasError(
                f"--items: none of the {len(listed):,} tokens of {request.items} is an item that {request.export} "
                f"recommends. Check that it holds tokens of {name!r}, one a line."
            )
    side = _side(data, "items", name, len(chosen))
    write_side(
        inputs,
        side,
        _arrow(tokens[chosen], side.dtype),
        chosen,
        data.manifest.features[name].vocabulary_size,
        data.table_rows[name],
    )
    write_array(inputs, "items.npy", vectors[chosen])
    return side, unknown


def _write_users(
    request: RecommendRequest, model: object, data: Dataset, inputs: str, project: str | None
) -> tuple[Side, int]:
    """Write the vectors and tokens of the users, in blocks; return them and how many the model does not know."""
    name = side_features(data, "user")[0]
    feature = data.manifest.features[name]
    known = feature.vocabulary_size
    if request.users is not None:
        tokens = users_of_file(request.users, name, feature.token_dtype)
    elif request.users_table is not None:
        tokens = users_of_table(request.users_table, name, feature.token_dtype, project)
    elif feature.vocabulary_path is not None and known:
        tokens = read_vocabulary(data.file(feature.vocabulary_path), feature.token_dtype)
    else:
        raise DotbiasError(
            f"Nothing lists the users: the ids of {name!r} are hashed, or its vocabulary is empty. Name them with "
            "--users FILE, one a line, or --users_table."
        )
    lookup = TokenLookup(data, name)
    rows = np.concatenate([lookup(tf.constant(part)).numpy() for part in _blocks(tokens)])
    side = _side(data, "users", name, len(tokens))
    write_side(inputs, side, _arrow(tokens, side.dtype), rows, known, data.table_rows[name])
    combinations = side_rows(data, "user")
    tables = model.tables  # type: ignore[attr-defined]
    for block, part in enumerate(_blocks(tokens)):
        of = rows[block * BLOCK : block * BLOCK + len(part)]
        write_block(inputs, block, side_vectors(combinations, tables, of), _arrow(part, side.dtype))
    return side, 0 if known is None else int((rows >= known).sum())


def _blocks(tokens: Tokens) -> list[Tokens]:
    return [tokens[start : start + BLOCK] for start in range(0, len(tokens), BLOCK)]


def _side(data: Dataset, side: str, name: str, size: int) -> Side:
    feature = data.manifest.features[name]
    return Side(side, name, feature.token_dtype, feature.encoding == "hashing", size)


def _arrow(tokens: Tokens, dtype: str) -> pa.Array:
    return pa.array(tokens, TOKEN_TYPES[dtype])
