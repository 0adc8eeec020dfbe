r"""The densities of the steps of stochastic runs: closed forms, the law of the path, and gradients of policies."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import scoresde as ss
import solvers

from .cases import gaussian, mixture

N01 = ss.GaussianOracle(torch.tensor([0.4]), 0.6, ss.VP())
GAUSSIAN = [name for name, solver in solvers.catalogue.CATALOGUE.items() if solver.can.gaussian]
NOISY = [name for name in GAUSSIAN if solvers.get(name).stochastic]


def drawn(model: ss.ScoreModel, count: int = 5, **options: object) -> solvers.Solution:
    return ss.sample(model, count, path=True, **{"solver": "ancestral", "steps": 4, **options})


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    square = ((x - mean) / std).square().sum(1) / 2
    return -square - x.shape[1] * (std.log() + math.log(2 * math.pi) / 2)


@pytest.mark.parametrize(
    ("solver", "eta"), [("ancestral", 1.0), ("ancestral", 0.5), ("ddim", 0.7)]
)
@pytest.mark.parametrize("process", [ss.VP(), ss.EDM(), ss.Interpolant()])
def test_ancestral_steps_have_the_posterior_of_ddpm(
    process: ss.Process, solver: str, eta: float
) -> None:
    model = mixture(process)
    s = drawn(model, solver=solver, eta=eta, eta_convention="ddim")
    found = ss.transition_log_prob(model, s)
    assert found.shape == (4, 5)
    alpha, sigma = process.scales(s.times)
    for i in range(4):
        x, t = s.path[i], s.times[i]
        ratio = alpha[i] / alpha[i + 1]
        gained = sigma[i] ** 2 - (ratio * sigma[i + 1]) ** 2  # of the forward step
        std = eta * sigma[i + 1] / sigma[i] * gained.sqrt()
        data = model.denoise(x, t)
        noise = (x - alpha[i] * data) / sigma[i]
        mean = alpha[i + 1] * data + (sigma[i + 1] ** 2 - std**2).sqrt() * noise
        right = normal_log_prob(s.path[i + 1], mean, std)
        torch.testing.assert_close(found[i], right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["em", "torchsde/euler", "torchsde/milstein"])
def test_steps_of_euler_and_maruyama(solver: str) -> None:
    model = mixture(ss.VP())
    s = drawn(model, solver=solver, eta=0.8, steps=6)
    found, sde = ss.transition_log_prob(model, s), ss.reverse_sde(model, 0.8)
    for i, h in enumerate(s.times.diff()):
        mean = s.path[i] + h * sde.drift(s.times[i], s.path[i])
        right = normal_log_prob(s.path[i + 1], mean, sde.diffusion(s.times[i]) * h.abs().sqrt())
        torch.testing.assert_close(found[i], right, rtol=1e-9, atol=1e-9)


def test_the_mean_of_a_multistep_method_has_a_memory() -> None:
    model = mixture(ss.VP())
    s = drawn(model, solver="dpmpp_2m_sde", steps=5)
    alpha, sigma = model.process.scales(s.times)
    h = (alpha / sigma).log().diff()
    estimates = [model.denoise(x, t) for x, t in zip(s.path, s.times, strict=True)]
    for i in range(5):
        fresh = -torch.expm1(-2 * h[i])
        mean = sigma[i + 1] / sigma[i] * (-h[i]).exp() * s.path[i]
        mean = mean + alpha[i + 1] * fresh * estimates[i]
        if i:
            slope = (estimates[i] - estimates[i - 1]) * h[i] / h[i - 1]
            mean = mean + alpha[i + 1] * fresh / 2 * slope
        right = normal_log_prob(s.path[i + 1], mean, sigma[i + 1] * fresh.sqrt())
        torch.testing.assert_close(ss.transition_log_prob(model, s)[i], right)


@pytest.mark.parametrize("solver", ["ancestral", "em"])
def test_the_sum_is_the_density_of_the_path(solver: str) -> None:
    s = drawn(N01, 6, solver=solver, steps=3)
    process, times = N01.process, s.times
    mean, std = torch.zeros(4), torch.zeros(4, 4)  # of the path, and its dependence on 4 normals
    std[0, 0] = process.prior_std()
    alpha, sigma = process.scales(times)
    for i in range(3):
        if solver == "em":
            sde, h = ss.reverse_sde(N01), times[i + 1] - times[i]
            noise = sde.diffusion(times[i]) * h.abs().sqrt()

            def step(x: Tensor, i: int = i, h: Tensor = h, sde: solvers.SDE = sde) -> Tensor:
                return x + h * sde.drift(times[i], x[:, None])[:, 0]

        else:
            ratio = alpha[i] / alpha[i + 1]
            noise = sigma[i + 1] / sigma[i] * (sigma[i] ** 2 - (ratio * sigma[i + 1]) ** 2).sqrt()

            def step(x: Tensor, i: int = i, noise: Tensor = noise) -> Tensor:
                data = N01.denoise(x[:, None], times[i])[:, 0]
                left = (sigma[i + 1] ** 2 - noise**2).sqrt()
                return alpha[i + 1] * data + left * (x - alpha[i] * data) / sigma[i]

        low, high = step(torch.tensor([0.0, 1.0]))
        mean[i + 1] = low + (high - low) * mean[i]
        std[i + 1] = (high - low) * std[i]
        std[i + 1, i + 1] = noise
    joint = MultivariateNormal(mean, std @ std.T)
    found = process.prior_log_prob(s.path[0]) + ss.transition_log_prob(N01, s).sum(0)
    torch.testing.assert_close(found, joint.log_prob(s.path[..., 0].T))


@pytest.mark.parametrize("solver", GAUSSIAN)
def test_normals_are_those_that_were_drawn(solver: str) -> None:
    model = gaussian(ss.VP())
    model.moments = ss.moments(model.data(100))
    noise = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    can = solvers.get(solver).can  # whose last step may be the last denoising
    options = {"steps": 3 + can.open, "eta": 0.5 if can.takes_eta else None}
    s = drawn(model, 4, solver=solver, grid="log_snr", noise=noise, t_min=0.05, **options)
    whole = ss.transition_log_prob(model, s) + noise.square().sum(2) / 2
    assert bool(whole.isfinite().all())
    torch.testing.assert_close(whole, whole[:, :1].expand(3, 4))  # the volumes, alike for all


def test_densities_do_not_depend_on_the_coordinates_of_the_solver() -> None:
    axis = torch.tensor([[0.6], [0.8]])  # as the last of three coordinates, of two dimensions
    model, known = (
        gaussian(ss.VP()),
        ss.Moments(torch.zeros(2), axis, torch.tensor([0.3]), rest=0.3),
    )
    model.data_scale = 0.3**0.5
    found = []
    for form in ("isotropic", "moments"):
        model.moments = known if form == "moments" else None
        own = solvers.ExponentialMultistep("own", 1, form, stochastic=True)
        s = drawn(model, solver=own, steps=3, t_min=0.1)
        found.append((s.path, ss.transition_log_prob(model, s)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def inputs(solver: str, z: float) -> list[Tensor]:
    r"""What a network is asked in one step with the given normals."""

    asked = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return 0.3 * x

    model = ss.NetworkScore(network, ss.VP(), "data", shape=(2,), data_scale=0.5)
    noise = torch.full((1, 3, 2), z)
    ss.sample(model, 3, solver=solver, steps=1, noise=noise, t_min=0.1, denoise=False)
    return asked


@pytest.mark.parametrize("solver", NOISY)
def test_networks_of_a_normal_step_do_not_see_its_noise(solver: str) -> None:
    for one, two in zip(inputs(solver, 0.0), inputs(solver, 1.0), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "solver",
    ["dpmpp_sde", "edm_churn", "recurrent", "langevin_corrector", "annealed_langevin", "sa",
     "stochastic_heun", "sra1", "torchsde/heun", "torchsde/midpoint", "torchsde/reversible_heun"],
)  # fmt: skip
def test_other_solvers_are_refused_by_name(solver: str) -> None:
    s = drawn(gaussian(ss.VP()), solver=solver)
    with pytest.raises(ValueError, match=rf"normal .* but {solver} .* 'ancestral'"):
        ss.transition_log_prob(gaussian(ss.VP()), s)


def test_what_has_no_density_is_refused() -> None:
    model, other = gaussian(ss.VP()), gaussian(ss.EDM())
    s = drawn(model)
    cases = [
        (model, ss.sample(model, 2, path=True), "dpmpp_2m with eta=0 adds none; .* log_density=True"),
        (model, drawn(model, eta=0.0), "ancestral with eta=0 adds none"),
        (model, ss.sample(model, 2, solver="ancestral", steps=3), "pass path=True to ss.sample"),
        (other, s, "solution was made under VP.*but the model's process is EDM"),
        (mixture(ss.VP()), drawn(mixture(ss.VP()), label=torch.tensor([0] * 5)), "made with label="),
    ]  # fmt: skip
    for asked, solution, words in cases:
        with pytest.raises(ValueError, match=words):
            ss.transition_log_prob(asked, solution)
    with pytest.raises(ValueError, match="steps= is set by the solution"):
        ss.transition_log_prob(model, s, steps=3)
    with pytest.raises(TypeError, match="solution must be a Solution, but is a Tensor"):
        ss.transition_log_prob(model, s.path)


def test_a_step_without_noise_is_refused_by_its_times() -> None:
    model = gaussian(ss.VP())
    own = solvers.ExponentialMultistep("own", 1, stochastic=True, profile="sa")
    with pytest.raises(ValueError, match=r"step from t=1 to t=.* by own adds no noise"):
        ss.transition_log_prob(model, drawn(model, solver=own, steps=20))


def test_conditions_batches_and_times_of_rows() -> None:
    model, label = mixture(ss.VP()), torch.tensor([0, 1, 2, 0, 1])
    s = drawn(model, label=label, solver="dpmpp_2m_sde")
    whole = ss.transition_log_prob(model, s, label=label)
    assert torch.equal(ss.transition_log_prob(model, s, label=label, batch_size=2), whole)
    rows = ss.transition_log_prob(model, s[[1, 3]], label=label[[1, 3]])
    assert torch.equal(rows, whole[:, [1, 3]])
    times = torch.stack(
        [s.times, s.times.lerp(s.times.new_tensor([1.0, 0.7, 0.4, 0.1, 0.01]), 0.3)]
    )
    two = drawn(model, 2, steps=None, times=times.T)
    for i in range(2):
        alone = ss.transition_log_prob(model, ss.sample(
            model, 1, solver="ancestral", times=times[i], first_index=i, path=True))  # fmt: skip
        torch.testing.assert_close(ss.transition_log_prob(model, two)[:, i], alone[:, 0])


def test_paths_in_float32_have_densities_in_float64() -> None:
    model = mixture(ss.VP())
    s, single = drawn(model), drawn(model, dtype=torch.float32)
    found = ss.transition_log_prob(model, single)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, ss.transition_log_prob(model, s), rtol=1e-3, atol=1e-3)
    other = ss.transition_log_prob(model, single, dtype=torch.float64)
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-4)


class Gain(nn.Module):
    r"""A network with one weight, or with one for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, t: Tensor, shift: Tensor | None = None) -> Tensor:
        return self.gain * x.tanh() + (0 if shift is None else shift[:, None])


def policy() -> tuple[Gain, ss.NetworkScore]:
    network = Gain()
    conditions = ["shift"]
    return network, ss.NetworkScore(
        network, ss.VP(), "data", conditions=conditions, shape=(1,), data_scale=0.5
    )


@pytest.mark.parametrize("grad", ["backprop", "checkpoint"])
@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m_sde"])
def test_gradients_are_those_of_finite_differences(solver: str, grad: str) -> None:
    network, model = policy()
    s = drawn(model, solver=solver)
    assert not ss.transition_log_prob(model, s).requires_grad
    ss.transition_log_prob(model, s, grad=grad).sum().backward()
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            network.gain.copy_(0.3 + step)
        values.append(ss.transition_log_prob(model, s).sum())
    slope = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(network.gain.grad, slope, rtol=1e-6, atol=1e-6)


def test_the_score_of_the_path_has_mean_zero() -> None:
    _, model = policy()
    shift = torch.zeros(4000, requires_grad=True)
    s = drawn(model, 4000, shift=shift.detach())
    ss.transition_log_prob(model, s, shift=shift, grad="backprop").sum().backward()
    assert shift.grad.std() > 1
    assert shift.grad.mean().abs() < 4 * shift.grad.std() / 4000**0.5


def test_a_solver_of_ones_own_declares_normal_steps() -> None:
    class Mine(solvers.Solver):
        name = "mine"
        can = solvers.Abilities(
            solvers.SDE, order=1, calls_per_step=1, stochastic=True, gaussian=True
        )

        def plan(self, problem, t0, t1, x):  # type: ignore[no-untyped-def]
            steps = zip(t0, t1, problem.at(t0, x), problem.diffusion(t0), strict=True)
            return list(enumerate(steps))

        def step(self, plan, x, memory, noise):  # type: ignore[no-untyped-def]
            i, (start, stop, field, diffusion) = plan
            w = diffusion * noise.increment(i, start, stop)
            return solvers.Step(x + (stop - start) * field(x) + w)

    model = mixture(ss.VP())
    s = drawn(model, solver=Mine(), steps=6)
    right = ss.transition_log_prob(model, drawn(model, solver="em", steps=6))
    torch.testing.assert_close(ss.transition_log_prob(model, s), right)


@pytest.mark.parametrize(
    "transform", [ss.ComplexPairs(), ss.Standardized(torch.tensor([1.0, 2.0]), torch.tensor(3.0))]
)
def test_densities_of_steps_are_those_of_states(transform: ss.Transform) -> None:
    model = mixture(ss.VP())
    right = ss.transition_log_prob(model, drawn(model))
    model.transform = transform
    shape = (5, 1) if isinstance(transform, ss.ComplexPairs) else 5
    s = ss.sample(model, shape, path=True, solver="ancestral", steps=4)
    torch.testing.assert_close(ss.transition_log_prob(model, s), right)


def test_amounts_by_sample_follow_their_rows() -> None:
    amounts = [0.5, 1.0, 0.3]
    s = drawn(N01, 3, eta=amounts)
    found = ss.transition_log_prob(N01, s)
    for i, eta in enumerate(amounts):
        single = ss.transition_log_prob(N01, drawn(N01, 1, eta=eta, first_index=i))
        torch.testing.assert_close(found[:, i : i + 1], single)
    assert s[[2, 0]].provenance["eta"] == [0.3, 0.5]
    torch.testing.assert_close(ss.transition_log_prob(N01, s[[2, 0]]), found[:, [2, 0]])
    torch.testing.assert_close(ss.transition_log_prob(N01, s, batch_size=2), found)


def rising(level: Tensor) -> Tensor:
    return 0.2 + level / (1 + level)


def constant(level: Tensor) -> Tensor:
    return torch.full_like(level, 0.7)


def test_an_amount_by_level_is_passed_again() -> None:
    noise = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(1))
    s = drawn(N01, 3, solver="ddim", eta=rising, noise=noise)
    whole = ss.transition_log_prob(N01, s, eta=rising) + noise.square().sum(2) / 2
    torch.testing.assert_close(whole, whole[:, :1].expand(4, 3))  # the volumes, alike for all
    flat = drawn(N01, 3, eta=constant)
    number = ss.transition_log_prob(N01, drawn(N01, 3, eta=0.7))
    torch.testing.assert_close(ss.transition_log_prob(N01, flat, eta=constant), number)
    with pytest.raises(
        ValueError, match="eta was the function rising .* pass that function by eta=."
    ):
        ss.transition_log_prob(N01, s)
    with pytest.raises(ValueError, match="pass that function by eta=, not 0.5"):
        ss.transition_log_prob(N01, s, eta=0.5)
    with pytest.raises(ValueError, match="eta= is set by the solution"):
        ss.transition_log_prob(N01, drawn(N01), eta=0.5)
