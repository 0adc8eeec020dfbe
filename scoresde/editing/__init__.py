r"""Edits of data, and operations on latents."""

from .directions import Principal, direction, move, principal_directions
from .inpainting import inpaint
from .interpolation import along, grid, interpolate, weighted
from .pivot import fit_null
from .verb import METHODS, edit, frames

__all__ = [
    "METHODS",
    "Principal",
    "along",
    "direction",
    "edit",
    "fit_null",
    "frames",
    "grid",
    "inpaint",
    "interpolate",
    "move",
    "principal_directions",
    "weighted",
]
