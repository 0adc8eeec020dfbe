r"""Measurements. Each script writes JSON into `benchmarks/results` and prints a table."""
