r"""Published samplers, run by their own code on the exact digits, give what ours give.

`tests/data/peers.npz` holds what k-diffusion and dpm-solver return in float64 for 8 samples: `start` at
sigma 80 and `vp/start` at t = 1, the Karras grid `sigmas` with a final 0, results by name, and the flow itself
from the same starts, solved at 1e-11.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import scoresde as ss

PEERS = np.load(Path(__file__).parent.parent / "data" / "peers.npz")


def peer(name: str) -> Tensor:
    return torch.from_numpy(PEERS[name])


def exact_digits(process: ss.Process) -> ss.KernelOracle:
    return ss.KernelOracle(torch.from_numpy(load_digits().data) / 8 - 1, 0.1, process)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_k_diffusion(name: str) -> None:
    times = peer("sigmas")[:-1].clone()
    times[0], times[-1] = 80.0, 0.002
    for denoise, result in ((True, f"kd/{name}"), (False, f"kd/{name}/nozero")):
        s = ss.decode(
            exact_digits(ss.EDM()), peer("start"), solver=name, times=times, denoise=denoise
        )
        assert torch.allclose(s.x, peer(result), atol=1e-10)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
@pytest.mark.parametrize(("grid", "theirs"), [("log_snr", "logSNR"), ("t", "time_uniform")])
def test_dpm_solver(solver: str, order: int, grid: str, theirs: str) -> None:
    s = ss.decode(
        exact_digits(ss.VP()),
        peer("vp/start"),
        solver=solver,
        steps=9,
        grid=grid,
        t_min=1e-3,
        denoise=False,
    )
    assert torch.allclose(s.x, peer(f"dps/dpmsolver++/multistep/{order}/{theirs}"), atol=1e-10)


@pytest.mark.parametrize(("process", "start", "truth", "t_min"),
                         [(ss.EDM(), "start", "truth/ve", 0.002), (ss.VP(), "vp/start", "truth/vp", 1e-3)],
                         ids=["EDM", "VP"])  # fmt: skip
def test_the_flow_itself(process: ss.Process, start: str, truth: str, t_min: float) -> None:
    s = ss.decode(
        exact_digits(process), peer(start), rtol=1e-9, atol=1e-9, t_min=t_min, denoise=False
    )
    assert torch.allclose(s.x, peer(truth), atol=1e-6)
