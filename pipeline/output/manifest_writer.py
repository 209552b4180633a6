"""`WriteManifest`, the last step, checks that all rows are accounted for and then writes the manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import apache_beam as beam

from pipeline.config import PipelineConfig
from pipeline.input.labels import positive_at
from pipeline.manifest import (
    MANIFEST_NAME,
    SPLITS,
    Column,
    Counts,
    DatasetManifest,
    DotbiasError,
    Feature,
    InputFile,
    Label,
    Shard,
    Split,
    counts_name,
    join,
    tool_versions,
    usual_name,
    vocabulary_name,
)
from pipeline.output.attempts import WrittenFile, delete_leftovers, publication_lock, publish, temporary_directory
from pipeline.output.existing import existing_manifest
from pipeline.output.shards import WrittenShard
from pipeline.output.tallies import LABEL_UNITS, Tally, by_frequency, check_same_rows
from pipeline.storage.files import read_file
from pipeline.storage.lock import lock
from pipeline.storage.matching import check_unchanged
from pipeline.vocabulary.frequency import VocabularyInfo

_LOGGER = logging.getLogger(__name__)


def info_path(temporary: str, feature: str) -> str:
    """Returns where the job keeps the `VocabularyInfo` of a feature until it writes the manifest."""
    return join(temporary, "vocabulary", f"{feature}.json")


def read_info(temporary: str, config: PipelineConfig) -> dict[str, VocabularyInfo]:
    """Reads the `VocabularyInfo` of each vocabulary-encoded feature."""
    return {
        name: VocabularyInfo.model_validate_json(read_file(info_path(temporary, name)))
        for name, feature in config.features.items()
        if feature.encoding == "vocabulary"
    }


class WriteManifest(beam.PTransform):
    """Publishes an attempt: (tally of interactions, tally of encoded rows, shards) -> path of the manifest.

    A retry that finds the manifest, or an attempt that finds that of another with the same configuration and input,
    leaves the dataset as it is.

    Args:
        dataset: directory of the dataset.
        attempt: directory that all files were written to; deleted at the end.
        config: goes into the manifest.
        files: the input, as it was before the job.
        others: a `WrittenFile` for each file that is no shard or vocabulary.
    """

    def __init__(
        self, dataset: str, attempt: str, config: PipelineConfig, files: list[InputFile], others: beam.PCollection
    ) -> None:
        super().__init__()
        self._dataset = dataset
        self._attempt = attempt
        self._config = config
        self._files = files
        self._others = others

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection, beam.PCollection]) -> beam.PCollection:
        interactions, encoded, shards = inputs
        return interactions | "Complete" >> beam.Map(
            self._write,
            beam.pvalue.AsSingleton(encoded),
            beam.pvalue.AsList(shards),
            beam.pvalue.AsList(self._others),
        )

    def _write(self, interactions: Tally, encoded: Tally, shards: list[WrittenShard], others: list[WrittenFile]) -> str:
        is_published = False
        if not self._is_complete():
            files = self._described(interactions)
            check_same_rows(interactions, encoded)
            info = read_info(temporary_directory(self._attempt), self._config)
            manifest = make_manifest(self._config, files, interactions, encoded, shards, info)
            with lock(publication_lock(self._dataset), f"dataset {self._dataset}", owner=self._attempt):
                # Another attempt may have been published before this one got the lock.
                if not self._is_complete():
                    publish(self._attempt, self._dataset, manifest, others)
                    is_published = True
        if not is_published:
            _LOGGER.warning(
                "%s was complete already, from another attempt or an earlier try of this one, and stays as it is",
                self._dataset,
            )
        delete_leftovers(self._attempt)
        return join(self._dataset, MANIFEST_NAME)

    def _described(self, interactions: Tally) -> list[InputFile]:
        """Describes the input for the manifest, after a check that it is still as it was before the job."""
        if self._config.input.format == "bigquery":
            return self._files
        files = [
            file.model_copy(update={"in_window": number not in interactions.left_out})
            for number, file in enumerate(self._files)
        ]
        check_unchanged(file for file in files if file.in_window)
        check_unchanged((file for file in files if not file.in_window), may_grow=True)
        return files

    def _is_complete(self) -> bool:
        return existing_manifest(self._dataset, self._config, self._files) is not None


def make_manifest(
    config: PipelineConfig,
    files: list[InputFile],
    interactions: Tally,
    encoded: Tally,
    shards: Iterable[WrittenShard],
    vocabularies: Mapping[str, VocabularyInfo],
) -> DatasetManifest:
    """Makes the manifest.

    Raises:
        DotbiasError: the shards do not hold the rows that were counted.
    """
    splits = {}
    for split in SPLITS:
        in_order = sorted((shard.shard for shard in shards if shard.split == split), key=lambda shard: shard.path)
        splits[split] = _split(in_order, split, encoded)
    return DatasetManifest(
        columns=_columns(config),
        label=Label(
            column=config.label.column,
            threshold=config.label.threshold,
            scale=config.label.scale,
            soft_weight=config.label.soft_weight,
            positive_at=positive_at(config.label),
        ),
        features={name: _feature(name, config, interactions, encoded, vocabularies) for name in config.features},
        splits=splits,
        counts=Counts(
            read=interactions.rows["read"],
            train=interactions.rows["train"],
            eval=interactions.rows["eval"],
            rejected=interactions.rejected.total(),
            out_of_window=interactions.rows["out_of_window"],
            duplicates=interactions.rows["duplicates"],
            vocabulary=None if config.vocabulary_since is None else interactions.rows["vocabulary"],
            rejected_by_reason=by_frequency(interactions.rejected),
            rejected_not_kept=by_frequency(interactions.not_kept),
        ),
        input=files,
        config=config.model_dump(mode="json"),
        versions=tool_versions(),
    )


def _columns(config: PipelineConfig) -> list[Column]:
    columns = [
        Column(
            name=name,
            dtype="int64" if feature.encoding == "vocabulary" else config.columns[name],
            role="feature",
        )
        for name, feature in config.features.items()
    ]
    columns.append(Column(name=config.label_name, dtype="float32", role="label"))
    if config.timestamp_column is not None:
        columns.append(Column(name=config.timestamp_column, dtype="int64", role="timestamp"))
    return columns


def _split(shards: list[Shard], split: str, encoded: Tally) -> Split:
    rows = sum(shard.rows for shard in shards)
    if rows != encoded.rows[split]:
        raise DotbiasError(
            f"the {split} shards hold {rows:,} rows, but {encoded.rows[split]:,} were sent to them. "
            "No manifest is written; please report this, with the job's log."
        )
    mean = encoded.label_sums[split] / LABEL_UNITS / rows if rows else None
    return Split(
        rows=rows,
        positive_rows=encoded.positive_rows[split],
        label_mean=mean,
        shards=shards,
        first_timestamp=encoded.first_timestamp.get(split),
    )


def _feature(
    name: str,
    config: PipelineConfig,
    interactions: Tally,
    encoded: Tally,
    vocabularies: Mapping[str, VocabularyInfo],
) -> Feature:
    feature, dtype = config.features[name], config.columns[name]
    assert dtype != "float32"
    usual = usual_name(name) if any(name in features[1:] for features in config.combined_features) else None
    if feature.encoding == "hashing":
        return Feature(side=feature.side, encoding="hashing", token_dtype=dtype, usual_path=usual)
    return Feature(
        side=feature.side,
        encoding="vocabulary",
        token_dtype=dtype,
        frequency_threshold=vocabularies[name].frequency_threshold,
        vocabulary_size=vocabularies[name].size,
        num_oov_buckets=feature.num_oov_buckets,
        vocabulary_path=vocabulary_name(name),
        counts_path=counts_name(name),
        fingerprint=vocabularies[name].fingerprint,
        oov_rows={split: encoded.oov_rows[name, split] for split in SPLITS},
        vocabulary_oov_rows=(
            None if config.vocabulary_since is None else interactions.rows["vocabulary"] - vocabularies[name].rows
        ),
        usual_path=usual,
    )
