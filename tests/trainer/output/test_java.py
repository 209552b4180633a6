"""An export asked by a client that is not Python: `examples/java`, with TensorFlow for Java."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.output.test_recommend import SIDES, make

PROJECT = Path(__file__).resolve().parents[3] / "examples" / "java"


def maven(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["mvn", "-q", "-B", "-f", str(project / "pom.xml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("needs Java and Maven")
    copy = tmp_path_factory.mktemp("java") / "client"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("target"))
    done = maven(copy, "compile")
    if done.returncode and ("Could not resolve" in done.stdout or "could not be resolved" in done.stdout):
        pytest.skip("Maven's repository has no TensorFlow for Java, or cannot be reached")
    assert done.returncode == 0, done.stdout
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("string_ids", [False, True])
def test_java_gets_the_lists_and_probabilities_that_python_gets(
    tmp_path: Path, project: Path, string_ids: bool
) -> None:
    exported = make(tmp_path, SIDES, string_ids)
    items, nothing = exported.items(), "" if string_ids else -1
    for user in (exported.rows["userId"][0], "nobody" if string_ids else 2**40):
        for exclude in ([], [items[0], items[4]]):
            words = [str(exported.export), str(user), "5", *map(str, exclude)]
            # No id has a single quote.
            done = maven(project, "exec:java", "-Dexec.args=" + " ".join(f"'{word}'" for word in words))
            assert done.returncode == 0, done.stdout + done.stderr
            # Maven colours the first line, in a batch too.
            printed = re.sub(r"\x1b\[\d*m", "", done.stdout)
            lines = [line.split("\t") for line in printed.splitlines() if "\t" in line]
            got = exported.ask("recommend", userId=[user], exclude=[exclude or [nothing]], k=5)
            assert [line[0] for line in lines] == [str(item) for item in got["items"][0].tolist()]
            numbers = np.array([line[1:] for line in lines], float)
            np.testing.assert_allclose(numbers[:, 0], got["scores"][0], rtol=1e-6)
            np.testing.assert_allclose(numbers[:, 1], got["probabilities"][0], rtol=1e-5)
            pairs = {"userId": [user] * 5, "movieId": got["items"][0]}
            np.testing.assert_allclose(
                numbers[:, 2], exported.ask("serving_default", **pairs)["probability"], rtol=1e-5
            )
