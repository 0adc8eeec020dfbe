r"""A noise trial of a solver, on its grid and with known data, before the network is called.

A multistep method does not account for noise in the values it remembers, so with few steps the noise may be
amplified instead of forgotten. How much depends on the solver, the grid and the amount of noise, and little on
the data. For data with two modes and the same scale, the law is known at all times, and a run for a few hundred
numbers costs no network call.
"""

from functools import lru_cache
from typing import Literal, NamedTuple, cast

import torch

from solvers import Brownian, Solver
from solvers.network_calls import uncounted

from ..doors.warning import warn
from ..models.scale import scale_of
from ..oracles.mixture import MixtureOracle
from ..processes.process import Process
from ..reverse.amounts import Amount, ByRow, Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from .run import Run
from .settings import Settings
from .transport import transport

MOST = 1.5  # times as large as it should be
ROWS = 512
LONGEST = 200  # steps of a trial; with more, steps are short
MODES = 0.95  # positions of the modes, as a fraction of the scale of the data
EXACT = ("moments", "floored")  # forms that use more of the data than its scale


class _Trial(NamedTuple):
    process: Process
    scale: float
    method: Solver
    times: tuple[float, ...]
    clock: Clock | None
    eta: Amount | None
    eta_convention: Convention
    noise: Literal["path"] | None


def warn_of_gain(run: Run) -> None:
    r"""Warns if a noisy run makes data of the model's scale too large; of several grids, the first is tried."""

    model, times, settings = run.model, run.times, run.settings
    method, steps = run.settings.method, len(times) - 1
    if settings.adaptive or not model.process.has_scales or not 0 < steps <= LONGEST:
        return
    if not (method.can.stochastic or run.eta) or method.can.form in EXACT:
        return
    eta = max(settings.eta.values) if isinstance(settings.eta, ByRow) else settings.eta
    trial = _Trial(
        model.process,
        scale_of(model),
        method,
        tuple((times if times.ndim == 1 else times[:, 0]).tolist()),
        settings.clock,
        cast(Amount | None, eta),
        settings.eta_convention,
        "path" if settings.noise == "path" or isinstance(settings.noise, Brownian) else None,
    )
    try:
        found = _known_gain(trial)
    except TypeError:  # a user's process or solver that cannot be hashed
        found = _gain(trial)
    if found > MOST:
        warn(
            f"in {steps} noisy steps, {method} makes samples of two-mode data of the scale {trial.scale:.3g} "
            f"{found:.3g} times too large, so your samples are likely to be too large; take more "
            "steps, less noise, or a solver meant for few noisy steps, such as 'ancestral' or 'er_sde'."
        )


def _gain(trial: _Trial) -> float:
    r"""The factor by which data with two modes comes out too large."""

    alpha, sigma = trial.process.scales(torch.tensor(trial.times, dtype=torch.float64)[[0, -1]])
    place = torch.tensor([[MODES], [-MODES]], dtype=torch.float64) * trial.scale
    model = MixtureOracle(place, trial.scale * (1 - MODES**2) ** 0.5, process=trial.process)
    settings = Settings(
        trial.method,
        times=torch.tensor(trial.times, dtype=torch.float64),
        clock=trial.clock,
        eta=cast(Eta | None, trial.eta),
        eta_convention=trial.eta_convention,
        noise=trial.noise,
        on_failure="partial",
    )
    assert settings.own_times is not None
    with torch.no_grad(), uncounted():
        x = alpha[0] * model.data(ROWS) + model.process.prior_sample(
            (ROWS, 1), dtype=torch.float64
        ) * (sigma[0] / model.process.prior_std())
        x = transport(Run(model, settings, settings.own_times), x).x
    size = float(
        x.square().mean().sqrt() / (alpha[1] ** 2 * trial.scale**2 + sigma[1] ** 2).sqrt()
    )
    return size if size == size else float("inf")


_known_gain = lru_cache(maxsize=1024)(_gain)
