r"""One solver of each family: laws are tried on these first, and on all others by `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest

FAMILIES = (
    "euler", "heun", "dopri5",
    "ddim", "dpmpp_2m", "deis_time_3", "ipndm_4", "unipc", "moment_2", "moment_ipndm_3",
    "foresight_2", "moment_foresight_1",
    "ancestral", "dpmpp_3m_sde", "sa", "dpm_3", "edm_heun", "dpm_adaptive", "dpmpp_sde",
    "exponential", "exponential_sde",
    "reversible_heun", "lattice_heun", "rex_rk4", "o_belm", "edict", "anderson_ddim",
    "em", "sra1", "dpm_2_ancestral", "edm_churn", "recurrent", "langevin_corrector",
    "torchdiffeq/rk4", "torchdiffeq/implicit_adams", "torchdiffeq/dopri5", "torchdiffeq/scipy_solver",
    "torchsde/srk", "torchsde/heun",
)  # fmt: skip


def family_first(names: Iterable[str], *others: Iterable[Any]) -> list[Any]:
    r"""Returns the names as parameters, with others beside each, of which those of no family are slow."""

    return [
        pytest.param(name, *rest, marks=() if name in FAMILIES else pytest.mark.slow)
        for name, *rest in zip(names, *others, strict=True)
    ]
