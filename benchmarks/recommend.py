"""Measures how fast items are listed for all users, beside `implicit`, Faiss and NumPy on the same vectors.

    python benchmarks/recommend.py                    100,000 users x 100,000 items
    python benchmarks/recommend.py --large            1,000,000 users x 10,000 items as well
    python benchmarks/recommend.py --users 2000 --items 5000

Every library leaves out the same seen pairs. Each runs as a process of its own, in turn; users/s are those of the lists
alone, peak memory is that of the process. The peers are installed into an environment of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness.environments import peer_environment
from harness.measure import ROOT, in_turn, machine, median

PACKAGES = ("implicit==0.7.3", "faiss-cpu==1.15.1")
LIBRARIES = {
    "dotbias": "this",
    "implicit": "implicit `recommend`",
    "faiss": "Faiss `IndexFlatIP`",
    "numpy": "NumPy `argpartition`",
}


def write_vectors(directory: Path, users: int, items: int, dim: int, seen: int) -> None:
    """Writes random vectors, the bias units in the last column, and `seen` pairs of each user."""
    rng = np.random.default_rng(0)
    u = rng.normal(scale=0.3, size=(users, dim)).astype(np.float32)
    u[:, -1] = 1
    np.save(directory / "users.npy", u)
    np.save(directory / "items.npy", rng.normal(scale=0.3, size=(items, dim)).astype(np.float32))
    pairs = np.sort(rng.choice(items, (users, seen)), axis=1)
    np.save(directory / "seen.npy", np.stack([np.repeat(np.arange(users), seen), pairs.ravel()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--large", action="store_true", help="10^6 users x 10^4 items as well")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seen", type=int, default=50, help="pairs of each user that are left out")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="keeps the environment of the peers in this directory")
    options = parser.parse_args()
    sizes = [(options.users, options.items), *([(1_000_000, 10_000)] if options.large else [])]
    print(f"{machine()}; dim {options.dim}, {options.seen} seen pairs a user, k {options.k}, {options.repeats} repeats")
    print("\n| users x items | library | cores | users/s | peak, GiB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        python = str(peer_environment(options.peers or Path(scratch) / "peers", PACKAGES))
        script = str(ROOT / "benchmarks" / "peers" / "recommend.py")
        for users, items in sizes:
            # Here, the memory of this process would count as theirs.
            write = [sys.executable, __file__, "--write", scratch, *map(str, (users, items, options.dim, options.seen))]
            subprocess.run(write, check=True)
            for cores in options.cores:
                commands = {}
                for name in LIBRARIES:
                    interpreter = python if name in ("implicit", "faiss") else sys.executable
                    commands[name] = [interpreter, script, name, scratch, str(options.k), str(cores)]
                results = in_turn(commands, options.repeats)
                expected = results["dotbias"][0].said["first"]
                for name, measured in results.items():
                    agree = np.mean(
                        [
                            len(set(a) & set(b)) / options.k
                            for a, b in zip(expected, measured[0].said["first"], strict=True)
                        ]
                    )
                    if agree < 0.999:
                        raise SystemExit(f"{name} lists other items: {agree:.1%} of them are the same")
                    speed = median([users / one.said["seconds"] for one in measured])
                    peak = median([one.peak_gib for one in measured])
                    print(
                        f"| {users:,} x {items:,} | {LIBRARIES[name]} | {cores} | {speed:,.0f} | {peak:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_vectors(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    else:
        main()
