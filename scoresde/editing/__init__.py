r"""Edits built of encoding and decoding."""

from .edit import edit

__all__ = ["edit"]
