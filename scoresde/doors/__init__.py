r"""Doors for data and amounts, and warnings that point at the user's line."""
