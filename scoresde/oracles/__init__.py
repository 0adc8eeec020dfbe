r"""Exact score models, for tests of solvers."""
