r"""Keyed Brownian motion and its paths."""
