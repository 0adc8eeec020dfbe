r"""Measurements. Each script writes CSV into `benchmarks/results` and prints a table."""
