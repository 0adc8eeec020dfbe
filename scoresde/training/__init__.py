r"""Training by denoising."""

from .loop import Progress, train

__all__ = ["Progress", "train"]
