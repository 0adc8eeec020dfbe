r"""Laws of linear processes on blocks of the state: matrices, blurring, correlated noise and Langevin."""

import math
from dataclasses import dataclass, replace

import pytest
import scipy.fft
import scipy.linalg
import torch
from torch import Tensor

import scoresde as ss
from scoresde.likelihood.entry import entered
from scoresde.processes.process import Process
from scoresde.reverse.block_linear import BlockFrame
from scoresde.reverse.problems import reverse_of
from solvers import ODE, SDE

MEAN = torch.tensor([0.3, -0.4], dtype=torch.float64)
SPREAD = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
CORRELATED = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
VP = ss.VP()


def turning(t: Tensor) -> Tensor:
    r"""Rates that do not commute at different times."""

    rows = [[-1 - t, 3 * torch.cos(5 * t)], [-(t**2), -2 * torch.ones_like(t)]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def growing(t: Tensor) -> Tensor:
    return (1 + t)[:, None, None] * torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)


TURNING = ss.MatrixProcess(turning, growing, t_max=4.0)
PROCESSES = {
    "cld": ss.CLD(),
    "turning": TURNING,
    "blurring": ss.Blurring((2,), blur=1.0),
    "correlated": ss.CorrelatedNoise(VP, CORRELATED),
}
of_each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
SLOW = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("blurring", "correlated")))
    for name in PROCESSES
]  # of those with matrices that are numbers
of_some = pytest.mark.parametrize("name", SLOW)


def gaussian(process: Process) -> ss.GaussianOracle:
    return ss.GaussianOracle(MEAN, SPREAD, process=process)


def times(process: Process) -> Tensor:
    low, high = math.log(process.t_min), math.log(process.t_max)
    return torch.linspace(low, high, 5, dtype=torch.float64).exp().clamp(max=process.t_max)


@of_each
def test_matrices_solve_their_equations(process: ss.BlockProcess) -> None:
    t = times(process)[1:-1]
    h = 1e-5 * t
    F, G = process.drift_matrix(t), process.diffusion(t)
    A, S = process.signal_matrix(t), process.covariance(t)

    def slope(f):
        return (f(t + h) - f(t - h)) / (2 * h).reshape(-1, *(1,) * (f(t).ndim - 1))

    assert torch.allclose(slope(process.signal_matrix), F @ A, rtol=1e-6, atol=1e-7)
    lyapunov = F @ S + S @ F.mT + G @ G.mT
    assert torch.allclose(slope(process.covariance), lyapunov, rtol=1e-6, atol=1e-7)
    assert torch.allclose(slope(process.log_snr), process.slope(t), rtol=1e-6)
    assert torch.allclose(process.time(process.log_snr(t)), t, rtol=1e-12)
    assert bool((process.slope(t) < 0).all())


@of_each
def test_transitions_compose(process: ss.BlockProcess) -> None:
    r, s, t = times(process)[[0, 2, 4]]
    both = process.transition(s, t) @ process.transition(r, s)
    assert torch.allclose(both, process.transition(r, t), rtol=1e-11, atol=1e-13)
    back = process.transition(t, s) @ process.transition(s, t)
    assert torch.allclose(back, torch.eye(process.size, dtype=torch.float64), atol=1e-10)


def test_langevin_is_the_matrix_exponential_and_its_lyapunov_equation() -> None:
    mass, gamma, beta = 0.25, 0.04, 4.0
    F = torch.tensor([[0, beta / mass], [-beta, -2 * beta / mass**0.5]], dtype=torch.float64)
    G = torch.diag(torch.tensor([0, (4 * mass**0.5 * beta) ** 0.5], dtype=torch.float64))
    process, t = ss.CLD(beta, mass, gamma), times(ss.CLD())
    same = ss.MatrixProcess(F, G, data_size=1, start=[[gamma * mass]])
    for time in t:
        wanted = torch.from_numpy(scipy.linalg.expm(float(time) * F.numpy()))
        assert torch.allclose(process.transition(0 * time, time)[0], wanted, rtol=0, atol=1e-14)
    assert torch.allclose(process.covariance(t), same.covariance(t), rtol=1e-10, atol=0)
    assert torch.allclose(process.signal_matrix(t), same.signal_matrix(t), rtol=0, atol=1e-14)
    ramp = ss.CLD(lambda t: 8 * t)  # as much in all, at another pace
    last = torch.tensor(1.0, dtype=torch.float64)
    assert torch.allclose(ramp.covariance(last), process.covariance(last), rtol=1e-12)


def test_a_turning_process_is_its_fine_product() -> None:
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    middle = (t[1:] + t[:-1]) / 2
    steps = torch.linalg.matrix_exp(turning(middle) * t.diff()[:, None, None])
    whole = EYE
    for step in steps:
        whole = step @ whole
    found = TURNING.transition(t[0], t[-1])[0]
    assert torch.allclose(found, whole, atol=1e-6)  # of the product, of order 2


def test_blurring_is_the_cosine_transform() -> None:
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    process = ss.Blurring((3, 4, 6), blur=3.0, floor=0.01)
    wanted = torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho"))
    assert torch.allclose(process.to_axes(x), wanted, atol=1e-12)
    assert torch.allclose(process.from_axes(process.to_axes(x)), x, atol=1e-12)
    t, none = torch.tensor(0.5, dtype=torch.float64), torch.zeros_like(x)
    i, j = torch.arange(4)[:, None] / 4, torch.arange(6) / 6
    faded = torch.exp(-(math.pi**2) * (i**2 + j**2) * 9 / 2 * math.sin(math.pi / 4) ** 4)
    wanted = process.from_axes(
        VP.scales(t)[0] * (0.99 * faded.double() + 0.01) * process.to_axes(x)
    )
    assert torch.allclose(process.perturb(x, t, none), wanted, atol=1e-6)


def test_correlated_noise_has_its_covariance() -> None:
    process = PROCESSES["correlated"]
    t = torch.tensor(0.4, dtype=torch.float64)
    noise = process.times(process.root(t), EYE)
    assert torch.allclose(noise.T @ noise, VP.scales(t)[1] ** 2 * CORRELATED, atol=1e-12)
    by_entry = ss.CorrelatedNoise(VP, torch.tensor([1.0, 4.0]))
    assert torch.equal(by_entry.covariance_matrix, torch.diag(torch.tensor([1.0, 4.0]).double()))


@of_each
def test_the_score_of_a_gaussian_is_the_gradient_of_its_log_density(
    process: ss.BlockProcess,
) -> None:
    model, g = gaussian(process), torch.Generator().manual_seed(0)
    x = model.data(6)
    t = times(process)[[0, 1, 2, 2, 3, 4]]
    z = torch.randn(process.state_shape(x.shape), dtype=torch.float64, generator=g)
    u = process.perturb(x, t, z).requires_grad_()
    [wanted] = torch.autograd.grad(model.log_prob(u, t).sum(), u)
    found = model.score(u.detach(), t)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-8)
    part = process.score_of(u.detach(), model.denoise(u.detach(), t), t)
    assert torch.allclose(part, found)
    apart = process.noise_of(u.detach(), x, t)
    assert torch.allclose(apart, z, atol=1e-8)  # the noise that was added
    one = model.score(u[:1].detach(), t[0])
    assert torch.allclose(one, found[:1], rtol=1e-9)


def test_a_mixture_has_its_density_and_score() -> None:
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    model = ss.MixtureOracle(means, torch.stack([SPREAD, 0.1 * EYE]), process=ss.CLD())
    t = torch.tensor(0.2, dtype=torch.float64)
    u = ss.CLD().perturb(model.data(5), t, torch.ones(5, 4, dtype=torch.float64)).requires_grad_()
    [wanted] = torch.autograd.grad(model.log_prob(u, t).sum(), u)
    assert torch.allclose(model.score(u.detach(), t), wanted, atol=1e-9)
    A, S = ss.CLD().signal_matrix(t)[0], ss.CLD().covariance(t)[0]
    parts = []
    for mean, spread in zip(means, (SPREAD, 0.1 * EYE), strict=True):
        V = torch.kron(A @ A.T, spread) + torch.kron(S, EYE)
        law = torch.distributions.MultivariateNormal(torch.kron(A[:, 0], mean), V)
        parts.append(law.log_prob(u.detach()))
    assert torch.allclose(
        model.log_prob(u.detach(), t), torch.stack(parts).logsumexp(0) - math.log(2), atol=1e-9
    )


SCALAR = {
    "correlated": ss.CorrelatedNoise(VP, EYE),
    "blurring": ss.Blurring((2,), blur=0.0),
    "matrix": ss.MatrixProcess(
        lambda t: VP.rates(t)[0][:, None, None] * EYE,
        lambda t: VP.diffusion(t)[:, None, None] * EYE,
        t_min=VP.t_min,
    ),
}


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("exponential_1", {}),
        ("exponential_3", {}),
        ("deis_2", {}),
        ("unipc", {}),
        ("heun", {}),
        ("torchdiffeq/rk4", {}),
        ("em", {}),
        ("torchsde/srk", {"eta": 0.7, "noise": "path"}),
        ("dpmpp_2m_sde", {"eta": 0.5}),
        ("deis_2", {"eta": 0.8}),
    ],
    ids=str,
)
def test_a_scalar_process_has_its_samples_on_this_road(solver: str, options: dict) -> None:
    grid = VP.time(torch.linspace(-4.5, 3, 5, dtype=torch.float64))
    options = {"solver": solver, "times": grid, "dtype": torch.float64, "seed": 3, **options}
    wanted = ss.sample(gaussian(VP), 2, **options).x
    for name, process in SCALAR.items():
        found = ss.sample(gaussian(process), 2, **options).x
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12), name


@of_each
@pytest.mark.parametrize("variance", [0.0, 0.3, math.inf])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_linear_parts_keep_their_law(
    process: ss.BlockProcess, variance: float, eta: float
) -> None:
    r"""The linear part is the reverse of Gaussian data with this variance, whose law it must keep."""

    frame = BlockFrame(process, variance, eta)
    k = process.size
    s, t = process.log_snr(times(process)[[3, 1]])
    decay = frame.decay(s, t).reshape(-1, k, k)
    std = frame.noise_std(s, t).reshape(-1, k, k)
    before, after = process.time(torch.stack([s, t]))
    if variance == math.inf:
        assert torch.allclose(decay, process.transition(before, after), rtol=1e-9, atol=1e-9)
        gained = eta**2 * (
            decay @ process.covariance(before) @ decay.mT - process.covariance(after)
        )
        assert torch.allclose(std @ std.mT, gained, rtol=1e-9, atol=1e-9)
        return
    first, last = (
        variance * process.signal_matrix(u) @ process.signal_matrix(u).mT + process.covariance(u)
        for u in (before, after)
    )
    assert torch.allclose(decay @ first @ decay.mT + std @ std.mT, last, rtol=1e-9, atol=1e-11)
    h = 1e-6  # and it is the flow of its equation
    w, F, G = (1 + eta**2) / 2, process.drift_matrix(before), process.diffusion(before)
    rate = (F + w * G @ G.mT @ torch.linalg.inv(first)) / process.slope(before)
    small = (frame.decay(s, s + h) - frame.decay(s, s - h)).reshape(-1, k, k) / (2 * h)
    assert torch.allclose(small, rate, rtol=1e-5, atol=1e-6)


@of_each
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_reverse_has_the_drift_and_noise_of_its_equation(
    process: ss.BlockProcess, eta: float
) -> None:
    model, t = gaussian(process), times(process)[2]
    u = torch.linspace(-1, 1, 3 * process.state_shape((1, 2))[1]).double().reshape(3, -1)
    own = torch.eye(u.shape[1]).double()
    A, S, F = (
        process.times(matrix, eye).T
        for matrix, eye in (
            (process.signal_matrix(t), EYE),
            (process.covariance(t), own),
            (process.drift_matrix(t), own),
        )
    )
    G = process.diffusion(t)
    spread = process.times(G @ G.mT, own).T
    score = -torch.linalg.solve(A @ SPREAD @ A.T + S, (u - MEAN @ A.T).T).T
    wanted = u @ F.T - (1 + eta**2) / 2 * score @ spread.T
    kind = SDE if eta else ODE
    for clock, at, pace in (("t", t, 1.0), ("log_snr", process.log_snr(t), process.slope(t))):
        problem = reverse_of(model, kind, eta, clock).problem()
        drift = process.from_axes(problem.drift(at, process.to_axes(u)))
        assert torch.allclose(drift, wanted / pace, rtol=1e-8, atol=1e-10)
        if eta:
            noise = problem.diffusion(at)
            found = process.times(noise @ noise.mT, own).T
            assert torch.allclose(found, eta**2 * spread / abs(pace), rtol=1e-8, atol=1e-12)


@of_some
def test_exponential_solvers_converge_with_their_orders(name: str) -> None:
    process = PROCESSES[name]
    model = gaussian(process)
    start = process.time(torch.tensor(-2.0, dtype=torch.float64))
    z = process.times(
        process.root(start), torch.ones(1, *process.state_shape((1, 2))[1:]).double()
    )
    stop = process.time(torch.tensor(1.5, dtype=torch.float64))

    def at(solver: str, steps: int) -> Tensor:
        grid = process.time(torch.linspace(-2.0, 1.5, steps + 1, dtype=torch.float64))
        grid[0], grid[-1] = start, stop
        return ss.decode(model, z, t_max=float(start), solver=solver, times=grid, denoise=False).x

    best = at("exponential_4", 96)
    for order in (1, 2, 3):
        errors = [(at(f"exponential_{order}", n) - best).abs().max() for n in (10, 40)]
        assert math.log2(errors[0] / errors[1]) / 2 > order - 0.5, errors
    assert (at("torchdiffeq/rk4", 40) - best).abs().max() < 5e-3


@of_some
def test_latents_have_the_law_of_the_prior_and_come_back(name: str) -> None:
    r"""The flow is linear on Gaussian data, so a few states tell how it carries the covariance."""

    process = PROCESSES[name]
    model = gaussian(process)
    start = float(process.time(torch.tensor(2.0, dtype=torch.float64)))
    t = torch.tensor(start, dtype=torch.float64)
    n = math.prod(process.state_shape((1, 2)))
    states = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    options = {"solver": "exponential_4", "steps": 60, "grid": "log_snr"}
    up = ss.encode(model, states, t_min=start, **options).x
    moved = (up[1:] - up[0]).T
    A = process.times(process.signal_matrix(t), EYE).T
    noise = process.times(process.covariance(t), torch.eye(n).double())
    if n == 2:
        moved = moved @ torch.linalg.inv(A)
    found = moved @ (A @ SPREAD @ A.T + noise) @ moved.T
    last = torch.tensor(process.t_max, dtype=torch.float64)
    A = process.times(process.signal_matrix(last), EYE).T
    wanted = A @ SPREAD @ A.T + process.times(process.covariance(last), torch.eye(n).double())
    assert torch.allclose(found, wanted, atol=2e-2)
    r = ss.reconstruct(model, model.data(2), t_min=start, **options)
    assert float(r.max.max()) < 1e-2


@pytest.mark.parametrize("solver", ["em", "torchsde/heun", "dpmpp_2m_sde"])
def test_the_reverse_sde_draws_the_data(solver: str) -> None:
    for process in (ss.CLD(), TURNING):
        x = ss.sample(gaussian(process), 1500, solver=solver, steps=60, dtype=torch.float64).x
        assert x.shape == (1500, 2)
        assert torch.allclose(x.mean(0), MEAN, atol=0.1), process
        assert torch.allclose(torch.cov(x.T), SPREAD, atol=0.1), process


@of_some
def test_likelihoods_are_exact_or_bounds_from_below(name: str) -> None:
    model = gaussian(PROCESSES[name])
    x = model.data(24 if name == "cld" else 2)
    options = {"solver": "exponential_3", "steps": 40, "grid": "log_snr", "nodes": 32}
    if name == "turning":  # whose log-SNR hardly moves while it turns
        options = {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4, "nodes": 48}
    l = ss.log_likelihood(model, x, **options)
    gap = model.log_density(x, l.t_min) - l.nats
    assert l.dimension == 2
    assert l.is_bound == (name == "cld")
    if not l.is_bound:
        assert bool((gap.abs() < 3e-2).all())
        assert bool((gap.abs() < l.total).all())
        return
    assert "lower bound" in repr(l)
    assert -0.02 < float(gap.mean()) < 0.1
    assert bool((gap.abs() < 0.5).all())
    state, t = torch.full_like(l.latent[:2], 0.1), torch.tensor(0.1, dtype=torch.float64)
    whole = ss.log_likelihood(model, state, t_min=0.1, **options)
    assert torch.allclose(whole.nats, model.log_prob(state, t), atol=2e-2)
    assert not whole.is_bound


def test_the_bound_is_the_density_where_the_law_of_velocities_is_known() -> None:
    r"""For isotropic Gaussian data, velocities are drawn from their own law, so that each draw is exact."""

    model = ss.GaussianOracle(torch.zeros(2, 1, 2).double(), 0.1, process=ss.CLD())
    x = model.data(2)
    l = ss.log_likelihood(model, x, t_min=0.05, solver="exponential_3", steps=20, nodes=20)
    assert torch.allclose(l.nats, model.log_density(x, l.t_min), atol=2e-2)
    assert l.dimension == 4
    assert l.slope is not None
    assert l.slope.shape == x.shape
    z = ss.encode(model, x, solver="heun", steps=3)
    assert z.x.shape == (2, 4, 1, 2)
    assert ss.decode(model, z).x.shape == x.shape


def test_velocities_are_independent_of_the_data() -> None:
    model = ss.GaussianOracle(torch.zeros(2).double(), 0.5, process=ss.CLD())
    x = model.data(500)
    t = torch.tensor(2e-3, dtype=torch.float64)
    for u in (entered(model, ss.CLD(), x, 2e-3, 0, torch.arange(500))[0], ss.CLD().enter(x, t)):
        both = torch.stack([x.flatten(), u[:, 2:].flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.15
    prior = ss.CLD().prior_sample((500, 2), seed=1).double()
    both = torch.stack([prior[:, 2:].flatten(), u[:, 2:].flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.15


@pytest.mark.parametrize("name", ["cld", "correlated"])
def test_a_model_speaks_the_units_of_its_data(name: str) -> None:
    process = PROCESSES[name]
    plain, spoken = gaussian(process), gaussian(process)
    spoken.transform = ss.Standardized(mean=torch.tensor([20.0, -5.0]), std=2.0)
    options = {"solver": "heun", "steps": 6, "dtype": torch.float64}
    wanted = ss.sample(plain, 3, **options).x
    found = ss.sample(spoken, 3, **options).x
    assert torch.allclose((found - MEAN.new_tensor([20.0, -5.0])) / 2, wanted, atol=1e-9)
    z, same = ss.encode(spoken, found, **options), ss.encode(plain, wanted, **options)
    assert torch.allclose(z.x, same.x, atol=1e-8)
    raw = ss.decode(spoken, z, denoise=False, **options).x
    back = ss.decode(plain, same, denoise=False, **options)
    left = process.leave(back.x, back.times[-1])
    assert torch.allclose((raw - MEAN.new_tensor([20.0, -5.0])) / 2, left, atol=1e-8)
    options["nodes"] = 8
    apart = ss.log_likelihood(plain, wanted, **options).nats
    apart = apart - ss.log_likelihood(spoken, found, **options).nats
    assert torch.allclose(apart, torch.full_like(apart, 2 * math.log(2)), atol=1e-6)
    if name == "cld":
        spoken.transform = ss.Standardized(mean=0.0, std=2.0)
        with pytest.raises(ValueError, match="whole states of CLD"):
            ss.encode(spoken, torch.ones(2, 4), solver="heun", steps=6)


def test_a_run_that_stops_early_keeps_its_states() -> None:
    model = gaussian(ss.CLD())
    options = {"solver": "exponential_2", "steps": 6}
    part = ss.sample(model, 2, callback=lambda event: event.fraction > 0.5, **options)
    assert part.x.shape == (2, 4)
    assert torch.equal(ss.resume(model, part).x, ss.sample(model, 2, **options).x)


def test_samples_are_positions_and_latents_are_states() -> None:
    model = gaussian(ss.CLD())
    s = ss.sample(model, 3, solver="exponential_2", steps=5, path=True)
    assert s.x.shape == (3, 2)
    assert s.path is not None
    assert s.path.shape[-2:] == (3, 4)
    whole = ss.sample(model, 3, solver="exponential_2", steps=5, denoise=False)
    assert whole.x.shape == (3, 4)
    rows = ss.sample(model, 3, solver="exponential_2", steps=5, batch_size=2)
    assert torch.allclose(rows.x, s.x)
    x = model.data(3)
    z, again = (ss.encode(model, x, solver="heun", steps=5).x for _ in range(2))
    assert torch.equal(z, again)
    assert not torch.equal(
        z, ss.encode(model, torch.cat([x, 0 * x], 1), solver="heun", steps=5).x
    )  # with velocities of one's own


@dataclass(frozen=True)
class Refusal:
    options: dict
    words: str


@pytest.mark.parametrize(
    "case",
    [
        Refusal({"solver": "exponential", "rtol": 1e-3}, "is for processes with numbers alpha"),
        Refusal({"solver": "er_sde", "steps": 5}, "noise profile 'er_sde'"),
        Refusal({"solver": "exponential_2", "steps": 5, "eta": lambda level: level}, "one number"),
        Refusal({"solver": "foresight_1", "steps": 5}, "such as 'exponential_2'"),
    ],
    ids=lambda case: case.words,
)
def test_what_needs_numbers_is_refused(case: Refusal) -> None:
    with pytest.raises(ValueError, match=case.words):
        ss.sample(gaussian(ss.CLD()), 2, **case.options)


def test_bad_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="must be a matrix of shape"):
        ss.MatrixProcess(EYE, torch.eye(3))
    with pytest.raises(ValueError, match="singular"):
        ss.MatrixProcess(-EYE, torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(ValueError, match="not smooth"):
        ss.MatrixProcess(lambda t: -EYE * (1 + 50 * (t > 0.31).double())[:, None, None], EYE)
    with pytest.raises(ValueError, match="not smooth"):
        ss.MatrixProcess(-EYE, lambda t: EYE * (1 + 5 * (t > 0.31).double())[:, None, None])
    with pytest.raises(ValueError, match="square matrix"):
        ss.MatrixProcess(-1.0, EYE)
    with pytest.raises(ValueError, match="not finite"):
        ss.MatrixProcess(-EYE, math.nan * EYE)
    with pytest.raises(ValueError, match="t_min must be positive"):
        ss.MatrixProcess(-EYE, EYE, t_min=0.0)
    for start in ([[-1.0]], [[math.nan]]):
        with pytest.raises(ValueError, match="start must be a covariance"):
            ss.MatrixProcess(-EYE, EYE, data_size=1, start=start)
    with pytest.raises(ValueError, match=r"t must lie in \[0, 4\]"):
        TURNING.covariance(torch.tensor(7.0))
    with pytest.raises(ValueError, match="2 equal parts"):
        TURNING.perturb(torch.ones(1, 3), torch.tensor(0.5), torch.ones(1, 3))
    with pytest.raises(ValueError, match="must have 2 entries"):
        PROCESSES["correlated"].prior_sample((1, 3))
    with pytest.raises(ValueError, match="must hold numbers"):
        ss.CorrelatedNoise(VP, torch.ones(0))
    with pytest.raises(ValueError, match="eigenvalue"):
        ss.CorrelatedNoise(VP, torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="must have shape"):
        ss.Blurring((4, 4)).to_axes(torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match="no numbers alpha and sigma"):
        ss.CLD().scales(torch.tensor(0.5))
    with pytest.raises(ValueError, match="z must have the shape of states"):
        ss.CLD().perturb(torch.ones(1, 2), torch.tensor(0.5), torch.ones(1, 2))


def test_a_process_is_a_value() -> None:
    assert ss.CLD() == ss.CLD()
    assert replace(ss.CLD(), beta=3.0) != ss.CLD()
    assert ss.Blurring((2, 2)) == ss.Blurring((2, 2))
    assert ss.CorrelatedNoise(VP, EYE) == ss.CorrelatedNoise(VP, EYE)


def test_networks_predict_what_they_say() -> None:
    r"""A network that returns the exact quantity of a Gaussian gives its denoised data, whatever it predicts."""

    for process in PROCESSES.values():
        exact, j = gaussian(process), process.data_size
        x = exact.data(4)
        t = process.time(torch.tensor([0.5] * 4, dtype=torch.float64))
        u = process.perturb(x, t, torch.ones(process.state_shape((4, 2)), dtype=torch.float64))
        D, k = exact.denoise(u, t), process.size
        last = slice(-2 * j // k if k > j else None, None)
        known = {
            "data": D,
            "noise": exact.noise(u, t)[:, -2:],
            "score": exact.score(u, t)[:, -2:],
        }
        for predicts, answer in known.items():
            model = ss.NetworkScore(lambda x, t, a=answer: a, process, predicts, shape=(2,))
            assert torch.allclose(model.denoise(u, t), D, atol=1e-9), (process, predicts, last)
            assert torch.allclose(model.score(u, t), exact.score(u, t), atol=1e-7)
        wide = ss.NetworkScore(lambda x, t: 0 * x, process, "edm", shape=(2,), data_std=0.7)
        isotropic = ss.GaussianOracle(torch.zeros(2).double(), 0.7, process=process)
        assert torch.allclose(wide.denoise(u, t), isotropic.denoise(u, t), atol=1e-9)


@of_each
@pytest.mark.parametrize("weight", ["noise", "edm", "likelihood"])
def test_the_minimiser_of_the_loss_is_the_exact_score(
    process: ss.BlockProcess, weight: str
) -> None:
    r"""Linear models of Gaussian data have a quadratic loss, whose least squares solution is the oracle."""

    exact, count = ss.GaussianOracle(0 * MEAN, SPREAD, process=process), 4000
    g = torch.Generator().manual_seed(0)
    x = exact.data(count)
    z = torch.randn(process.state_shape(x.shape), dtype=torch.float64, generator=g)
    level = torch.full((count,), 0.3, dtype=torch.float64)
    t = process.time(level)
    u = process.perturb(x, t, z)
    W = torch.linalg.lstsq(u, exact.denoise(u, t)).solution.requires_grad_()

    class Linear(ss.ScoreModel):
        def __init__(self) -> None:
            super().__init__()
            self.process, self.shape = process, (2,)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            return x @ W

    model = Linear()
    model.data_std = 0.6
    loss = ss.losses.denoising(model, x, level, z, weight=weight)
    assert loss.shape == (count,)
    each = torch.stack(
        [torch.autograd.grad(part.mean(), W, retain_graph=True)[0] for part in loss.chunk(8)]
    )
    mean, spread = each.mean(0), each.std(0) / 8**0.5
    assert bool((mean.abs() < 5 * spread + 1e-12).all())
    off = torch.autograd.grad(
        ss.losses.denoising(model, x, level, 1.2 * z, weight=weight).mean(), W
    )[0]
    assert bool((off.abs() > 5 * spread).any())  # of other noise, it is not


def test_hybrid_score_matching_is_the_plain_error_of_the_velocity_noise() -> None:
    process = ss.CLD()
    network = torch.nn.Linear(4, 2).double()
    model = ss.NetworkScore(lambda x, t: network(x), process, "noise", shape=(2,))
    x, z = torch.randn(2, 5, 2).double(), torch.randn(5, 4).double()
    level = torch.linspace(-2, 2, 5).double()
    u = process.perturb(x[0], process.time(level), z)
    wanted = (network(u) - z[:, 2:]).square().mean(1)
    found = ss.losses.denoising(model, x[0], level, z, weight="noise")
    assert torch.allclose(found, wanted, rtol=1e-6)


def test_a_small_langevin_network_trains_and_samples(tmp_path) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 2, generator=g) * 0.3 + torch.tensor([1.0, -0.5])
    trained = ss.train(
        None,
        x,
        process=ss.CLD(),
        steps=200,
        out=tmp_path / "cld",
        settings={"width": 32},
        validation=0,
    )
    s = ss.sample(trained.model, 500, solver="exponential_2", steps=20)
    assert s.x.shape == (500, 2)
    assert torch.allclose(s.x.mean(0), x.mean(0), atol=0.15)
    assert torch.allclose(s.x.std(0), x.std(0), atol=0.15)
    again = ss.load(tmp_path / "cld")
    assert again.process == ss.CLD()
    known, other = (ss.sample(m, 3, steps=5).x.double() for m in (trained.model, again))
    assert torch.allclose(other, known, atol=5e-3)  # of rounded weights


@pytest.mark.parametrize(
    "process",
    [
        ss.CLD(beta=3.0),
        ss.Blurring((2,), VP, blur=1.0),
        ss.CorrelatedNoise(VP, CORRELATED),
        ss.MatrixProcess(-CORRELATED, 2 * EYE, t_max=4.0),
    ],
    ids=lambda process: type(process).__name__,
)
def test_files_hold_processes_on_blocks(process: ss.BlockProcess, tmp_path) -> None:
    n = process.state_shape((1, 2))[1]
    network = ss.networks.MLP(size=n, width=8)
    model = ss.NetworkScore(network, process, "data", shape=(2,))
    card = {"network": {"name": "MLP", "settings": {"size": n, "width": 8}}}
    ss.save(model.eval(), tmp_path / "model", card)
    again = ss.load(tmp_path / "model")
    assert type(again.process) is type(process)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(again.process.covariance(t), process.covariance(t))
    assert torch.equal(ss.sample(again, 2, steps=3).x, ss.sample(model, 2, steps=3).x)


def test_guidance_by_weights_and_edits_work_on_matrices() -> None:
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    model = ss.MixtureOracle(means, 0.3, process=ss.CLD())
    t = torch.tensor(0.3, dtype=torch.float64)
    u = ss.CLD().perturb(model.data(3), t, torch.ones(3, 4, dtype=torch.float64))
    label = torch.tensor([0, 1, 0])
    guided = ss.classifier_free(model, scale=2.0, label=label)
    wanted = 2 * model.denoise(u, t, label=label) - model.denoise(u, t)
    assert torch.allclose(guided.denoise(u, t), wanted)
    free, bound = model.score(u, t), model.score(u, t, label=label)
    assert torch.allclose(guided.score(u, t), 2 * bound - free, atol=1e-8)
    x = model.data(2)
    swapped = ss.edit(
        model.given(label=0), model.given(label=1), x, noise_level=1.0, solver="heun", steps=10
    )
    assert swapped.x.shape == x.shape


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda model: ss.elbo(model, model.data(2)), "numbers alpha and sigma"),
        (lambda model: ss.tune(model, 6), "numbers alpha and sigma"),
        (lambda model: ss.Rescheduled(model, VP), "no numbers alpha and sigma"),
        (lambda model: ss.guidance.classifier(model, lambda x, t: x.sum(1), 1.0), "numbers alpha"),
        (lambda model: ss.Masked(model, torch.tensor([[True, False]])), "numbers alpha and sigma"),
        (lambda model: ss.guidance.thresholded(model, 0.5), "needs alpha and sigma"),
        (lambda model: model.denoise(torch.ones(1, 2), 0.5), "must be states of CLD"),
        (lambda model: ss.sample(model, 2, steps=3, log_density=True), "numbers alpha and sigma"),
        (
            lambda model: ss.NetworkScore(lambda x, t: x, ss.CLD(), "v", shape=(2,)),
            "predicts one of",
        ),
        (
            lambda model: ss.train(
                None, torch.ones(8, 2), process=ss.CLD(), coupling="ot", validation=0
            ),
            "pairs data with noise",
        ),
    ],
)
def test_verbs_that_need_numbers_say_so(asked, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked(gaussian(ss.CLD()))


def test_inpainting_says_itself_what_it_needs() -> None:
    model = ss.GaussianOracle(torch.zeros(2), 1.0, process=ss.CLD())
    with pytest.raises(ValueError, match="inpaint needs numbers alpha and sigma"):
        ss.inpaint(model, torch.zeros(2, 2), torch.tensor([True, False]), steps=3)


@pytest.mark.parametrize("name", ["cld", "turning"])
def test_errors_of_scores_and_noise_are_weighted_by_their_matrices(name: str) -> None:
    turn = torch.tensor([[-1.0, 2.0], [-2.0, -1.5]], dtype=torch.float64)
    process = ss.CLD() if name == "cld" else ss.MatrixProcess(turn, torch.eye(2), t_max=3.0)
    model = ss.GaussianOracle(torch.zeros(2).double(), 0.5, process=process)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(process.prior_shape((6, 2)), generator=generator, dtype=torch.float64)
    t = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    u = process.perturb(x, t, z)
    D = model.denoise(u, t)
    off = process.score_of(u, D, t) - process.score_of(u, x, t)
    want = (off * process.spread(off, t)).sum(1) / 2 / x.shape[1]  # |G^T error|^2 / 2
    found = ss.losses.denoising(model, x, process.log_snr(t), z, weight="likelihood")
    torch.testing.assert_close(found, want, rtol=1e-6, atol=0)
    found = ss.losses.denoising(model, x, process.log_snr(t), z, weight="noise")
    last = (process.noise_of(u, D, t) - z)[:, -x.shape[1] :]
    torch.testing.assert_close(found, last.square().mean(1), rtol=1e-6, atol=0)
