r"""Plots, which need matplotlib: `pip install 'scoresde[plots]'`."""

from .calibration import coverage, ranks
from .changes import before_after
from .charts import bars, curves, histogram, work_precision
from .checks import errors, losses
from .drawn import samples
from .figures import check_picture
from .frequencies import decided, spectrum
from .landscapes import MOVIES, geometry
from .maps import density
from .movie import check_gif
from .over_density import paths
from .pictures import animate, images, tile
from .points import scatter
from .routes import film, trajectory

__all__ = [
    "MOVIES",
    "animate",
    "bars",
    "before_after",
    "check_gif",
    "check_picture",
    "coverage",
    "curves",
    "decided",
    "density",
    "errors",
    "film",
    "geometry",
    "histogram",
    "images",
    "losses",
    "paths",
    "ranks",
    "samples",
    "scatter",
    "spectrum",
    "tile",
    "trajectory",
    "work_precision",
]
