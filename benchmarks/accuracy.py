r"""Error against calls on the exact digits, for every solver here, beside peers used directly.

The probability flow from sigma 80 to 0.002, 64 samples in float64: RMS error of the end point over the
batch, and the median of the samples' own, against a reference at 1e-10.

    python -m benchmarks.accuracy [SOLVER ...]
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import scoresde as ss
import solvers

from . import testbed
from .report import load, save

COUNT = 64
STEPS = (6, 9, 12, 18, 24, 34, 49, 70)
TOLERANCES = (3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def errors(x: Tensor, want: Tensor) -> dict[str, float]:
    rows = (x - want).square().mean(1)
    return {"rms": rows.mean().sqrt().item(), "median": rows.sqrt().median().item()}


def ours(z: Tensor, want: Tensor, names: Sequence[str] = ()) -> list[dict]:
    rows, oracle = [], testbed.exact_digits(ss.EDM())
    oracle = testbed.measured(oracle, oracle.data(2000, seed=8))
    for name in names or solvers.available():
        solver = solvers.get(name)
        if solver.stochastic:
            continue
        grid = {"grid": "log_snr", "clock": "log_snr"} if solver.even else {"grid": "rho"}
        runs = [{"steps": n, **grid} for n in STEPS] if solver.fixed else []
        runs += [{"rtol": r, "atol": r} for r in TOLERANCES] if solver.adaptive else []
        if name == "torchdiffeq/scipy_solver":
            runs = runs[-3:]
        for run in runs:
            s = ss.decode(oracle, z, solver=name, t_min=testbed.SIGMA_MIN, denoise=False, **run)
            setting = f"{run['steps']} steps" if "steps" in run else f"tolerance {run['rtol']:g}"
            calls = s.calls.double()
            rows.append({"solver": name, "setting": setting, "calls": calls.mean().item(),
                         "most calls": int(calls.max()), **errors(s.x, want)})  # fmt: skip
        print(name, rows[-1])
    return rows


def on_vp(z: Tensor, want: Tensor) -> list[dict]:
    r"""Adaptive solvers on the same flow seen by a VP process, in both clocks."""

    # x / alpha and the noise level are those of EDM, so the end points agree
    process, rows = ss.VP(), []
    oracle = testbed.exact_digits(process)
    start, stop = (process.at_noise_level(s) for s in (testbed.SIGMA_MAX, testbed.SIGMA_MIN))
    alphas = process.scales(torch.tensor([start, stop], dtype=torch.float64))[0]
    for name in ("dopri5", "bosh3", "torchdiffeq/dopri5"):
        for clock in ("t", "log_snr"):
            for r in TOLERANCES:
                s = ss.decode(oracle, z * alphas[0], t_max=start, t_min=stop, solver=name, clock=clock,
                              rtol=r, atol=r, denoise=False)  # fmt: skip
                rows.append({"solver": f"{name}, VP, clock {clock}", "setting": f"tolerance {r:g}",
                             "calls": s.calls.double().mean().item(), "most calls": int(s.calls.max()),
                             **errors(s.x / alphas[1], want)})  # fmt: skip
    return rows


def torchdiffeq_direct(z: Tensor, want: Tensor) -> list[dict]:
    import torchdiffeq

    vp, rows = ss.VP(), []
    oracle = testbed.exact_digits(vp)
    start, stop = (vp.at_noise_level(s) for s in (testbed.SIGMA_MAX, testbed.SIGMA_MIN))
    ends = torch.tensor([start, stop], dtype=torch.float64)
    alphas = vp.scales(ends)[0]
    flow = ss.probability_flow(oracle)
    for r in TOLERANCES:
        calls = 0

        def drift(t: Tensor, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return flow.drift(t, x)

        options = {"step_t": ends[1:]}
        x = torchdiffeq.odeint(
            drift, z * alphas[0], ends, rtol=r, atol=r, method="dopri5", options=options
        )
        rows.append({"solver": "torchdiffeq directly: dopri5, VP, clock t", "setting": f"tolerance {r:g}",
                     "calls": float(calls), "most calls": calls, **errors(x[-1] / alphas[1], want)})  # fmt: skip
    return rows


def diffusers_direct(z: Tensor, want: Tensor) -> list[dict]:
    r"""Diffusers' EDM schedulers on the same network and Karras grid.

    Their grid ends with sigma 0, so the last step's target is the denoised end point.
    """

    oracle, rows = testbed.exact_digits(ss.EDM()), []
    clean = oracle.denoise(want, torch.tensor(testbed.SIGMA_MIN, dtype=torch.float64))
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        for steps in STEPS:
            x = testbed.diffusers_edm(name, oracle, z, steps, testbed.SIGMA_MIN)
            rows.append({"solver": f"diffusers directly: {name}", "setting": f"{steps} steps",
                         "calls": float(steps), "most calls": steps, **errors(x.double(), clean)})  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    z = testbed.start(COUNT)
    want = testbed.truth(z)
    rows: list[dict] = []
    with torch.no_grad():
        if names := sys.argv[1:]:
            known = [row for row in load("accuracy") if row["solver"] not in names]
            save("accuracy", known + ours(z, want, names), samples=COUNT)
            return
        for part in (ours, on_vp, torchdiffeq_direct, diffusers_direct):
            rows += part(z, want)
            save("accuracy", rows, samples=COUNT)


if __name__ == "__main__":
    main()
