r"""What is measured of data: operators, measurements, and the systems that link both."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..checks import check_finite
from ..data import as_floats
from .combined import row_sum
from .gradients import check_gradients

Operator = Callable[..., Tensor]  # `operator(x, **data)`, from data (B, *) to measurements (B, *)
Product = Callable[[Tensor], Tensor]


def joined(
    operators: Sequence[Operator], ys: Sequence[Tensor], noises: Sequence[float]
) -> tuple[Operator, Tensor]:
    r"""Returns several measurements as one, of which the noise has a standard deviation of 1: pass `noise=1`.

    Each is divided by its own, :math:`(A_1(x) / \sigma_1, A_2(x) / \sigma_2, \dots)`, and made flat.

    Arguments:
        operators: The functions, each row by itself. All get all data.
        ys: The measurements of each, with leading size B or 1.
        noises: Their standard deviations, which must be positive.
    """

    counts = (len(operators), len(ys), len(noises))
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"each operator needs its measurement and its noise, but there are {', '.join(map(str, counts))}."
        )
    stds = [check_noise(noise) for noise in noises]
    if not min(stds) > 0:
        raise ValueError(f"noises must be positive, but are {list(noises)}.")

    def both(x: Tensor, **data: Tensor) -> Tensor:
        pairs = zip(operators, stds, strict=True)
        return torch.cat([A(x, **data).reshape(len(x), -1) / std for A, std in pairs], 1)

    known = [check_measurement(y, "each of ys") for y in ys]
    flat = [y.reshape(len(y), -1) / s for y, s in zip(known, stds, strict=True)]
    size = max(map(len, flat))
    if {*map(len, flat)} - {1, size}:
        raise ValueError(
            f"ys must have one leading size, or 1, but have {[len(y) for y in flat]}."
        )
    return both, torch.cat([y.expand(size, -1) for y in flat], 1)


def measure(
    operator: Operator, D: Tensor, y: Tensor, data: Mapping[str, Tensor]
) -> tuple[Tensor, Product, Product]:
    r"""Returns the gap y - A(D), the function A, and the product with the transpose of its derivative at D."""

    check_gradients()
    with torch.enable_grad():
        leaf = D.detach().requires_grad_()
        seen = operator(leaf, **data)
    if len(y) not in (1, len(D)):
        raise ValueError(f"y must have leading size {len(D)} or 1, but has {len(y)}.")
    known = y.to(D).expand(len(D), *y.shape[1:])
    if not isinstance(seen, Tensor) or seen.shape != known.shape:
        shape = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(
            f"y must have the shape of what the operator returns, {shape}, but has {tuple(known.shape)}."
        )
    if not seen.requires_grad:
        raise ValueError(
            "the operator has no gradient: leave out .detach(), rounding and no_grad."
        )

    def adjoint(v: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(seen, leaf, v, retain_graph=True)
        return back

    return known - seen.detach(), lambda x: operator(x, **data), adjoint


def solve(system: Product, right: Tensor, iterations: int, floor: float = 0.0) -> Tensor:
    r"""Returns the solution of a positive system by conjugate gradients, for each row until it is solved.

    It ends where the system is less than a floor along a step: there a network's derivatives are no covariance.
    """

    with torch.no_grad():
        x, rest = torch.zeros_like(right), right.clone()
        step, size = rest.clone(), row_sum(rest.double() ** 2)
        enough = size * torch.finfo(right.dtype).eps ** 2
        for _ in range(iterations):
            image = system(step)
            curve = row_sum(step.double() * image)
            going = (size > enough) & (curve > 0) & (curve >= floor * row_sum(step.double() ** 2))
            share = torch.where(going, size / curve, 0.0).to(right)
            x, rest = x + share * step, rest - share * image
            after = row_sum(rest.double() ** 2)
            step = rest + torch.where(going, after / size, 0.0).to(right) * step
            size = torch.where(going, after, size)
    return x


def check_measurement(y: Tensor, name: str = "y") -> Tensor:
    r"""Returns measurements, refused unless they are finite numbers."""

    return as_floats(name, y, least=1)


def check_noise(noise: float) -> float:
    r"""Returns the standard deviation of noise, refused unless it is a number of at least 0."""

    noise = check_finite("noise", noise)
    if noise < 0:
        raise ValueError(f"noise must be at least 0, but is {noise}.")
    return noise
