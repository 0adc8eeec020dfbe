r"""What methods that are built on others need of these."""

from ..solver import Solver


def check_one_step(solver: str, method: Solver) -> None:
    r"""Refuses a multistep method for a solver that needs a one-step method."""

    if not method.one_step:
        raise ValueError(
            f"{solver} needs a one-step method, but the steps of {method} use those before them; pass one "
            "such as 'ddim' or 'dpm_2'."
        )
