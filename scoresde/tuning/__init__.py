r"""A plan found by search: solver, grid, and on request coefficients."""

from .verb import tune

__all__ = ["tune"]
