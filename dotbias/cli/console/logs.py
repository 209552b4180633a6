"""Chooses which logs of the libraries a user sees."""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# These log the traceback of an exception that this process also raises and shows.
_REPEATED = (
    "apache_beam.runners.common",
    "apache_beam.runners.portability.local_job_service",
    "apache_beam.runners.worker.sdk_worker",
)


def set_up_logs(verbose: bool) -> None:
    """Sets levels and filters. Call it before TensorFlow and Beam are imported: native parts read the environment once.

    Child processes, such as Beam's workers, inherit the environment.
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for name, value in {
        # Errors come as Python exceptions; these only print notes about CPU flags and missing GPUs.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GRPC_VERBOSITY": "ERROR",
        "GLOG_minloglevel": "2",
        "PYTHONWARNINGS": "ignore",
    }.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    for name in ("absl", "tensorflow", "apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _REPEATED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # It says where training continues and how much memory it takes.
    logging.getLogger("trainer.train").setLevel(logging.INFO)
    # The address and state of a job are useful; its description has thousands of lines.
    logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.INFO)
    logging.getLogger("apache_beam.runners.dataflow.internal.apiclient").addFilter(_is_the_address_of_a_job)


def _is_the_address_of_a_job(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.getMessage().startswith("To access the Dataflow monitoring console")


@contextmanager
def silent_imports(verbose: bool) -> Iterator[None]:
    """Drops what native libraries print while they are imported, and does not look for garbage meanwhile.

    TensorFlow 2.21 prints notes about the CPU and a missing GPU before its settings take effect. An import that fails
    still raises.
    """
    if verbose:
        with _without_collections():
            yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        with _without_collections():
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Turns the garbage collector off.

    Beam and TensorFlow make 800,000 objects that stay. Going through them again and again takes a quarter of the time
    of their import, and later of the time to build a graph.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _keep_what_is_imported()


@functools.cache
def _keep_what_is_imported() -> None:
    """Has the garbage collector leave out what exists, once: later there may be garbage, which would stay too."""
    gc.freeze()
