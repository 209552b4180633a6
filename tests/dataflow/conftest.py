"""Provides a bucket on loopback with a log in it, and a service that takes jobs."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from tests.dataflow.command import HEADER, ratings
from tests.dataflow.service import Service, dataflow_service
from tests.dataflow.storage import Storage, storage


@pytest.fixture(scope="package")
def log() -> dict[str, bytes]:
    """Returns files by name: 2000 rows as text and 1000 rows as gzip; the last row of each is bad."""
    return {
        "log/2026-11-23.csv": (HEADER + ratings(1999, seed=1) + "1,2,9.5,3\n").encode(),
        "log/2026-11-24.csv.gz": gzip.compress((HEADER + ratings(999, seed=2) + "1,two,3,4\n").encode(), mtime=0),
    }


@pytest.fixture(scope="package")
def bucket(tmp_path_factory: pytest.TempPathFactory, log: dict[str, bytes]) -> Iterator[Storage]:
    with storage(tmp_path_factory.mktemp("cloud")) as served:
        for name, data in log.items():
            served.write(name, data)
        yield served


@pytest.fixture
def service() -> Iterator[Service]:
    with dataflow_service() as served:
        yield served
