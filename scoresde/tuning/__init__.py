r"""A plan found by search: solver, grid, and on request coefficients."""

from .tune import tune

__all__ = ["tune"]
