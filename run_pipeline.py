"""Runs the command `dotbias` from a checkout: `python run_pipeline.py --help`."""

import sys

from dotbias.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
