r"""Measurements of data: operators, measured values, and the linear systems that link them to data."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import row_sum

from ..doors.data import as_floats
from ..models.checks import check_finite
from ..models.conditions import as_conditions
from ..runs.current import suspect
from .gradients import check_function, check_gradients
from .words import title

ROUNDING = 1e-4  # generous bound for the errors of float32 and of the order of sums
Operator = Callable[..., Tensor]  # `operator(x, **data)`, from data (B, *) to measurements (B, *)
Product = Callable[[Tensor], Tensor]


@checked
def joined(
    operators: Sequence[Operator], ys: Sequence[Tensor], noises: Sequence[float]
) -> tuple[Operator, Tensor]:
    r"""Returns several measurements joined to one, whose noise has the standard deviation 1: pass `noise=1`.

    Each is divided by its own deviation, :math:`(A_1(x) / \sigma_1, A_2(x) / \sigma_2, \dots)`, and flattened.

    Arguments:
        operators: The functions, which act on each row separately. All receive the same keyword arguments.
        ys: The measurements of each, with leading size B or 1.
        noises: Their standard deviations, which must be positive.

    Raises:
        ValueError: If there are not as many measurements and noises as operators, or a noise is not positive.

    Examples:
        >>> operators, ys = [lambda x: x[:, :1], lambda x: x.sum(1)], [torch.ones(1, 1), torch.ones(1)]
        >>> operator, y = ss.guidance.joined(operators, ys, noises=[0.5, 0.1])
        >>> y
        tensor([[ 2., 10.]])
    """

    counts = (len(operators), len(ys), len(noises))
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            "operators, ys and noises must have equal lengths, but their lengths are "
            f"{', '.join(map(str, counts))}."
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


class Measurable:
    r"""Creates an operator that is checked once, when it is first called.

    Arguments:
        operator: The function A, which acts on each row separately.
        data: Its further arguments.
        affine: Whether it must be linear up to a constant.
    """

    def __init__(
        self, operator: Operator, data: Mapping[str, Tensor], *, affine: bool = False
    ) -> None:
        check_function("operator", operator, data)
        self.operator, self.affine, self.looked = operator, affine, False

    @property
    def title(self) -> str:
        r"""The name of the operator."""

        return title(self.operator)

    def look(
        self, D: Tensor, seen: Tensor, gap: Tensor, data: Mapping[str, Tensor], links: "Links"
    ) -> None:
        r"""Refuses an operator that is random, has no derivative, or is not linear where it must be."""

        generator = torch.Generator().manual_seed(0)
        v, u = (like(x, generator) for x in (D, seen))
        v = v * D.square().mean().sqrt().clamp(min=1)
        with torch.no_grad():
            again, moved = self.operator(D, **data), self.operator(D + v, **data)
        name, size = f"the operator {self.title!r}", seen.abs().max()
        if not _alike(again, seen, size):
            raise ValueError(
                f"{name} is random: it measured the same data twice, with different results; draw masks, "
                "noise and the like once, and pass them by name."
            )
        if not bool(links.adjoint(u).any()) and bool(gap.any()):
            if bool((moved != seen).any()):
                raise ValueError(f"{name} has no gradient: it rounds, counts or compares.")
            raise ValueError(
                f"{name} does not depend on the data, so no data can be made to agree with y."
            )
        if self.affine and not _alike(seen + links.forward(v), moved, (moved - seen).abs().max()):
            raise ValueError(
                f"{name} is not linear; use guidance.pseudoinverse, which takes its derivative, or "
                "guidance.posterior_sampling."
            )


def _alike(a: Tensor, b: Tensor, size: Tensor) -> bool:
    r"""Whether two tensors agree up to rounding, or are not finite, which is reported elsewhere."""

    wrong = (a - b).abs() > ROUNDING * size.clamp(min=torch.finfo(a.dtype).tiny)
    return not bool((wrong & a.isfinite() & b.isfinite()).any())


def like(x: Tensor, generator: torch.Generator) -> Tensor:
    r"""Returns normal numbers with the shape of a tensor, the same on every device."""

    return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


class Links:
    r"""Creates the products with the derivative J of an operator at given data, and with its transpose.

    For an operator that is linear up to a constant, :math:`A(x) = J x + c`, they do not depend on c.

    Arguments:
        leaf: The data, which requires gradients.
        seen: The operator's result for it.
    """

    def __init__(self, leaf: Tensor, seen: Tensor) -> None:
        self.leaf, self.seen = leaf, seen

    def adjoint(self, v: Tensor) -> Tensor:
        r"""Returns the product :math:`J^T v`."""

        (back,) = torch.autograd.grad(self.seen, self.leaf, v, retain_graph=True)
        return back

    def forward(self, v: Tensor) -> Tensor:
        r"""Returns the product :math:`J v`, the derivative of :math:`v^T J u` with respect to u."""

        probe, back = self._transposed
        (ahead,) = torch.autograd.grad(back, probe, v.to(back), retain_graph=True)
        return ahead

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            probe = torch.zeros_like(self.seen).requires_grad_()
            (back,) = torch.autograd.grad(self.seen, self.leaf, probe, create_graph=True)
        if not back.requires_grad:
            raise ValueError(
                "the operator's derivative has no derivative itself, which products with it need; use "
                "PyTorch's own functions in the operator, or guidance.posterior_sampling, which needs no "
                "such product."
            )
        return probe, back


class Measurement(NamedTuple):
    r"""A measurement of data, :math:`y = A(x_0) + \epsilon`.

    Arguments:
        operator: The function A.
        y: The measurements, with leading size B or 1.
        data: Further arguments of the operator, each with leading size B or 1.
    """

    operator: Measurable
    y: Tensor
    data: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, operator: Operator, y: Tensor, data: Mapping[str, Tensor], *, affine: bool = False
    ) -> "Measurement":
        r"""Returns a measurement, after checking that it is finite and its function takes the data."""

        rows, known = as_conditions(data), check_measurement(y)
        return cls(Measurable(operator, rows, affine=affine), known, rows)

    def seen(self, D: Tensor) -> tuple[Tensor, Product, Product]:
        r"""Returns the gap y - A(D), and the products with the derivative of A at D and with its transpose."""

        check_gradients()
        operator, y = self.operator, self.y
        with torch.enable_grad():
            leaf = D.detach().requires_grad_()
            found = operator.operator(leaf, **self.data)
        known = y.to(D).expand(len(D), *y.shape[1:])
        if not isinstance(found, Tensor) or found.shape != known.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"y must have the shape of the operator's result, {shape}, but has {tuple(known.shape)}."
            )
        if not found.requires_grad:
            raise ValueError(
                "the operator has no gradient: leave out .detach(), rounding and no_grad."
            )
        cause = f"the result of the operator {operator.title!r} is NaN or infinite"
        suspect(cause, "keep it finite for all data; the network is not at fault", found, D)
        links, gap = Links(leaf, found), known - found.detach()
        if not operator.looked:
            operator.look(D.detach(), found.detach(), gap, self.data, links)
            operator.looked = True
        return gap, links.forward, links.adjoint


def solve(system: Product, right: Tensor, iterations: int, floor: float = 0.0) -> Tensor:
    r"""Returns the solution of a positive system by conjugate gradients, for each row until it is solved.

    It stops where the system falls below a floor along a step: there, a network's derivatives are no covariance.
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
    r"""Returns measurements, after checking that they are finite numbers."""

    return as_floats(name, y, least=1)


def check_noise(noise: float) -> float:
    r"""Returns the standard deviation of noise, after checking that it is a number of at least 0."""

    noise = check_finite("noise", noise)
    if noise < 0:
        raise ValueError(f"noise must be at least 0, but is {noise}.")
    return noise
