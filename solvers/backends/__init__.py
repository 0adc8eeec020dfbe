r"""Methods of other libraries as solvers."""
