"""Runs this job as its command does, and times the pipeline alone.

Arguments: log, directory, and the threshold of a log of clicks or the name of a shipped configuration.
"""

import json
import shutil
import sys
import time

from dotbias.cli.configuration.load import load_configuration
from pipeline.config import PipelineConfig
from pipeline.preprocess import preprocess

log, directory, setting = sys.argv[1:4]
shutil.rmtree(directory, ignore_errors=True)
if setting.isdecimal():
    feature = {"frequency_threshold": int(setting)}
    config = PipelineConfig.model_validate(
        {
            "input": {"patterns": log},
            "columns": {"userId": "int64", "movieId": "int64", "clicked": "float32"},
            "label": {"column": "clicked"},
            "features": {"userId": {"side": "user", **feature}, "movieId": {"side": "item", **feature}},
        }
    )
else:
    config = load_configuration(setting, patterns=(log,)).pipeline
begin = time.perf_counter()
manifest = preprocess(directory, config, ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"])
print(json.dumps({"seconds": time.perf_counter() - begin, "rows": manifest.counts.read}))
