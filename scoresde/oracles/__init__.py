r"""Exact score models, to test solvers on."""
