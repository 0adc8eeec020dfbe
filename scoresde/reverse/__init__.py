r"""Reverse processes as problems that a solver solves."""
