r"""The methods of torchsde, one step at a time.

torchsde's own loop fits a fixed step size to the span, builds a tree of Brownian increments and wants the
diffusion of additive noise as a matrix. Its methods need none of that: each is a class with a step function. We
call this function with our equation, with products in place of matrices, and our keyed Brownian motion. So the
steps are exactly those of the grid, of any size and in either direction, and take the memory of one. A drift
that is requested twice is computed once.

References:
    | Scalable Gradients for Stochastic Differential Equations (Li et al., 2020)
    | https://arxiv.org/abs/2001.01328
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import SDE
from ..shapes import Factor, product
from ..solver import Solver, Step

GAUSSIAN = ("euler", "milstein", "euler_heun")  # which add noise after their only drift


class _Equation:
    r"""The SDE as torchsde's methods see it, in the increasing time s = sign t."""

    noise_type = "additive"

    def __init__(self, problem: SDE, sign: float, sde_type: str) -> None:
        self.problem, self.sign, self.sde_type = problem, sign, sde_type
        self.known: list[tuple[float, Tensor, Tensor]] = []

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        time = float(s)
        for at, state, drift in self.known:
            if at == time and state is y:
                return drift
        t = torch.as_tensor(self.sign * time, dtype=torch.float64)
        drift = self.sign * self.problem.drift(t, y)
        self.known = [*self.known[-7:], (time, y, drift)]
        return drift

    def g(self, s: Tensor, y: Tensor) -> Factor:
        t = torch.as_tensor(self.sign * float(s), dtype=torch.float64)
        [g] = self.problem.noise_factors(t[None], y)
        return torch.as_tensor(g).to(y) if isinstance(g, float) else g

    def prod(self, g: Factor, v: Tensor) -> Tensor:
        return product(g, v)

    def g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return product(self.g(s, y), v)

    def f_and_g(self, s: Tensor, y: Tensor) -> tuple[Tensor, Factor]:
        return self.f(s, y), self.g(s, y)

    def f_and_g_prod(self, s: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(s, y), self.g_prod(s, y, v)

    def g_prod_and_gdg_prod(
        self, s: Tensor, y: Tensor, v: Tensor, w: Tensor
    ) -> tuple[Tensor, float]:
        return self.g_prod(s, y, v), 0.0  # the diffusion does not depend on the state

    def dg_ga_jvp_column_sum(self, s: Tensor, y: Tensor, a: Tensor | None) -> float:
        return 0.0


class _Motion:
    r"""Our Brownian motion with the interface of torchsde's, for one step at a time."""

    def __init__(self, noise: Brownian | None, like: Tensor, levy_area: str, sign: float) -> None:
        self.noise, self.shape, self.levy_area_approximation = noise, like.shape, levy_area
        self.index, self.sign = 0, sign

    def __call__(
        self, ta: Tensor, tb: Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        if self.noise is None:
            raise ValueError("a stochastic method needs noise; pass noise= or seed=.")
        times = (self.sign * torch.as_tensor(s, dtype=torch.float64) for s in (ta, tb))
        if return_U:
            w, area = self.noise.increment_and_integral(self.index, *times)
            return w, self.sign * area
        w = self.noise.increment(self.index, *times)
        return (w, None) if return_A else w


class _Method(Protocol):
    r"""The part of a torchsde method that is used here."""

    bm: _Motion

    def init_extra_solver_state(self, t0: Tensor, y0: Tensor) -> object: ...

    def step(
        self, t0: Tensor, t1: Tensor, y0: Tensor, extra0: object
    ) -> tuple[Tensor, object]: ...


class _Plan(NamedTuple):
    number: int
    t0: Tensor
    t1: Tensor
    equation: _Equation
    known: list[_Method]  # that of the run, once there is one


@dataclass(frozen=True)
class Torchsde(Solver):
    r"""Creates a solver from a method of torchsde.

    Arguments:
        method: The name of the method in torchsde.
        sde_type: "ito" or "stratonovich". For additive noise, both mean the same equation.
        order: Its strong order for additive noise.
        calls_per_step: The drift evaluations per step.
        levy_area: What it needs from the Brownian motion besides increments, in torchsde's words.
    """

    method: str
    sde_type: str
    order: float
    calls_per_step: int
    levy_area: str = "none"

    @cached_property
    def can(self) -> Abilities:
        linked = self.method == "reversible_heun"  # it carries a second state
        return Abilities(
            SDE,
            order=self.order,
            calls_per_step=self.calls_per_step,
            one_step=not linked,
            unstable="over long spans" if linked else "",
            stochastic=True,
            one_normal=self.levy_area != "space-time",
            gaussian=self.method in GAUSSIAN,
        )

    @property
    def name(self) -> str:
        return f"torchsde/{self.method}"

    def calls(self, steps: int) -> int:
        return steps * self.calls_per_step + (self.method == "reversible_heun")

    def plan(self, problem: SDE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        if t0.ndim > 1:
            raise ValueError(
                f"{self} has one time for all samples; pass times of shape (n + 1,) and one amount of noise, "
                "or use a native solver, such as 'em'."
            )
        sign = 1.0 if t1[-1] > t0[0] else -1.0
        equation = _Equation(problem, sign, self.sde_type)
        known: list[_Method] = []
        ends = zip(sign * t0, sign * t1, strict=True)
        return [_Plan(i, start, stop, equation, known) for i, (start, stop) in enumerate(ends)]

    def step(self, plan: _Plan, x: Tensor, memory: object, noise: Brownian | None) -> Step:
        if not plan.known:
            plan.known.append(self._made(plan, x, noise))
        [method] = plan.known
        method.bm.index, method.bm.noise = plan.number, noise
        extra = method.init_extra_solver_state(plan.t0, x) if memory is None else memory
        return Step(*method.step(plan.t0, plan.t1, x, extra))

    def _made(self, plan: _Plan, x: Tensor, noise: Brownian | None) -> _Method:
        from torchsde._core.methods import select

        method: _Method = select(self.method, self.sde_type)(
            sde=plan.equation,
            bm=_Motion(noise, x, self.levy_area, plan.equation.sign),
            dt=None,
            adaptive=False,
            rtol=None,
            atol=None,
            dt_min=None,
            options={},
        )
        return method


METHODS = (
    Torchsde("euler", "ito", order=1.0, calls_per_step=1),
    Torchsde("milstein", "ito", order=1.0, calls_per_step=1),
    Torchsde("srk", "ito", order=1.5, calls_per_step=2, levy_area="space-time"),
    Torchsde("midpoint", "stratonovich", order=1.0, calls_per_step=2),
    Torchsde("heun", "stratonovich", order=1.0, calls_per_step=2),
    Torchsde("euler_heun", "stratonovich", order=1.0, calls_per_step=1),
    Torchsde("log_ode", "stratonovich", order=1.0, calls_per_step=2, levy_area="davie"),
    Torchsde("reversible_heun", "stratonovich", order=1.0, calls_per_step=1),
)
REFUSED = {
    "torchsde/adjoint_reversible_heun": (
        "it integrates the adjoint equation of a gradient, not a problem of its own; "
        "use torchsde/reversible_heun"
    ),
}
