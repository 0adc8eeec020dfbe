r"""Warnings that point at the caller's line, however deep they arise."""

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent.parent  # the package
OURS = tuple(f"{HERE.parent / name}{os.sep}" for name in (HERE.name, "solvers"))


def warn(message: str) -> None:
    r"""Warns at the nearest line outside these packages."""

    frame, level = sys._getframe(1), 2
    ours = (*OURS, "<string>")  # the second is that of constructors written by dataclasses
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
