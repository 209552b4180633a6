"""Runs stock TFT at its best: large Arrow batches, its own vocabularies; rows are encoded and counted, not written.

Arguments: log, directory, threshold.
"""

import functools
import json
import sys
import tempfile
import time

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam

from pipeline.config import PipelineConfig
from pipeline.input.sources import ReadInteractions, describe_input, open_source
from pipeline.vocabulary.transform import as_lists, tensor_adapter_config

log, _, threshold = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = PipelineConfig.model_validate(
    {
        "input": {"patterns": log},
        "columns": {"userId": "int64", "movieId": "int64", "clicked": "float32"},
        "label": {"column": "clicked"},
        "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
    }
)


def preprocessing_fn(inputs, threshold):
    return {
        name: tft.compute_and_apply_vocabulary(tokens, frequency_threshold=threshold, num_oov_buckets=1)
        for name, tokens in inputs.items()
    }


begin = time.perf_counter()
metadata = tensor_adapter_config(config, pa.schema([]))
rows = []
with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
    batches = (
        pipeline
        | ReadInteractions(open_source(config, describe_input(config, None), None), config)
        | beam.Map(lambda batch: as_lists(batch.rows.select(["userId", "movieId"])))
    )
    with tft_beam.Context(temp_dir=tempfile.mkdtemp()):
        (encoded, _), _ = (batches, metadata) | tft_beam.AnalyzeAndTransformDataset(
            functools.partial(preprocessing_fn, threshold=threshold), output_record_batches=True
        )
    _ = encoded | beam.Map(lambda batch: rows.append(len(batch[0])))
print(json.dumps({"seconds": time.perf_counter() - begin}))
