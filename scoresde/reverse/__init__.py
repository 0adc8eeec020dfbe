r"""Reverse processes as problems for a solver."""
