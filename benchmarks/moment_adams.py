r"""The adaptive exponential Adams method in the coordinates of the moments, which is not shipped.

There, the weights of a step differ between coordinates: every coefficient of `exponential` has one more axis. Error
against calls on the exact digits, as in `benchmarks.accuracy`, beside `exponential` and `exponential_fitted`.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers.methods import adams
from solvers.methods.weights import FULL, SHORT, quadrature
from solvers.problem import Linear
from solvers.solver import Step

from . import testbed
from .accuracy import COUNT, errors
from .report import save

TOLERANCES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
TARGET = 5e-5  # of the root mean square, for which calls are interpolated


def integrals(
    linear: Linear, s: Tensor, t: Tensor, times: Tensor, rule: tuple[Tensor, Tensor] = FULL
) -> Tensor:
    r"""Returns the integrals of the weight times products of distances, with shape (B, K + 1, c)."""

    h = (t - s)[:, None]
    points, gauss = quadrature(linear, s[None], t[None], linear.decay(s[None], t[None]), rule)
    u = s[:, None] + h * points
    weight = linear.weight(u[None], s[None, :, None], t[None, :, None])[0] * (h * gauss)[..., None]
    found = [weight.sum(1)]
    for time in times.split(1, dim=1):
        weight = weight * (u - time)[..., None]
        found.append(weight.sum(1))
    return torch.stack(found, dim=1)


@dataclass(frozen=True)
class MomentAdams(adams.AdaptiveAdams):
    r"""The method on flat states in the coordinates of the moments."""

    name: str = "in the coordinates of the moments"
    form: str = "moments"

    def __post_init__(self) -> None:
        solvers.Solver.__post_init__(self)

    def step(
        self, plan: adams.AdamsPlan, x: Tensor, memory: adams.AdamsMemory, noise: object
    ) -> Step:
        linear, t0, t1, field = plan
        order, orders = memory.order, torch.arange(self.highest + 1)
        gamma, decay = integrals(linear, t0, t1, memory.times), linear.decay(t0[None], t1[None])[0]
        used = torch.where((orders < order[:, None])[..., None], gamma, 0)[:, :-1]
        predicted = decay * x + (used * memory.differences).sum(1)
        known = torch.arange(self.highest) < memory.known[:, None]
        inverse = adams.inverse_of(t1[:, None] - memory.times, known)
        new = adams.differences_with(field(predicted), memory.differences, inverse)

        def term(k: Tensor) -> Tensor:
            row, here = torch.arange(len(x)), k.clamp(max=self.highest)
            return gamma[row, here] * new[row, here]

        lower = torch.where(order > 1, order, 0)
        higher = torch.where(order < memory.known.clamp(max=self.highest), order + 2, 0)
        times = torch.cat([t1[:, None], memory.times[:, :-1]], dim=1)
        after = adams.AdamsMemory(
            new[:, :-1], times, order, (memory.known + 1).clamp(max=self.highest + 1)
        )
        others = (term(order - 1), lower), (term(order + 1), higher)
        between = partial(inside, linear, t0, t1, x, new, memory)
        return Step(predicted + term(order), after, term(order), between, order + 1, others)


def inside(
    linear: Linear, t0: Tensor, t1: Tensor, x: Tensor, new: Tensor, memory: adams.AdamsMemory,
    theta: Tensor, rows: Tensor,
) -> Tensor:  # fmt: skip
    r"""Returns states inside a step."""

    start, stop, times = t0[rows], t1[rows], memory.times[rows]
    s = torch.lerp(start, stop, theta.reshape(-1).double())
    gamma = integrals(linear, start, s, torch.cat([stop[:, None], times[:, :-1]], dim=1), SHORT)
    used = torch.arange(gamma.shape[1]) <= memory.order[rows, None]
    values = (torch.where(used[..., None], gamma, 0) * new[rows]).sum(1)
    return linear.decay(start[None], s[None])[0] * x[rows] + values


def crossing(rows: list[dict]) -> float:
    r"""Returns the calls for the target, log-linear in the error between two tolerances."""

    for a, b in zip(rows, rows[1:], strict=False):
        if b["rms"] <= TARGET < a["rms"]:
            here, there, wanted = (torch.tensor(e).log() for e in (a["rms"], b["rms"], TARGET))
            share = float((wanted - here) / (there - here))
            return a["calls"] + share * (b["calls"] - a["calls"])
    raise RuntimeError(f"no two tolerances lie around an error of {TARGET:g}.")


def main() -> None:
    torch.set_num_threads(1)
    oracle = testbed.exact_digits(ss.EDM())
    oracle = testbed.measured(oracle, oracle.data(2000, seed=8))
    z, rows = testbed.start(COUNT), []
    want = testbed.truth(z)
    with torch.no_grad():
        for solver in (
            solvers.get("exponential"),
            MomentAdams(),
            solvers.get("exponential_fitted"),
        ):
            made = []
            for r in TOLERANCES:
                s = ss.decode(
                    oracle,
                    z,
                    solver=solver,
                    rtol=r,
                    atol=r,
                    t_min=testbed.SIGMA_MIN,
                    denoise=False,
                )
                made.append({"solver": str(solver), "setting": f"tolerance {r:g}",
                             "calls": s.calls.double().mean().item(), **errors(s.x, want)})  # fmt: skip
            rows += [*made, {"solver": str(solver), "setting": f"error {TARGET:g}", "calls": crossing(made),
                             "rms": TARGET, "median": None}]  # fmt: skip
    save("moment_adams", rows, samples=COUNT)


if __name__ == "__main__":
    main()
