"""`python -m pipeline.sample`: writes a generated log to a file."""

import sys

from pipeline.sample.generator import main

main(sys.argv[1:])
