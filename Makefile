# Contributors and CI run these. Needs python3 (3.10 to 3.13, with venv) and make, nothing else.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed.lock

.PHONY: help setup run test test-all check docs prism format lock clean

help:
	@echo "make setup     make $(VENV) from requirements.lock (nothing to do if it is current)"
	@echo "make run       the sample, end to end: generate, preprocess, train, export"
	@echo "make check     ruff and mypy"
	@echo "make test      the tests, without the slow ones"
	@echo "make test-all  all tests"
	@echo "make docs      the docs site, in build/site/"
	@echo "make prism     build Beam's portable runner for the tests that compare engines (needs go)"
	@echo "make format    let ruff rewrite what it can"
	@echo "make lock      resolve requirements.lock and the workers' part of it anew (needs uv)"
	@echo "make clean     remove $(VENV) and the sample's output"

setup: $(INSTALLED)

# The copy of the lock is written last, so an interrupted installation begins again.
$(INSTALLED): requirements.lock
	@cmp -s requirements.lock $@ && touch $@ || { \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	    || { echo "Dotbias needs Python 3.10 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV) && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock && \
	  cp requirements.lock $@; }

run: setup
	$(PY) run_pipeline.py

test: setup
	$(PY) -m pytest -m "not slow" --numprocesses auto --dist loadfile

test-all: setup
	$(PY) -m pytest

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The variable silences a notice about other tools.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# In the version of Beam that is installed.
prism: setup
	GOBIN=$(abspath $(VENV)/bin) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$$( \
	  $(PY) -c 'from importlib.metadata import version; print(version("apache-beam"))')

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

LOCK := uv pip compile pyproject.toml --universal --python-version 3.10 --generate-hashes --custom-compile-command 'make lock'

# A worker of the Beam job needs the extra `pipeline`, and the image, which also trains, needs `all`, in the same versions.
lock:
	$(LOCK) --extra dev --upgrade --output-file requirements.lock
	$(LOCK) --extra pipeline --constraint requirements.lock --output-file deploy/worker-requirements.txt
	$(LOCK) --extra all --constraint requirements.lock --output-file deploy/image-requirements.txt

clean:
	rm -rf $(VENV) out build *.egg-info
