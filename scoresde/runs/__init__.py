r"""Runs: from the options of a verb to the solution."""
