"""A shim for Beam's `--setup_file`, which wants a setup.py; everything is in pyproject.toml."""

from setuptools import setup

setup()
