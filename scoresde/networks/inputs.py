r"""What networks take beside the noisy data, and checks of their settings."""

import torch
from torch import Tensor, nn

from solvers.doors.values import as_whole


def check_settings(least: int = 1, **settings: int) -> None:
    r"""Refuses settings of a network that are too small."""

    for name, value in settings.items():
        as_whole(name, value, least)


def check_multiple(name: str, value: int, of: int, why: str) -> None:
    r"""Refuses a setting that is not a multiple of another number."""

    as_whole(name, value, 1)
    if value % of:
        raise ValueError(f"{name} must be a multiple of {of}, {why}, but is {value}.")


def check_dropout(dropout: float) -> None:
    r"""Refuses anything but a probability below 1."""

    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), but is {dropout}.")


def check_input(network: nn.Module, x: Tensor, shape: tuple[int | str, ...]) -> None:
    r"""Refuses data of another shape than a network takes; letters stand for any size."""

    fits = x.ndim == len(shape) + 1
    sizes = zip(x.shape[1:], shape, strict=False)
    if not fits or any(isinstance(due, int) and size != due for size, due in sizes):
        words = ", ".join(map(str, shape))
        raise ValueError(
            f"x must have shape (B, {words}) for this {type(network).__name__}, but has {tuple(x.shape)}."
        )


def with_estimate(network: nn.Module, x: Tensor, estimate: Tensor | None, taken: bool) -> Tensor:
    r"""Returns noisy data beside the last estimate of the clean data, along the first axis of a sample.

    Arguments:
        network: The network, for messages.
        x: The noisy data, with shape (B, C, *).
        estimate: The estimate, with the shape of `x`, or `None` for 0.
        taken: Whether the network takes one.
    """

    if not taken:
        if estimate is not None:
            raise ValueError(
                "estimate= is for networks with self-conditioning; make this one by "
                f"{type(network).__name__}(..., self_conditioning=True)."
            )
        return x
    if estimate is None:
        estimate = torch.zeros_like(x)
    if estimate.shape != x.shape:
        raise ValueError(
            f"estimate must have the shape of x, {tuple(x.shape)}, but has {tuple(estimate.shape)}."
        )
    return torch.cat([x, estimate.to(x)], dim=1)


def embedded(table: nn.Embedding | None, label: Tensor | None, x: Tensor) -> Tensor | float:
    r"""Returns the features of labels, with shape (B, n); the last row of the table stands for no label."""

    if table is None:
        if label is not None:
            raise ValueError("label= is for networks with classes; make this one with classes=.")
        return 0.0
    if label is None:
        label = torch.full(x.shape[:1], table.num_embeddings - 1, device=x.device)
    return table(label)  # type: ignore[no-any-return]
