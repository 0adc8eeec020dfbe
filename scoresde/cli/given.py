r"""Conditions from the command line: --label 3, --label 0,1,2, --condition NAME=VALUE."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import open_arrays


def conditions(label: str | None, others: Sequence[str] | None = None) -> dict[str, Tensor]:
    r"""Returns conditions by name, each with leading size 1 or the number of samples.

    Arguments:
        label: The label, or one per sample, separated by commas.
        others: Other conditions, each as NAME=VALUE, where the value is a number, several numbers separated by
            commas, or an npy file.
    """

    found = {} if label is None else {"label": whole("--label", label)}
    for words in others or ():
        name, sign, text = words.partition("=")
        if not sign or not name or not text:
            raise ValueError(
                f"--condition must be NAME=VALUE, as in --condition size=0.5, not {words!r}."
            )
        if name in found:
            raise ValueError(f"--condition {name} is given twice; pass one.")
        found[name] = _value(f"--condition {name}", text)
    return found


def whole(option: str, text: str) -> Tensor:
    r"""Returns whole numbers from text that separates them by commas."""

    numbers = _value(option, text)
    if numbers.is_floating_point():
        raise ValueError(f"{option} must be whole numbers separated by commas, but is {text!r}.")
    return numbers


def check_number_of(given: Mapping[str, Tensor], count: int) -> None:
    r"""Refuses conditions for another number of samples."""

    for name, value in given.items():
        if len(value) not in (1, count):
            option = "--label" if name == "label" else f"--condition {name}"
            raise ValueError(
                f"{option} has {len(value)} entries for {count} samples; pass one, or one for each."
            )


def largest(given: dict[str, Tensor], otherwise: int) -> int:
    r"""Returns the number of samples that conditions have entries for, if they determine it."""

    sizes = {len(value) for value in given.values()} - {1}
    return max(sizes, default=otherwise)


def plain(given: dict[str, Tensor]) -> dict[str, object]:
    r"""Returns conditions as plain data: a number if there is only one."""

    return {n: v.item() if v.numel() == 1 else v.tolist() for n, v in given.items()}


def _value(option: str, text: str) -> Tensor:
    if text.endswith((".npy", ".npz")):
        return torch.from_numpy(np.atleast_1d(open_arrays(Path(text))["x"]))
    for kind in (int, float):
        try:
            return torch.tensor([kind(word) for word in text.split(",")])
        except (ValueError, OverflowError, RuntimeError):
            continue
    raise ValueError(
        f"{option} must be numbers separated by commas, or an npy file, but is {text!r}."
    )
