"""Writes a generated log to a file: `python -m pipeline.sample`."""

import sys

from pipeline.sample.generator import main

main(sys.argv[1:])
