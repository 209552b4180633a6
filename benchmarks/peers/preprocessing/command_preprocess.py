"""Runs the command that a user types, with a shipped configuration. Arguments: log, directory, configuration.

The seconds are those of the stage that the command prints: the pipeline, and the import of Beam and TensorFlow.
"""

import json
import shutil
import sys
from pathlib import Path

from dotbias.cli.main import main

log, directory, configuration = sys.argv[1:4]
shutil.rmtree(directory, ignore_errors=True)
Path(directory).mkdir()
facts = f"{directory}/facts.json"
code = main(["preprocess", "--config", configuration, "--input", log, "--output_root", directory, "--json", facts])
if code:
    sys.exit(code)
said = json.loads(Path(facts).read_text())
print(json.dumps({"seconds": said["seconds"]["preprocess"]}))
