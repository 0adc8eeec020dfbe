r"""Search for a plan: solver, grid and, on request, coefficients."""

from .verb import tune

__all__ = ["tune"]
