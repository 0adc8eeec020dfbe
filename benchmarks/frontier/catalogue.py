r"""The members of the catalogue that others are compared with."""

from functools import partial

from torch import Tensor

import scoresde as ss

from .tools import solve

NAMES = ("dpmpp_2m", "unipc_1_bh1", "unipc_3", "ipndm_3", "ipndm_4", "deis_3",
         "moment_ipndm_2", "moment_ipndm_3", "moment_ipndm_4")  # fmt: skip


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, solver: str) -> Tensor:
    return solve(model, z, solver, calls, grid=grid)


MEMBERS = {name: partial(run, solver=name) for name in NAMES}
