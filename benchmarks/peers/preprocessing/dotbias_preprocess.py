"""Runs this job as its command does, and times the pipeline alone. Arguments: log, directory, threshold."""

import json
import shutil
import sys
import time

from pipeline.config import PipelineConfig
from pipeline.preprocess import preprocess

log, directory, threshold = sys.argv[1], sys.argv[2], int(sys.argv[3])
shutil.rmtree(directory, ignore_errors=True)
feature = {"frequency_threshold": threshold}
config = PipelineConfig.model_validate(
    {
        "input": {"patterns": log},
        "columns": {"userId": "int64", "movieId": "int64", "clicked": "float32"},
        "label": {"column": "clicked"},
        "features": {"userId": {"side": "user", **feature}, "movieId": {"side": "item", **feature}},
    }
)
begin = time.perf_counter()
manifest = preprocess(directory, config, ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"])
print(json.dumps({"seconds": time.perf_counter() - begin, "rows": manifest.counts.read}))
