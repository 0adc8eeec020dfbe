r"""Argument checks for data and amounts, and warnings that point at the caller's line."""
