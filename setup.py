"""Serves Beam's `--setup_file`, which needs a setup.py; everything is in pyproject.toml."""

from setuptools import setup

setup()
