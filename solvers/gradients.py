r"""The ways in which runs keep gradients, and the solvers that have them."""

import torch

from .solver import Solver

GRADIENTS = ("none", "backprop", "checkpoint", "adjoint")


def check_gradients(solver: Solver, grad: str) -> None:
    r"""Refuses a gradient mode that does not exist, at all or for this solver."""

    if grad not in GRADIENTS:
        raise ValueError(f"grad must be one of {', '.join(GRADIENTS)}, but is {grad!r}.")
    if grad == "none":
        return
    if torch.is_inference_mode_enabled():
        raise ValueError(
            f"grad={grad!r} has no effect inside torch.inference_mode(), where nothing has a gradient; "
            "make this call outside of it."
        )
    if grad == "adjoint" and not solver.adjoint:
        raise ValueError(
            f"grad='adjoint' is for the methods of torchdiffeq, and {solver} has no adjoint; use 'checkpoint', "
            "which takes as little memory and is exact."
        )
    if grad != "adjoint" and solver.severed:
        raise ValueError(f"grad={grad!r} cannot differentiate {solver}, {solver.severed}.")
