"""Identifies an exported model by the content of its files."""

from __future__ import annotations

import hashlib

from pipeline.manifest import DotbiasError, join
from trainer.data.files import exists, read_bytes, walk


def export_fingerprint(directory: str) -> str:
    """Computes the SHA-256 of the files of an export.

    Raises:
        DotbiasError: the directory has no SavedModel.
    """
    if not exists(join(directory, "saved_model.pb")):
        raise DotbiasError(
            f"{directory} has no saved_model.pb, so there is no exported model. Run `--stage train` first, or name "
            "another export with --export."
        )
    digest = hashlib.sha256()
    for path, _, names in sorted(walk(directory)):
        for name in sorted(names):
            content = hashlib.sha256(read_bytes(join(path, name))).hexdigest()
            digest.update(f"{path.removeprefix(directory).strip('/')}/{name} {content}\n".encode())
    return digest.hexdigest()
