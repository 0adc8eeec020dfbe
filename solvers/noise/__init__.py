r"""Brownian motion that is keyed, and its paths."""
