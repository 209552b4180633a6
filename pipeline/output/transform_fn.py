"""`WriteTransformFn` keeps TensorFlow Transform's graph with the dataset."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from tensorflow_transform.beam.tft_beam_io.beam_metadata_io import BeamDatasetMetadata, WriteMetadata
from tensorflow_transform.output_wrapper import TFTransformOutput

from pipeline.manifest import TRANSFORM_FN_DIRECTORY, join
from pipeline.output.attempts import WrittenFile
from pipeline.storage.trees import copy_file, file_sizes


class WriteTransformFn(beam.PTransform):
    """Writes `transform_fn/` and `transformed_metadata/` and yields a `WrittenFile` for each file.

    TFT's own transform of this name moves its copy away and deletes what is in the way, so a retry of its last step
    deletes the result. Here every step writes the same files again.

    Args:
        directory: where to write.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def expand(self, transform_fn: tuple[beam.PCollection, BeamDatasetMetadata]) -> beam.PCollection:
        saved_model, metadata = transform_fn
        graph = saved_model | "CopyGraph" >> beam.FlatMap(_copy_graph, self._directory)
        metadata_directory = join(self._directory, TFTransformOutput.TRANSFORMED_METADATA_DIR)
        described = (
            metadata
            | "WriteMetadata" >> WriteMetadata(metadata_directory, saved_model.pipeline)
            | "ListMetadata" >> beam.FlatMap(_list, TFTransformOutput.TRANSFORMED_METADATA_DIR)
        )
        return (graph, described) | beam.Flatten()

    def _extract_input_pvalues(self, transform_fn: Any) -> tuple[Any, list[Any]]:
        saved_model, metadata = transform_fn
        return transform_fn, [saved_model, metadata.deferred_metadata]


def _copy_graph(saved_model: str, directory: str) -> list[WrittenFile]:
    # TFT keeps its metadata in a hidden directory beside the graph.
    sizes = {name: size for name, size in file_sizes(saved_model).items() if not name.startswith(".")}
    for name in sizes:
        copy_file(join(saved_model, name), join(directory, TRANSFORM_FN_DIRECTORY, name))
    return [WrittenFile(f"{TRANSFORM_FN_DIRECTORY}/{name}", size) for name, size in sorted(sizes.items())]


def _list(path: str, name: str) -> list[WrittenFile]:
    sizes = file_sizes(path)
    return [WrittenFile(f"{name}/{file}", sizes[file]) for file in sorted(sizes)]
