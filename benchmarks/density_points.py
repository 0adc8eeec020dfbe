r"""The time of the log-density of many points in two dimensions, and its error beside the stated one.

A mixture of three Gaussians under EDM, in float64, with the default options, on one thread. With the folder of
another version of the library, both are measured by turns, each time in a process of its own.

    python -m benchmarks.density_points [FOLDER]
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

import scoresde as ss

from .report import save

COUNTS, TURNS = (1000, 10_000), 3
HERE = Path(__file__).parent.parent


def measure(count: int) -> dict:
    torch.set_num_threads(1)
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.5], [0.0, 3.0]], dtype=torch.float64)
    oracle = ss.MixtureOracle(means, 0.4)
    x = oracle.data(count)
    ss.log_likelihood(oracle, x[:4])  # what the first call takes
    start = time.process_time()
    found = ss.log_likelihood(oracle, x)
    seconds = time.process_time() - start
    error = (found.nats - oracle.log_density(x, found.t_min)).abs()
    parts = {"error": error, **{n: found.budget[n] for n in ("quadrature", "path", "prior")}}
    sizes = {
        f"{name}, {kind}": float(of(value))
        for name, value in parts.items()
        for kind, of in (("median", torch.median), ("max", torch.max))
    }
    return {"points": count, "processor seconds": seconds, **sizes}


def version(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measured(folder: Path, count: int) -> dict:
    r"""The same in a process of its own, whose library is that of a folder."""

    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import scoresde; sys.path.insert(0, {str(HERE)!r}); "
        f"import json; from benchmarks.density_points import measure; print(json.dumps(measure({count})))"
    )
    command = [sys.executable, "-c", code]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    folders = {"this": HERE}
    if len(sys.argv) > 1:
        folders = {version(Path(sys.argv[1])): Path(sys.argv[1]), **folders}
    rows = []
    for count in COUNTS:
        turns = [{name: measured(at, count) for name, at in folders.items()} for _ in range(TURNS)]
        for name in folders:
            rows.append(
                {
                    "version": name,
                    **min((t[name] for t in turns), key=lambda r: r["processor seconds"]),
                }
            )
    save("density_points", rows, threads=1)


if __name__ == "__main__":
    main()
