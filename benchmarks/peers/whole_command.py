"""Runs the command that a user types, in this process. Arguments: output root, then those of the command.

The seconds are those of the stages that the command prints.
"""

import json
import sys
from pathlib import Path

from dotbias.cli.main import main

root, *arguments = sys.argv[1:]
facts = Path(root) / "facts.json"
Path(root).mkdir(parents=True, exist_ok=True)
code = main([*arguments, "--output_root", root, "--json", str(facts)])
if code:
    sys.exit(code)
print(json.dumps({"seconds": json.loads(facts.read_text())["seconds"]}))
