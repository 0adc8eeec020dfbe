r"""Diffusers' schedulers, run by their own code on the exact digits, give what ours give.

`tests/data/diffusers.npz` is written by `python -m benchmarks.diffusers_reference`. Their noise levels
are float32, so results agree to about 1e-5.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import scoresde as ss
import solvers

THEIRS = np.load(Path(__file__).parent.parent / "data" / "diffusers.npz")
SA = solvers.get("sa")
CASES: dict[str, str | solvers.Solver] = {
    "unipc_1_bh1": "unipc_1_bh1",
    "unipc_2_bh1": "unipc_2_bh1",
    "unipc_3_bh1": "unipc_3_bh1",
    "unipc_1_bh2": "unipc_1",
    "unipc_2_bh2": "unipc_2",
    "unipc_3_bh2": "unipc_3",
    "deis_1": "ddim",
    "deis_2": "deis_2",
    "deis_3": "deis_3",
    "dpmpp_2m_midpoint": "dpmpp_2m",
    "dpmpp_2m_heun": "dpmpp_2m_heun",
    "dpmpp_3m": "dpmpp_3m_published",
    "dpm_2m": "dpm_2m",
    "sa_1_2": replace(SA, values=1, profile="constant"),  # type: ignore[type-var]
    "sa_2_3": replace(SA, values=2, profile="constant"),  # type: ignore[type-var]
    "sa_3_4": replace(SA, profile="constant"),  # type: ignore[type-var]
}


def theirs(name: str) -> Tensor:
    return torch.from_numpy(THEIRS[name])


@pytest.mark.parametrize("case", CASES)
def test_diffusers(case: str) -> None:
    process = ss.VE(ss.Karras(0.001, 200.0))  # whose domain holds their noise levels
    oracle = ss.KernelOracle(torch.from_numpy(load_digits().data) / 8 - 1, 0.1, process)
    sigmas = theirs(f"{case}/sigmas")
    z = theirs("start") * sigmas[0] / 80
    noise = {"noise": theirs("noise")} if case.startswith("sa") else {}
    s = ss.decode(oracle, z, solver=CASES[case], times=sigmas, denoise=False, **noise)
    assert torch.allclose(s.x, theirs(f"{case}/x"), atol=1e-4)
    assert (s.x - theirs(f"{case}/x")).square().mean().sqrt() < 1e-5


def test_all_that_is_kept_is_tested() -> None:
    kept = {name.split("/")[0] for name in THEIRS.files}
    assert kept == {"start", "noise", *CASES}
