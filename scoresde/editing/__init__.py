r"""Edits of data, and what can be done with latents."""

from .directions import Principal, direction, move, principal_directions
from .edit import METHODS, edit, frames
from .inpaint import inpaint
from .interpolate import along, grid, interpolate, weighted
from .pivot import fit_null

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
