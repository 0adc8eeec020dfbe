r"""Your own linear processes, from matrices of drift and diffusion."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_tensor

from ..custom import described
from ..domain import SLACK
from .diagonal import SYMMETRY
from .process import BlockProcess
from .propagator import PIECES, Pieces, Propagator, integral, points_of

Matrix: TypeAlias = Callable[[Tensor], Tensor] | Array


@checked
@dataclass(frozen=True, eq=False)
class MatrixProcess(BlockProcess):
    r"""Creates the process :math:`du = F(t) \, u \, dt + G(t) \, dw` on blocks of k entries, from t = 0 on.

    F at different times need not commute: the transition matrix :math:`\Phi` is solved for on Chebyshev pieces,
    and the covariance is the integral of :math:`\Phi G G^T \Phi^T`, both to round-off.

    A sample of shape (d, *) is divided along its first axis into k equal parts, and a block holds one entry of
    each. So k = d mixes the entries of a vector, and k = 1 is a process with numbers. With `data_size` = j < k,
    the data is the first j parts of the state, and the others, such as velocities, start from their own prior.

    Arguments:
        F: The drift, with shape (k, k), or a function from times with shape (n,) to matrices with shape
            (n, k, k) or (k, k).
        G: The diffusion, in the same form.
        data_size: The number j of parts that are data. By default, all.
        start: The covariance of the auxiliary parts at t = 0, with shape (k - j, k - j). By default, 0.
        t_min: The first time.
        t_max: The last time.

    Raises:
        ValueError: If the shapes differ, the noise does not reach all entries, the rates are not smooth, or
            `start` is no covariance.

    References:
        | Applied Stochastic Differential Equations (Särkkä and Solin, 2019), sections 6.1 and 6.2
        | https://doi.org/10.1017/9781108186735

    Examples:
        >>> turn = torch.tensor([[-1.0, 2.0], [-2.0, -1.0]])
        >>> process = ss.MatrixProcess(turn, 2**0.5 * torch.eye(2), t_max=4.0)
        >>> A = process.signal_matrix(torch.tensor(0.5))[0]
        >>> bool((A - torch.linalg.matrix_exp(0.5 * turn.double())).abs().max() < 1e-12)
        True
    """

    F: Matrix
    G: Matrix
    data_size: int | None = None  # type: ignore[assignment]
    start: Array | None = None
    t_min: float = 1e-3
    t_max: float = 1.0
    size: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_ends()
        if self.t_min == 0:
            raise ValueError("t_min must be positive, because there is no noise at t=0, but is 0.")
        for name in ("F", "G"):
            value = getattr(self, name)
            if not callable(value):
                object.__setattr__(self, name, as_tensor(name, value).double().cpu())
        k = self._at("F", torch.ones(1, dtype=torch.float64)).shape[-1]
        j = k if self.data_size is None else self.data_size
        if not 1 <= j <= k:
            raise ValueError(f"data_size must be in [1, {k}], but is {j}.")
        start = torch.zeros(k, k, dtype=torch.float64)
        if self.start is not None:
            own = as_tensor("start", self.start).double().cpu()
            if own.shape != (k - j, k - j):
                raise ValueError(
                    f"start must have shape {(k - j, k - j)} for data_size={j}, but has {tuple(own.shape)}."
                )
            low = torch.linalg.eigvalsh(own).amin() if k > j else own.new_zeros(())
            if not (torch.equal(own, own.mT) and low >= -SYMMETRY * own.abs().amax()):
                raise ValueError(
                    f"start must be a covariance, symmetric and not negative, but is {own.tolist()}."
                )
            start[j:, j:] = own
        for name, value in {"size": k, "data_size": j, "_start": start}.items():
            object.__setattr__(self, name, value)
        self._check()

    def __repr__(self) -> str:
        parts = "" if self.data_size == self.size else f", data in {self.data_size}"
        of = f"blocks of {self.size}{parts}"
        named = [name for name in ("F", "G") if callable(getattr(self, name))]
        if named:
            return f"{described(self, *named)} of {of}"
        return f"MatrixProcess({of}, t in [{self.t_min:.3g}, {self.t_max:.3g}])"

    def signal_matrix(self, t: Tensor) -> Tensor:
        return self.transition(torch.zeros(()), t)[..., : self.data_size]

    def covariance(self, t: Tensor) -> Tensor:
        flat = self._within(t).flatten()
        local, begun = self._propagator.local, self._begun
        X, piece = local(flat), local.piece(flat)
        whole = X @ (begun[piece] + self._gathered(flat)) @ X.mT
        return ((whole + whole.mT) / 2).reshape(*t.shape, 1, self.size, self.size)

    def drift_matrix(self, t: Tensor) -> Tensor:
        return self._at("F", t.double().flatten()).reshape(*t.shape, 1, self.size, self.size)

    def diffusion(self, t: Tensor) -> Tensor:
        return self._at("G", t.double().flatten()).reshape(*t.shape, 1, self.size, self.size)

    def transition(self, s: Tensor, t: Tensor) -> Tensor:
        s, t = torch.broadcast_tensors(self._within(s), self._within(t))
        found = self._propagator(s.flatten(), t.flatten())
        return found.reshape(*t.shape, 1, self.size, self.size)

    def _within(self, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((t >= 0) & (t <= self.t_max * (1 + SLACK))).all()):
            raise ValueError(
                f"t must lie in [0, {self.t_max:.6g}], where this MatrixProcess is defined, but reaches from "
                f"{t.min():.6g} to {t.max():.6g}."
            )
        return t

    def _spread(self, t: Tensor) -> Tensor:
        G = self._at("G", t)
        return G @ G.mT

    @cached_property
    def _propagator(self) -> Propagator:
        edges = self.t_max * torch.linspace(0, 1, PIECES + 1, dtype=torch.float64) ** 2
        return Propagator.of(lambda t: self._at("F", t), edges, self._spread)

    @cached_property
    def _gathered(self) -> Pieces:
        r"""The integrals of :math:`X^{-1} G G^T X^{-T}` from the start of each piece, for its own X."""

        edges = self._propagator.local.edges
        times = points_of(edges)
        X = self._propagator.local(times.flatten())
        spread = torch.linalg.solve(X, self._at("G", times.flatten()))
        return integral(edges, (spread @ spread.mT).reshape(*times.shape, self.size, self.size))

    @cached_property
    def _begun(self) -> Tensor:
        r"""The covariances at the start of each piece."""

        ends, inside = (p.coefficients.sum(1) for p in (self._propagator.local, self._gathered))
        found = [vars(self)["_start"]]
        for X, more in zip(ends[:-1], inside[:-1], strict=True):
            found.append(X @ (found[-1] + more) @ X.mT)
        return torch.stack(found)

    def _at(self, name: str, t: Tensor) -> Tensor:
        r"""The values of F or G at times with shape (n,)."""

        given = getattr(self, name)
        value = given(t) if callable(given) else given
        if not isinstance(value, Tensor):
            value = as_tensor(name, value)
        if value.ndim < 2 or value.shape[-1] != value.shape[-2] or not value.numel():
            raise ValueError(
                f"{name} must be a square matrix, or one for each of {len(t)} times, but has shape "
                f"{tuple(value.shape)}."
            )
        k = self.size or value.shape[-1]
        if value.shape not in ((k, k), (len(t), k, k)):
            raise ValueError(
                f"{name} must be a matrix of shape {(k, k)}, or one for each of {len(t)} times, but has shape "
                f"{tuple(value.shape)}."
            )
        return value.to(t).expand(len(t), k, k)
