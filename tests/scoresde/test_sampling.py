r"""Sampling, encoding, decoding and editing against what is known exactly."""

import functools
import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.runs.grids import NAMES, grid_times

from ..families import family_first
from .cases import MEANS, PROCESSES, gaussian, mixture, quantile

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
ALL = solvers.available()
FIXED = [name for name in ALL if solvers.get(name).fixed]
STOCHASTIC = [name for name in ALL if solvers.get(name).stochastic]
FLOWS = [name for name in ALL if not solvers.get(name).stochastic]
# One process for each solver in the tests; benchmarks hold the full product.
PAIRS = [
    (s, "SubVP" if solvers.get(s).unstable == "over long spans" else list(PROCESSES)[i % len(PROCESSES)])
    for i, s in enumerate(name for name in ALL if not solvers.get(name).open)  # which is for other models
]  # fmt: skip
LOOSE = ("reversible_heun", "edict", "rex_noise_euler")  # weakly unstable, or first order twice
BOTH_WAYS = [n for n in FLOWS if solvers.get(n).unstable != "as the clock falls"]
PAIRS.remove(("torchdiffeq/scipy_solver", dict(PAIRS)["torchdiffeq/scipy_solver"]))  # one by one


def spend(name: str, steps: int) -> dict[str, object]:
    r"""Options by which a solver takes about so many steps, in the clock where it is stable."""

    if not solvers.get(name).fixed:
        tolerance = 1e-4 if name.endswith(("adaptive_heun", "dpm_adaptive")) else 1e-6
        tolerance = 1e-2 if solvers.get(name).stochastic else tolerance
        return {"rtol": tolerance, "atol": tolerance}
    clock = {} if solvers.get(name).solves is solvers.SemiLinear else {"clock": "log_snr"}
    return {"steps": steps, "grid": "log_snr", **clock}


def moments(x: Tensor) -> Tensor:
    return torch.cat([x.mean(0), x.T.cov().flatten()])


@functools.cache
def known_moments(process: str) -> Tensor:
    return moments(gaussian(PROCESSES[process]).data(400_000))


@pytest.mark.parametrize(("solver", "process"), family_first(*zip(*PAIRS, strict=True)))
def test_samples_have_the_moments_of_gaussian_data(solver: str, process: str) -> None:
    known, oracle = solvers.get(solver), gaussian(PROCESSES[process])
    first_order = known.order < 2
    count, close = (4000, 0.035) if known.fixed else (1000, 0.07)
    spent = spend(solver, 150 if first_order else 60)
    x = ss.sample(oracle, count, solver=solver, seed=1, **spent).x
    assert (moments(x) - known_moments(process)).abs().max() < (0.12 if first_order else close)


FOLLOWED = [
    pytest.param(*family.values, process, marks=family.marks if i % 3 == j else pytest.mark.slow)
    for i, family in enumerate(family_first(FLOWS))
    for j, process in enumerate(["VP", "EDM", "Interpolant"])
]  # one process for each family at every commit


@pytest.mark.parametrize(("solver", "process"), FOLLOWED)
def test_flows_follow_the_exact_flow(solver: str, process: str) -> None:
    oracle = quantile(PROCESSES[process])
    start, stop = oracle.process.t_max, oracle.process.at_noise_level(0.1)
    z = oracle.process.prior_sample((5, 3), seed=2)
    x = ss.decode(oracle, z, solver=solver, t_min=stop, denoise=False, **spend(solver, 200)).x
    error = (x - oracle.flow(z, start, stop)).abs().max().item()
    if solver in LOOSE:
        assert error < 1
        return
    assert error < {1: 0.1, 2: 5e-3}.get(int(solvers.get(solver).order), 2e-3)


AMOUNTS = [
    pytest.param(eta, process, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
    for i, eta in enumerate([0.0, 0.5, 1.0, 1.5])
    for j, process in enumerate(["VP", "VE", "SubVP"])
]


@pytest.mark.parametrize(("eta", "process"), AMOUNTS)
def test_all_amounts_of_noise_have_the_same_marginals(eta: float, process: str) -> None:
    oracle = mixture(PROCESSES[process])
    want = moments(oracle.data(200_000))
    for solver in ("ddim", "em"):
        options = spend(solver, 250)
        x = ss.sample(oracle, 4000, solver=solver, eta=eta, seed=4, **options).x
        assert (moments(x) - want).abs().max() < 0.08
        parts = torch.cdist(x, MEANS).argmin(1).bincount(minlength=3) / len(x)
        assert (parts - 1 / 3).abs().max() < 0.04


TAKES_ETA = [
    n for n in FLOWS if solvers.get(n).solves is solvers.SemiLinear and solvers.get(n).takes_eta
]


@pytest.mark.parametrize("solver", family_first(TAKES_ETA))
def test_a_flow_solver_with_eta_adds_the_noise_it_takes_away(solver: str) -> None:
    oracle = gaussian(ss.VP())
    options = {"steps": 80, "grid": "log_snr", "eta": 1.0, "noise": "path", "seed": 2}
    x = ss.sample(oracle, 3000, solver=solver, **options).x
    assert (moments(x) - moments(oracle.data(200_000))).abs().max() < 0.06


@pytest.mark.parametrize("solver", ["exponential", "dpm_adaptive"])
def test_an_adaptive_flow_solver_refuses_eta(solver: str) -> None:
    with pytest.raises(ValueError, match=f"eta=0.5 has no effect on {solver}: it solves"):
        ss.sample(gaussian(ss.VP()), 2, solver=solver, rtol=1e-2, atol=1e-2, eta=0.5)
    assert ss.sample(gaussian(ss.VP()), 2, solver=solver, rtol=1e-2, atol=1e-2, eta=0.0).ok


@pytest.mark.parametrize("level", [10.0, 2.0, 0.7, 0.3, 0.1])
def test_stochastic_and_deterministic_marginals_agree_on_the_way(level: float) -> None:
    oracle = gaussian(ss.VP())
    stop = oracle.process.at_noise_level(level)
    alpha, sigma = oracle.process.scales(torch.tensor(stop))
    want = moments(alpha * oracle.data(200_000) + sigma * torch.randn(200_000, 2))
    for solver in ("ancestral", "torchsde/srk", "exponential_2"):
        x = ss.sample(
            oracle, 6000, solver=solver, t_min=stop, denoise=False, **spend(solver, 120)
        ).x
        assert (moments(x) - want).abs().max() < 0.05


@pytest.mark.parametrize("solver", family_first(FIXED))
@pytest.mark.parametrize(
    "steps", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5, 9, 14, 15, 27))]
)
def test_any_number_of_steps_is_finite(solver: str, steps: int) -> None:
    for process in (ss.VP(), ss.EDM()):
        options = {**spend(solver, steps), "on_failure": "partial"}  # some diverge at so few
        s = ss.sample(mixture(process), 2, solver=solver, **options)
        assert set(s.status) <= {"ok", "diverged"}
        assert s.x.isfinite().all()
        assert len(s.times) == steps + (not solvers.get(solver).open)
        assert s.times[0] == process.t_max
        assert solvers.get(solver).open or s.times[-1] == process.start_of("sampling")


@pytest.mark.slow
@pytest.mark.parametrize("solver", FIXED)
def test_a_thousand_steps_are_finite(solver: str) -> None:
    s = ss.sample(gaussian(ss.EDM()), 1, solver=solver, **spend(solver, 1000))
    assert s.x.isfinite().all()
    assert s.accepted.tolist() == [1000 - solvers.get(solver).open]


@pytest.mark.parametrize("solver", family_first(ALL))
def test_a_sample_does_not_depend_on_its_batch(solver: str) -> None:
    oracle, options = mixture(ss.VP()), spend(solver, 12)
    together = ss.sample(oracle, 5, solver=solver, seed=9, **options)
    split = ss.sample(oracle, 5, solver=solver, seed=9, batch_size=2, **options)
    alone = ss.sample(oracle, 1, solver=solver, seed=9, first_index=3, **options)
    exact = not solver.startswith("torchdiffeq") or solvers.get(solver).fixed
    tolerance = 1e-10 if exact and "adams" not in solver else 1e-3  # whose steps the batch shares
    assert torch.allclose(together.x, split.x, atol=tolerance)
    assert torch.allclose(together.x[3:4], alone.x, atol=tolerance)
    if exact and "adams" not in solver:
        assert together.calls[3] == alone.calls[0]
    other = ss.sample(oracle, 5, solver=solver, seed=10, **options)
    assert (other.x - together.x).abs().max() > 0.1


def test_eta_zero_is_the_flow_exactly() -> None:
    oracle = mixture(ss.EDM())
    runs = [
        ss.sample(oracle, 3, solver=name, steps=7, eta=0.0).x for name in ("ddim", "ancestral")
    ]
    assert torch.equal(*runs)


def test_ddim_is_its_published_form() -> None:
    # Song et al. (2021), equation (12): x' = a' D + s' (x - a D) / s, on VP
    oracle, process = mixture(ss.VP()), ss.VP()
    s = ss.sample(oracle, 3, solver="ddim", steps=6, grid="t", denoise=False, path=True)
    assert s.path is not None
    for x, y, t, u in zip(s.path[:-1], s.path[1:], s.times[:-1], s.times[1:], strict=True):
        (a, sigma), (a1, sigma1) = process.scales(t), process.scales(u)
        D = oracle.denoise(x, t)
        assert torch.allclose(y, a1 * D + sigma1 * (x - a * D) / sigma)


def test_euler_in_sigma_is_ddim() -> None:
    oracle = mixture(ss.EDM())
    runs = [ss.sample(oracle, 3, solver=name, steps=7).x for name in ("ddim", "euler")]
    assert torch.allclose(*runs)


@each
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sgm_uniform"])
def test_grids_end_where_they_should_and_are_reversible(process: ss.Process, name: str) -> None:
    start, stop = process.t_max, process.start_of("sampling")
    for steps in (1, 2, 9):
        down = grid_times(process, name, start, stop, steps)
        up = grid_times(process, name, stop, start, steps)
        assert (down[0], down[-1], len(down)) == (start, stop, steps + 1)
        assert (down.diff() < 0).all()
        assert torch.allclose(up.flip(0), down, rtol=1e-9)


def test_karras_grid_is_its_formula() -> None:
    i = torch.arange(10) / 9
    want = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(grid_times(ss.EDM(), "rho", 80.0, 0.002, 9), want)


@pytest.mark.parametrize("solver", family_first(BOTH_WAYS))
def test_round_trip_converges(solver: str) -> None:
    oracle = mixture(ss.VP())
    x, options = (
        oracle.data(4),
        {**spend(solver, 200), "t_min": oracle.process.at_noise_level(0.02)},
    )
    if options.get("rtol"):
        tolerance = 1e-5 if solver.endswith(("adaptive_heun", "dpm_adaptive")) else 1e-8
        options |= {"rtol": tolerance, "atol": tolerance}
    r = ss.reconstruct(oracle, x, solver=solver, **options)
    error = {1: 0.2, 2: 2e-2}.get(int(solvers.get(solver).order), 1e-3)
    assert r.max.max() < error
    assert torch.allclose(r.rms, (r.x - x).square().mean(1).sqrt())
    assert r.latent.x.std() == pytest.approx(1.0, abs=0.6)


@each
def test_latents_are_those_of_the_exact_flow(process: ss.Process) -> None:
    oracle = quantile(process)
    x = oracle.data(6)
    z = ss.encode(oracle, x, rtol=1e-8, atol=1e-8)
    t = float(z.times[0])
    alpha = process.scales(torch.tensor(t))[0]
    assert torch.allclose(z.x, oracle.flow(alpha * x, t, process.t_max), rtol=1e-5, atol=1e-5)
    back = ss.decode(oracle, z, denoise=False)
    assert torch.allclose(back.x / alpha, x, atol=1e-5)
    assert back.provenance["rtol"] == 1e-8


def test_decode_of_a_solution_flips_its_grid() -> None:
    z = ss.encode(mixture(ss.VP()), MEANS, solver="heun", steps=9)
    y = ss.decode(mixture(ss.VP()), z, denoise=False)
    assert torch.equal(y.times, z.times.flip(0))
    assert y.provenance["solver"] == "heun"
    other = ss.encode(mixture(ss.VP()), MEANS, solver="heun", steps=9, clock="log_snr")
    assert ss.decode(mixture(ss.VP()), other).provenance["clock"] == "log_snr"
    assert ss.decode(mixture(ss.VP()), z, solver="ddim", steps=4).provenance["solver"] == "ddim"


@pytest.mark.parametrize("method", ["encode", "noise"])
def test_edit_goes_where_it_is_told(method: str) -> None:
    oracle = mixture(ss.VP())
    x = MEANS[:1] + 0.3 * torch.randn(200, 2)
    e = ss.edit(
        oracle.given(label=0), oracle.given(label=1), x, noise_level=20.0, method=method,
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    assert torch.allclose(e.x.mean(0), MEANS[1], atol=0.12)
    if method == "encode":  # the flow between Gaussians of one width is a shift
        assert torch.allclose(e.x - x, (MEANS[1] - MEANS[0]).expand(200, 2), atol=0.05)
    t = e.times[0] if method == "noise" else e.times.max()
    assert oracle.process.noise_level(float(t)) == pytest.approx(20.0)


def test_strength_is_the_fraction_of_the_log_snr_span() -> None:
    process = ss.EDM()
    e = ss.edit(
        mixture(process), mixture(process), MEANS, strength=0.5, t_min=0.02, steps=3, solver="ddim"
    )
    assert e.times.max().item() == pytest.approx(math.sqrt(0.02 * 80))


@pytest.mark.parametrize("level", [0.1, 0.5, 2.0, 10.0, 50.0])
def test_noised_start_of_an_edit_has_the_marginals_of_its_level(level: float) -> None:
    process, seen = ss.VP(), []

    class Seen(ss.GaussianOracle):
        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append((x.clone(), t.clone()))
            return super().denoise(x, t)

    model = Seen(torch.zeros(2), 1.0, process=process)
    x = torch.full((5000, 2), 1.5)
    ss.edit(model, model, x, noise_level=level, method="noise", solver="ddim", steps=1)
    noisy, t = seen[0]
    alpha, sigma = process.scales(t[0])
    assert (sigma / alpha).item() == pytest.approx(level, rel=1e-6)
    assert abs(noisy.mean() - 1.5 * alpha) < 5 * sigma / math.sqrt(10_000)
    assert abs(noisy.std() / sigma - 1) < 0.04


def test_flow_and_reverse_sde_can_be_integrated_by_hand() -> None:
    oracle = gaussian(ss.VP())
    x = oracle.process.prior_sample((3, 2))
    times = torch.linspace(1.0, 0.05, 200)
    flow = solvers.solve(ss.probability_flow(oracle), x, times, "rk4").x
    assert torch.allclose(flow, oracle.flow(x, 1.0, 0.05), atol=1e-6)
    from torchdiffeq import odeint

    ode = ss.probability_flow(oracle)
    assert torch.allclose(odeint(ode.drift, x, times, method="rk4")[-1], flow, atol=1e-7)
    many = oracle.process.prior_sample((4000, 2))
    y = solvers.solve(ss.reverse_sde(oracle), many, times, "em", seed=1).x
    alpha, sigma = oracle.process.scales(times[-1])
    want = moments(alpha * oracle.data(100_000) + sigma * torch.randn(100_000, 2))
    assert (moments(y) - want).abs().max() < 0.06


def test_nonlinear_processes_are_sampled_by_their_score() -> None:
    process = ss.NonlinearProcess(lambda x, t: -x, lambda t: torch.full_like(t, 2**0.5), t_max=4.0)
    std = 0.5  # of data; the process is that of Ornstein and Uhlenbeck, taken for one of any drift

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        return -x / (1 + torch.exp(-2 * t) * (std**2 - 1))

    model = ss.NetworkScore(score, process, "score", shape=(1,))
    for solver, steps in (("rk4", 60), ("dopri5", None), ("em", 400), ("torchsde/srk", 100)):
        options = {"rtol": 1e-5, "clock": "t"} if steps is None else {"steps": steps}
        x = ss.sample(model, 4000, solver=solver, denoise=False, **options).x
        assert abs(x.std() - std) < 0.03
    plain = {"solver": "em", "steps": 20, "seed": 0}  # there is no last denoising to leave out
    assert torch.equal(
        ss.sample(model, 2, **plain).x, ss.sample(model, 2, denoise=False, **plain).x
    )
    for options in ({}, {"solver": "ddim"}):
        with pytest.raises(ValueError, match="has no alpha and sigma"):
            ss.sample(model, 2, **options)


def test_path_callback_and_progress_agree(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[solvers.Event] = []
    s = ss.sample(mixture(ss.VP()), 3, solver="dpmpp_2m", steps=6, path=True, denoise=False,
                  callback=events.append, progress=True)  # fmt: skip
    assert s.path is not None
    assert torch.allclose(torch.stack([e.x for e in events]), s.path[1:])
    assert torch.allclose(torch.stack([e.time for e in events]), s.times[1:])
    assert "100%" in capsys.readouterr().err


def test_provenance_says_what_made_a_sample() -> None:
    s = ss.sample(mixture(ss.VP()), 2, solver="em", steps=5, seed=None)
    again = ss.sample(mixture(ss.VP()), 2, solver="em", steps=5, seed=s.provenance["seed"])
    assert torch.equal(s.x, again.x)
    known = {
        "solver": "em",
        "steps": 5,
        "eta": 1.0,
        "clock": "t",
        "noise": "increments",
    }
    assert known.items() <= s.provenance.items()


def test_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    ss.sample(mixture(ss.VP()), 2, solver="em", steps=3)
    ss.log_likelihood(mixture(ss.VP()), MEANS, probes=2)
    assert torch.equal(before, torch.random.get_rng_state())


M, X = mixture(ss.VP()), torch.zeros(2, 2)
BAD = [
    (lambda: ss.sample(M, 2, steps=0), ValueError, "steps must be at least 1, but is 0"),
    (lambda: ss.sample(M, 2, steps=-3), ValueError, "steps must be at least 1, but is -3"),
    (lambda: ss.sample(M, 2, steps=5.0), TypeError, "steps must be a whole number, but is 5.0"),
    (lambda: ss.sample(M, 2, step=10), TypeError, "step= is neither.*did you mean steps="),
    (lambda: ss.sample(M, 2, lable=1), TypeError, "did you mean label="),
    (
        lambda: ss.sample(M, 2, label=torch.zeros(3).long()),
        ValueError,
        r"leading size 2 or 1.*\(3,\)",
    ),
    (lambda: ss.sample(M, 2, label=9), ValueError, r"label must lie in \[0, 2\], but one is 9"),
    (lambda: ss.sample(M, 2, solver="dpm2m"), ValueError, "did you mean.*dpmpp_2m"),
    (lambda: ss.sample(M, 2, grid="logsnr"), ValueError, "did you mean 'log_snr'"),
    (lambda: ss.sample(M, 2, times=torch.tensor([1.0, 0.2, 0.5])), ValueError, "from 0.2 to 0.5"),
    (
        lambda: ss.sample(M, 2, times=torch.tensor([1.0, 0.0])),
        ValueError,
        r"must lie in \[1e-05, 1\]",
    ),
    (
        lambda: ss.sample(M, 2, times=torch.tensor([1.0, math.nan])),
        ValueError,
        r"times\[1\] is nan",
    ),
    (lambda: ss.sample(M, 2, times=torch.tensor([0.1, 1.0])), ValueError, "pass times.flip"),
    (
        lambda: ss.sample(M, 2, solver="dopri5", steps=5, rtol=1e-3),
        ValueError,
        "steps= has no effect with rtol",
    ),
    (
        lambda: ss.sample(M, 2, solver="torchdiffeq/dopri5", steps=5),
        ValueError,
        "steps= has no effect",
    ),
    (lambda: ss.sample(M, 2, solver="ddim", rtol=1e-3), ValueError, "does not estimate its error"),
    (lambda: ss.sample(M, 2, solver="heun", eta=0.5), ValueError, "eta=0.5 has no effect on heun"),
    (lambda: ss.sample(M, 2, eta=-1.0), ValueError, "eta must be a finite number >= 0"),
    (
        lambda: ss.sample(M, 2, solver="ddim", clock="t"),
        ValueError,
        "clock='t' has no effect on ddim",
    ),
    (lambda: ss.sample(M, 2, clock="sigma"), ValueError, "'t' or 'log_snr', but is 'sigma'"),
    (lambda: ss.sample(M, 2, batch_size=0), ValueError, "batch_size must be at least 1"),
    (lambda: ss.sample(M, 2, dtype=torch.float16), ValueError, "float32 or torch.float64"),
    (lambda: ss.sample(M, (2, 3)), ValueError, r"must be \(B, 2\).*\(3,\)"),
    (lambda: ss.sample(M, 0), ValueError, "positive whole numbers"),
    (lambda: ss.sample(M, 2, t_min=2.0), ValueError, r"t_min|t_max must lie in"),
    (lambda: ss.sample(torch.nn.Identity(), 2), TypeError, "must be a ScoreModel.*NetworkScore"),
    (
        lambda: ss.encode(M, X, solver="em"),
        ValueError,
        "em with eta=1 is stochastic; use a solver without",
    ),
    (
        lambda: ss.encode(M, X, solver="ddim", steps=3, eta=0.3),
        ValueError,
        "eta= has no effect on encode, which follows the probability flow",
    ),
    (
        lambda: ss.encode(M, X, clip=True),
        ValueError,
        "clip= has no effect on encode.*clamp the data",
    ),
    (lambda: ss.encode(M, X.long()), TypeError, "floating-point numbers, but holds torch.int64"),
    (lambda: ss.encode(M, X / 0), ValueError, r"NaN or infinite entries in rows \[0, 1\]"),
    (lambda: ss.encode(M, X[0]), ValueError, r"shape \(B, \*\).*\(2,\)"),
    (
        lambda: ss.encode(M, "x"),
        TypeError,
        "x must be numbers in a tensor, an array or a list, but is 'x'",
    ),
    (
        lambda: ss.encode(M, X.to("meta")),
        TypeError,
        "x must be numbers, but is on the device meta",
    ),
    (
        lambda: ss.reconstruct(M, X, denoise=True),
        ValueError,
        "denoise= has no effect on a round trip",
    ),
    (
        lambda: ss.decode(M, X, t_max=0.5, times=torch.tensor([1.0, 0.1])),
        ValueError,
        "must start at t_max=0.5",
    ),
    (
        lambda: ss.sample(M, 2, t_min=0.5, times=torch.tensor([1.0, 0.1])),
        ValueError,
        "t_min=0.5 does not agree",
    ),
    (lambda: ss.decode(M, X, t_max=1e-4), ValueError, "decoding goes from t_max down to t_min"),
    (lambda: ss.encode(M, X, t_max=1e-5), ValueError, "encoding goes from t_min up to t_max"),
    (
        lambda: ss.decode(M, ss.encode(M, X, t_max=0.5), t_max=1.0),
        ValueError,
        "latents are at t_max=0.5",
    ),
    (lambda: ss.sample(M, 2, max_calls=1), ValueError, "more than the 1 of the last denoising"),
    (lambda: ss.sample(M, 2.5), TypeError, "shape must be a whole number or"),
    (
        lambda: ss.edit(M, mixture(ss.EDM()), X, strength=0.5),
        ValueError,
        "must have the same process",
    ),
    (
        lambda: ss.edit(M, M, X, strength=0.5, times=torch.tensor([0.1, 1.0])),
        ValueError,
        "times= has no effect",
    ),
    (
        lambda: ss.edit(M, M, X, noise_level=0.005, method="noise"),
        ValueError,
        "noise_level must lie in",
    ),
    (lambda: ss.edit(M, M, X), ValueError, "exactly one of noise_level= and strength="),
    (lambda: ss.edit(M, M, X, noise_level=1.0, strength=0.5), ValueError, "got both"),
    (
        lambda: ss.edit(M, M, X, strength=1.5),
        ValueError,
        r"strength must lie in \(0, 1\], but is 1.5",
    ),
    (lambda: ss.edit(M, M, X, noise_level=1e6), ValueError, "noise_level must lie in"),
    (
        lambda: ss.edit(M, M, X, strength=0.5, method="x"),
        ValueError,
        "method must be one of encode, noise",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2][:24] for case in BAD])
def test_bad_input_gets_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (
            lambda x, t: x[:, :1],
            ValueError,
            r"shape of its input, \(2, 3\), but returned \(2, 1\)",
        ),
        (lambda x, t: (x * 0).long(), TypeError, "floating-point numbers, not torch.int64"),
        (lambda x, t: None, ValueError, "but returned NoneType"),
        (lambda x, t: x / 0, solvers.SolverError, r"t=.*sigma/alpha=.*samples \[0, 1\]"),
    ],
)
def test_bad_networks_get_a_sentence(network, error, message) -> None:
    model = ss.NetworkScore(network, ss.VP(), "noise", shape=(3,))
    for solver in (
        "ddim",
        "heun",
        "dopri5",
        "torchdiffeq/rk4",
        "torchdiffeq/dopri5",
        "torchsde/srk",
    ):
        with pytest.raises(error, match=message):
            ss.sample(model, 2, solver=solver)


@pytest.mark.parametrize("solver", ["ddim", "dopri5", "torchdiffeq/midpoint"])
def test_a_failure_in_a_batch_names_the_sample_of_the_run_and_keeps_the_rest(solver: str) -> None:
    def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where((label == 5)[:, None], math.nan, 0 * x)

    model = ss.NetworkScore(network, ss.EDM(), "data", conditions=("label",), shape=(2,))
    with pytest.raises(solvers.SolverError, match=r"samples \[5\]") as error:
        ss.sample(model, 8, solver=solver, batch_size=2, label=torch.arange(8))
    kept = error.value.solution
    assert kept.status == (*["ok"] * 4, kept.status[4], "nonfinite")
    assert kept.x[:4].abs().max() < 0.1
    partial = ss.sample(
        model, 8, solver=solver, batch_size=2, label=torch.arange(8), on_failure="partial"
    )
    bad = {i for i, status in enumerate(partial.status) if status == "nonfinite"}
    assert bad == {5} or (bad == {4, 5} and solver.startswith("torchdiffeq"))  # which shares steps
    assert partial.x.isfinite().all()


def test_edit_by_noise_uses_noise_of_its_own() -> None:
    oracle = mixture(ss.EDM())
    x = ss.sample(oracle, 50, seed=0).x
    y = ss.edit(
        oracle, oracle, x, noise_level=20.0, method="noise", seed=0, solver="ddim", steps=20
    ).x
    assert (x - y).square().mean().sqrt() > 0.5  # it is not the noise that made the sample


@pytest.mark.parametrize("options", [{"steps": 30}, {"rtol": 1e-8, "atol": 1e-8}])
def test_a_round_trip_keeps_its_steps_in_any_clock(options: dict[str, float]) -> None:
    from solvers import RungeKutta

    oracle, x = mixture(ss.VP()), MEANS
    for solver in ("dopri5", RungeKutta(solvers.get("dopri5").tableau)):
        r = ss.reconstruct(oracle, x, solver=solver, clock="log_snr", **options)
        assert r.max.max() < 1e-4
        if "steps" in options:
            assert r.calls.tolist() == [2 * (30 * 6 + 1)] * 3
    e = ss.edit(oracle, oracle, x, solver="heun", steps=7, clock="log_snr", strength=0.5)
    assert len(e.times) == 8


@pytest.mark.parametrize(
    "solver", ["ddim", "heun", "dopri5", "em", "torchdiffeq/scipy_solver", "torchsde/srk"]
)
@pytest.mark.parametrize("limit", [3, 10, 25])
def test_max_calls_is_a_bound(solver: str, limit: int) -> None:
    for model in (mixture(ss.VP()), ss.classifier_free(mixture(ss.VP()), 2.0, label=1)):
        s = ss.sample(model, 2, solver=solver, max_calls=limit, on_failure="partial")
        assert s.calls.max() <= limit


def test_a_failed_row_is_a_state_of_the_process() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, None] < 0.5, math.nan, 0 * x)

    model = ss.NetworkScore(network, ss.VP(), "data", shape=(1,))
    s = ss.sample(model, 3, solver="ddim", steps=50, grid="t", on_failure="partial", path=True)
    assert set(s.status) == {"nonfinite"}
    sigma = ss.VP().scales(s.times[s.accepted[0]])[1]
    z = ss.VP().prior_sample((3, 1))
    assert torch.allclose(s.x, z * sigma / ss.VP().prior_std())
    assert s.path[-1].isnan().all()
    assert (
        ss.log_likelihood(mixture(ss.VP()), MEANS, max_calls=9, on_failure="partial")
        .nats.isnan()
        .all()
    )


def test_latents_of_a_condition_want_it_back() -> None:
    oracle = mixture(ss.VP())
    z = ss.encode(oracle, MEANS, solver="heun", steps=9, label=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="were encoded with label=, which is missing here"):
        ss.decode(oracle, z)
    assert ss.decode(oracle.given(label=1), z).x.isfinite().all()


def test_models_in_training_mode_are_told() -> None:
    network = torch.nn.Sequential(torch.nn.Dropout(0.5))
    model = ss.NetworkScore(lambda x, t: network(x), ss.VP(), "noise", shape=(2,))
    model.part = network
    with pytest.warns(UserWarning, match="training mode, so its Dropout makes results random"):
        ss.sample(model, 2, steps=2)


def test_a_start_at_little_noise_is_told() -> None:
    with pytest.warns(UserWarning, match="nats per dimension from noised data"):
        ss.sample(mixture(ss.EDM()), 2, times=[1.0, 0.1, 0.01])


@pytest.mark.parametrize("solver", [name for name in FIXED if solvers.get(name).even])
def test_adams_methods_are_right_at_their_defaults(solver: str) -> None:
    oracle = gaussian(ss.EDM())
    x = ss.sample(oracle, 2000, solver=solver, steps=60).x
    assert (moments(x) - moments(oracle.data(100_000))).abs().max() < 0.05


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ss.sample(M, 2, rtol="1e-3", solver="dopri5"),
            TypeError,
            "rtol must be a number",
        ),
        (lambda: ss.sample(M, 2, callback=3), TypeError, "callback must be a function"),
        (lambda: ss.sample(M, 2, seed=2**70), ValueError, "seed must fit into 64 bits"),
        (lambda: ss.sample(M.given(label=1), 2, label=2), TypeError, "already bound to the model"),
        (
            lambda: ss.VP("cosine"),
            TypeError,
            "schedule must be a Schedule, but is 'cosine'; pass ss.Cosine",
        ),
        (
            lambda: ss.NetworkScore(torch.nn.Identity(), ss.VP, "data"),
            TypeError,
            "process must be a Process, but is the class VP; pass ss.VP",
        ),
        (
            lambda: ss.NetworkScore(None, ss.VP(), "data"),
            TypeError,
            "network must be a Module or a function, but is None",
        ),
    ],
)
def test_wrong_kinds_get_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
