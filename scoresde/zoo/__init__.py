r"""Models in files: weights as safetensors, and a JSON card that says what they are."""

from .files import load, save

__all__ = ["load", "save"]
