r"""The exact digits: real data under a kernel, of which the flow is known to any accuracy."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import scoresde as ss

WIDTH, SIGMA_MIN, SIGMA_MAX = 0.1, 0.002, 80.0


def exact_digits(process: ss.Process, dtype: torch.dtype = torch.float64) -> ss.KernelOracle:
    data = torch.from_numpy(load_digits().data).to(dtype) / 8 - 1
    return ss.KernelOracle(data, WIDTH, process)


def start(count: int) -> Tensor:
    return ss.EDM().prior_sample((count, 64), seed=0, dtype=torch.float64)


def truth(z: Tensor) -> Tensor:
    r"""Where the flow carries states at sigma 80 to 0.002, to 1e-10."""

    oracle = exact_digits(ss.EDM())
    options = {"t_min": SIGMA_MIN, "denoise": False, "rtol": 1e-10, "atol": 1e-11}
    return ss.decode(oracle, z, solver="dopri5", **options).x
