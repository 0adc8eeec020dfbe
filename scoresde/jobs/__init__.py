r"""Jobs: public functions on any number of samples, on one machine or a cluster, that lose nothing."""

from .folder import Folder, Progress, open
from .verbs import decode, edit, encode, likelihood, sample

__all__ = ["Folder", "Progress", "decode", "edit", "encode", "likelihood", "open", "sample"]
