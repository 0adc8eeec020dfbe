r"""Other views of a density agree where they must, and probabilities of integers are bounded."""

import math

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.likelihood.bits import check_noise
from scoresde.likelihood.companion import Companion
from scoresde.likelihood.discrete import NOISY, _averaged, _check_terms
from scoresde.likelihood.nodes import place

from .cases import MEANS, PROCESSES

SLANTED = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()


def oracle_of(process: ss.Process) -> ss.MixtureOracle:
    return ss.MixtureOracle(SLANTED - SLANTED.mean(0), 0.6, process=process)


@pytest.mark.parametrize("process", ["VP", "VE", "SubVP", "Interpolant"])
def test_the_bound_of_an_exact_score_is_the_density(process: str) -> None:
    oracle = oracle_of(PROCESSES[process])
    x = oracle.data(60, seed=5)
    truth = oracle.log_density(x, oracle.process.start_of("likelihood"))
    bound = ss.elbo(oracle, x, draws=32)
    error = bound.nats - truth
    assert abs(error.mean()) < 4 * bound.stderr.mean() / math.sqrt(len(x)) + 0.005
    assert error.std().item() == pytest.approx(bound.stderr.square().mean().sqrt().item(), rel=0.3)
    assert bound.calls == 32 * 8 * 2


def test_companions_of_gaussians_leave_no_noise() -> None:
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.7]]).double()
    oracle = ss.GaussianOracle(torch.ones(2).double(), covariance, ss.VP())
    x = oracle.data(5)
    truth = oracle.log_density(x, oracle.process.start_of("likelihood"))
    bound = ss.elbo(oracle, x, draws=4)
    assert bound.stderr.max() < 1e-9
    assert (bound.nats - truth).abs().max() < 1e-3


def test_a_wrong_score_lowers_the_bound() -> None:
    oracle = oracle_of(ss.VP())

    class Wrong(ss.ScoreModel):
        def __init__(self) -> None:
            super().__init__()
            self.resemble(oracle)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = oracle.process.scales(t.double())
            return (1 - 2 * (alpha * sigma)[:, None] ** 2).to(x) * oracle.denoise(x, t)

    x = oracle.data(40, seed=6)
    seen = ss.views(Wrong(), x)
    gap = (seen["flow"].nats - seen["elbo"].nats).mean()
    right = ss.views(oracle, x)
    assert abs((right["flow"].nats - right["elbo"].nats).mean()) < 0.2
    assert gap > 0.3


def test_bounds_in_steps_rise_to_the_density() -> None:
    oracle = oracle_of(ss.VP())
    x = oracle.data(30, seed=7)
    truth = oracle.log_density(x, oracle.process.start_of("likelihood"))
    gaps = [
        (truth - ss.elbo(oracle, x, steps=steps, draws=64).nats).mean().item()
        for steps in (100, 1000, 20000)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    euler = (
        0.5772  # steps of equal size from none at all leave the harmonic series less its integral
    )
    assert gaps[2] == pytest.approx(6 * euler / 2, rel=0.1)


@pytest.mark.slow
def test_bounds_in_steps_are_the_sum_over_all_steps() -> None:
    oracle, steps = oracle_of(ss.VP()), 5
    x = oracle.data(3, seed=8)
    bound = ss.elbo(oracle, x, steps=steps, draws=3000)
    process, start = oracle.process, oracle.process.start_of("likelihood")
    s = torch.exp(-process.log_snr(torch.linspace(start, process.t_max, steps + 1).double()))
    r = (s**2 - s[0] ** 2).sqrt()
    draw = torch.Generator().manual_seed(0)
    many = x.repeat_interleave(40000, 0)
    z = torch.randn(many.shape, generator=draw, dtype=torch.float64)
    total = torch.zeros(len(many)).double()
    for k in range(1, steps + 1):
        t = process.time(-s[k].log())
        y = many + r[k] * z
        noise = (y - oracle.denoise(process.scales(t)[0] * y, t)) / s[k]
        gap = (many - (y - r[k] ** 2 / s[k] * noise)).square().sum(1) / 2
        total += gap * (1 / r[k] ** 2 - (1 / r[k - 1] ** 2 if k > 1 else 0)).abs()
    alpha = process.scales(torch.tensor(process.t_max))[0]
    prior = process.prior_log_prob(alpha * (many + r[-1] * z)) + 6 * alpha.log()
    want = prior + 6 * (r[-1].log() - r[1].log() + 0.5) - total
    assert torch.allclose(bound.nats, want.reshape(3, -1).mean(1), atol=0.3)


def test_densities_along_noisy_paths_approach_the_truth() -> None:
    oracle = oracle_of(ss.VP())
    x = oracle.data(10, seed=9)
    truth = oracle.log_density(x, oracle.process.start_of("likelihood"))
    few, many = (
        (ss.path_density(oracle, x, steps=n, paths=8).nats - truth).abs().mean() for n in (60, 960)
    )
    assert many < few / 3
    assert many < 0.7


def test_bounds_of_rows_do_not_depend_on_the_batch() -> None:
    oracle = oracle_of(ss.EDM())
    x = oracle.data(5)
    for view in (ss.elbo, ss.path_density):
        together = view(oracle, x, seed=3)
        alone = view(oracle, x[3:4], seed=3, first_index=3)
        assert torch.allclose(together.nats[3], alone.nats[0], atol=1e-9)
        split = view(oracle, x, seed=3, batch_size=2)
        assert torch.allclose(together.nats, split.nats, atol=1e-9)


@pytest.mark.parametrize("by", ["flow", "elbo"])
def test_classes_are_told_by_bayes_rule(by: str) -> None:
    oracle = ss.MixtureOracle(MEANS, 0.5, process=ss.VP())
    x = oracle.data(50, seed=1)
    prior = torch.tensor([0.2, 0.3, 0.5])[: len(MEANS)]
    found = ss.classify(oracle, x, range(len(MEANS)), prior=prior, by=by)
    level = oracle.process.noise_level(oracle.process.start_of("likelihood"))
    square = (x[:, None] - MEANS).square().sum(2) / (0.25 + level**2)
    want = (-square / 2 + prior.log()).log_softmax(1)
    assert torch.allclose(found.exp(), want.exp().to(found), atol=0.02 if by == "flow" else 0.1)


LEVELS, LOW, HIGH = 5, -1.0, 1.0
WIDTH = 0.5
GAUSS = ss.GaussianOracle(
    torch.tensor([0.1, -0.2]).double(), 0.16 * torch.eye(2).double(), ss.VP()
)


def probability(x: Tensor) -> Tensor:
    r"""The exact log-probability of bins under a Gaussian."""

    normal = torch.distributions.Normal(torch.tensor([0.1, -0.2]).double(), 0.4)
    return (normal.cdf(x + WIDTH / 2) - normal.cdf(x - WIDTH / 2)).log().sum(1)


GRID = torch.cartesian_prod(*[torch.linspace(LOW, HIGH, LEVELS).double()] * 2)
ON = {"levels": LEVELS, "low": LOW, "high": HIGH}


@pytest.mark.parametrize(
    "kind", [pytest.param("uniform", marks=pytest.mark.slow), "truncated_normal"]
)
def test_probabilities_are_bounded_and_importance_makes_bounds_tight(kind: str) -> None:
    want = probability(GRID)
    mean = ss.discrete_log_likelihood(GAUSS, GRID, dequantization=kind, draws=8, **ON)
    tight = ss.discrete_log_likelihood(
        GAUSS, GRID, dequantization=kind, draws=8, importance=True, **ON
    )
    slack = 4 * mean.budget["dequantisation"] + 0.01
    assert (mean.nats < want + slack).all()
    assert (mean.nats - want).mean() < -0.01
    assert abs((tight.nats - want).mean()) < abs((mean.nats - want).mean()) / 2
    assert torch.allclose(ss.bits_per_dim(tight), -tight.nats / (2 * math.log(2)))
    assert mean.levels == LEVELS


def test_one_uniform_draw_is_the_dequantised_density() -> None:
    one = ss.discrete_log_likelihood(GAUSS, GRID, seed=3, **ON)
    noisy = ss.dequantize(GRID, seed=3, **ON)
    plain = ss.bits_per_dim(ss.log_likelihood(GAUSS, noisy, seed=3), **ON)
    assert torch.allclose(ss.bits_per_dim(one), plain)
    assert (one.budget["dequantisation"] > 0).all()  # of one draw, estimated
    integers = ((GRID - LOW) / WIDTH).round().long()
    assert torch.allclose(ss.discrete_log_likelihood(GAUSS, integers, seed=3, **ON).nats, one.nats)


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.weights[0, 0] + self.weights[0, 1] * x
        return mean, self.weights[1, 0] + 0.3 + self.weights[1, 1] * x.square()


@pytest.mark.slow
def test_learned_noise_tightens_the_bound() -> None:
    noise = ss.VariationalNoise(Slope())
    with torch.no_grad():  # of the caller, which is nothing to a fit
        losses = list(ss.fit_noise(noise, GAUSS, GRID, steps=150, batch=25, lr=0.03, **ON))
    assert losses[-1] < losses[0]
    with torch.no_grad():
        learned = ss.discrete_log_likelihood(GAUSS, GRID, dequantization=noise, draws=32, **ON)
    plain = ss.discrete_log_likelihood(GAUSS, GRID, draws=32, **ON)
    want = probability(GRID)
    assert (want - learned.nats).mean() < 0.5 * (want - plain.nats).mean()


@pytest.mark.parametrize("kind", ["uniform", "truncated_normal"])
def test_noise_has_the_density_that_it_says(kind: str) -> None:
    from scoresde.likelihood.discrete import NOISES

    u = (torch.arange(20000).double()[:, None] + 0.5) / 20000
    v, log_q = NOISES[kind](u, u)
    order = v[:, 0].argsort()
    v, density = v[order, 0], log_q[order].exp()
    assert v.abs().max() <= 0.5
    assert torch.trapezoid(density, v).item() == pytest.approx(1.0, abs=1e-3)
    moment = torch.trapezoid(density * v**2, v).item()
    assert v.square().mean().item() == pytest.approx(moment, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ss.elbo(GAUSS, GRID, solver="heun"), "solver= has no effect here"),
        (lambda: ss.elbo(GAUSS, GRID, draws=0), "draws must be"),
        (lambda: ss.classify(GAUSS, GRID, [1]), "at least two"),
        (lambda: ss.classify(GAUSS, GRID, [0, 1]), "takes no condition 'label'"),
        (lambda: ss.discrete_log_likelihood(GAUSS, GRID + 0.1, **ON), "must lie on 5 levels"),
        (
            lambda: ss.discrete_log_likelihood(GAUSS, GRID, dequantization="x", **ON),
            "one of uniform, truncated_normal",
        ),
        (
            lambda: ss.discrete_log_likelihood(GAUSS, GRID, t_min=0.2, **ON),
            "which is more than that of uniform noise",
        ),
        (lambda: ss.bits_per_dim(ss.log_likelihood(GAUSS, GRID)), "levels must be passed"),
        (
            lambda: ss.bits_per_dim(ss.discrete_log_likelihood(GAUSS, GRID, **ON), levels=5),
            "probabilities of data on 5 levels already",
        ),
    ],
)
def test_bad_questions_get_a_sentence(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_importance_of_noisy_terms_is_refused() -> None:
    x = (oracle_of(ss.VP()).data(3) * 4).round() / 4
    with pytest.raises(ValueError, match="too high by half their variance"):
        ss.discrete_log_likelihood(
            oracle_of(ss.VP()), x, levels=81, low=-10.0, high=10.0, draws=2, importance=True,
            divergence="fixed",
        )  # fmt: skip


def test_bounds_from_a_late_start_know_the_noise_that_was_added() -> None:
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.7]]).double()
    oracle = ss.GaussianOracle(torch.ones(2).double(), covariance, ss.VP())
    x, t = oracle.data(5), oracle.process.at_noise_level(0.5)
    bound = ss.elbo(oracle, x, t_min=t, draws=2)
    assert bound.stderr.max() < 1e-9
    assert (bound.nats - oracle.log_density(x, t)).abs().max() < 1e-2


def shifted(oracle: ss.ScoreModel, by: float) -> ss.ScoreModel:
    r"""An oracle whose predicted noise is off by a constant."""

    class Shifted(ss.ScoreModel):
        def __init__(self) -> None:
            super().__init__()
            self.resemble(oracle)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            level = torch.exp(-oracle.process.log_snr(t.double()))
            return oracle.denoise(x, t) - by * level[:, None].to(x)

    return Shifted()


def test_partners_of_noise_cancel_what_is_odd_in_it() -> None:
    centred = ss.GaussianOracle(torch.zeros(2).double(), torch.eye(2).double(), ss.VP())
    x = torch.zeros(3, 2).double()  # so the terms of a constant shift are its square, and odd ones
    t = centred.process.start_of("likelihood")
    first, last = (-centred.process.log_snr(torch.tensor([t, centred.process.t_max]))).tolist()
    bound = ss.elbo(shifted(centred, 0.3), x, nodes=256, draws=4)
    lost = centred.log_density(x, t) - bound.nats
    assert lost.mean().item() == pytest.approx(2 * 0.3**2 * (last - first), abs=0.02)
    assert bound.stderr.max() < 1e-2


def test_errors_of_few_draws_are_those_of_the_mean() -> None:
    oracle = oracle_of(ss.VP())
    x = oracle.data(1, seed=5).expand(400, 6).contiguous()
    for view, options in ((ss.elbo, {"draws": 2}), (ss.path_density, {"steps": 60, "paths": 2})):
        bound = view(oracle, x, **options)
        told, spread = bound.stderr.square().mean().sqrt().item(), bound.nats.std().item()
        widened = (
            13.968 / 2
        )  # twice the error of two draws is the 0.97725 quantile of Student's t_1
        assert told == pytest.approx(widened * spread, rel=0.15)


def test_the_ancestral_view_is_the_bound_in_a_thousand_steps() -> None:
    x = GAUSS.data(2)
    seen = ss.views(GAUSS, x)
    assert torch.allclose(seen["ancestral"].nats, ss.elbo(GAUSS, x, steps=1000).nats)
    assert (seen["ancestral"].nats < seen["elbo"].nats).all()


def as_terms(stderr: float, draws: int, rows: int) -> list[ss.Likelihood]:
    noise = torch.full((rows,), stderr)
    one = ss.Likelihood(noise, noise, noise[:, None], noise, noise, 1, 0.0, 0.0, {"probes": noise})
    return [one] * draws


def test_errors_of_averaged_draws_are_those_of_many_repetitions() -> None:
    draws, rows = 64, 4000
    terms = 0.3 * torch.randn(draws, rows, generator=torch.Generator().manual_seed(0))
    for importance in (False, True):
        found = _averaged(as_terms(0.0, draws, rows), terms, 5, importance)
        told = found.budget["dequantisation"]
        assert 1 < (told.square().mean().sqrt() / found.nats.std()).item() < 1.25
        truth = 0.3**2 / 2 if importance else 0.0
        assert 0.95 < ((found.nats - truth).abs() < 2 * told).double().mean() < 0.99
    found = _averaged(as_terms(0.2, draws, rows), terms, 5, False)
    assert torch.allclose(found.stderr, torch.full((rows,), 0.2 / 8))  # of a mean of 64
    both = (found.budget["dequantisation"].square() + found.stderr**2).mean().sqrt()
    assert 1 < (both / found.nats.std()).item() < 1.2  # not counted twice


def test_importance_takes_terms_that_are_nearly_without_noise() -> None:
    edge = math.sqrt(2 * NOISY)  # whose half variance is the limit
    _check_terms(as_terms(0.99 * edge, 1, 3)[0])
    with pytest.raises(ValueError, match="half their variance"):
        _check_terms(as_terms(1.01 * edge, 1, 3)[0])


def no_noise(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return 0 * u, torch.zeros(len(x)).double()


@pytest.mark.parametrize("seeds", [None, [5, 6, 7]], ids=["seed", "seeds"])
def test_draws_of_levels_share_no_probes(seeds: list[int] | None) -> None:
    x = (oracle_of(ss.VP()).data(3) * 4).round() / 4
    options = {
        "levels": 81,
        "low": -10.0,
        "high": 10.0,
        "dequantization": no_noise,
        "seeds": seeds,
    }
    one, two = (
        ss.discrete_log_likelihood(oracle_of(ss.VP()), x, draws=n, probes=1, **options)
        for n in (1, 2)
    )
    assert ((one.nats - two.nats).abs() > 1e-6).all()  # all else is the same


def test_rows_on_levels_do_not_depend_on_the_batch() -> None:
    together = ss.discrete_log_likelihood(GAUSS, GRID, seed=3, **ON)
    alone = ss.discrete_log_likelihood(GAUSS, GRID[7:8], seed=3, first_index=7, **ON)
    assert torch.allclose(together.nats[7], alone.nats[0])


def test_data_beyond_the_levels_is_refused() -> None:
    for beyond in (LOW - WIDTH, HIGH + WIDTH):
        with pytest.raises(ValueError, match="must lie within 5 levels"):
            ss.dequantize(torch.tensor([[0.0, beyond]]), **ON)
        nearest = ss.quantize(torch.tensor([0.2, beyond]), **ON)
        assert torch.allclose(nearest, torch.tensor([0.0, min(max(beyond, LOW), HIGH)]))


def test_noise_as_wide_as_a_uniform_bin_is_the_limit() -> None:
    check_noise(0.99 / math.sqrt(12), 1.0)
    with pytest.raises(ValueError, match="more than that of uniform"):
        check_noise(1.01 / math.sqrt(12), 1.0)


def test_learned_noise_has_the_density_that_it_says() -> None:
    u = (torch.arange(20000).double()[:, None] + 0.5) / 20000
    noise = ss.VariationalNoise(lambda x: (0 * x + 0.4, 0 * x - 0.7))
    with torch.no_grad():
        v, log_q = noise(u, u)
    assert torch.trapezoid(log_q.exp(), v[:, 0]).item() == pytest.approx(1.0, abs=1e-2)


def test_the_loss_of_learned_noise_is_minus_the_bound() -> None:
    noise = ss.VariationalNoise(Slope())
    with torch.no_grad():
        bound = ss.discrete_log_likelihood(GAUSS, GRID, dequantization=noise, draws=8, **ON)
    losses = list(ss.fit_noise(noise, GAUSS, GRID, steps=1, batch=2000, lr=0.0, **ON))
    assert losses[0] == pytest.approx(-bound.nats.mean().item() / 2, abs=0.1)


@pytest.mark.parametrize(("by", "options"), [("flow", {"probes": 1}), ("elbo", {})])
def test_classes_share_a_seed_that_is_drawn(by: str, options: dict[str, int]) -> None:
    oracle = ss.MixtureOracle(MEANS, 0.5, process=ss.VP())
    found = ss.classify(oracle, oracle.data(3), [1, 1], by=by, seed=None, **options)
    assert torch.allclose(found, torch.full((3, 2), -math.log(2)).double())  # twins are alike


def test_one_level_per_draw_is_unbiased_and_its_error_is_told() -> None:
    oracle = oracle_of(ss.VP())
    x = oracle.data(1, seed=5).expand(400, 6).contiguous()
    truth = oracle.log_density(x, oracle.process.start_of("likelihood"))
    bound = ss.elbo(oracle, x, nodes=1, draws=32)
    error, told = bound.nats - truth, bound.stderr.square().mean().sqrt().item()
    assert 1 < told / error.std().item() < 2  # since draws are skewed
    assert (error.abs() < 2 * bound.stderr).double().mean() > 0.93
    assert abs(error.mean()) < 4 * error.std() / 20 + 0.005


def test_nodes_of_an_even_density_are_midpoints() -> None:
    u = torch.linspace(0, 1, 2048).double()
    nodes = place(u, torch.ones(2048, 1).double(), 4)
    assert torch.allclose(nodes.u[:, 0], torch.tensor([1, 3, 5, 7]).double() / 8)
    assert torch.allclose(nodes.weights, torch.full((4, 1), 0.25).double())


def test_companions_with_few_axes_are_those_with_all() -> None:
    axes = torch.linalg.qr(torch.randn(5, 5).double())[0]
    variances, mean = torch.tensor([1.0, 0.5, 0.2, 0.2, 0.2]).double(), torch.randn(5).double()
    few = Companion(ss.Moments(mean, axes[:, :2], variances[:2], 0.2), True)
    y, u = torch.randn(4, 5).double(), 0.3
    covariance = axes @ torch.diag(variances) @ axes.T + math.exp(2 * u) * torch.eye(5).double()
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    assert torch.allclose(few.log_prob(y, u), normal.log_prob(y))
    z = torch.randn(3, 2, 7).double()
    v = few.directions(z)
    assert torch.allclose(few.split(v)[..., 5:], z[..., 5:])  # probes are white


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (lambda x, u: (u, torch.zeros(len(x))), "between -1/2 and 1/2"),
        (lambda x, u: (torch.nan * u, torch.zeros(len(x))), r"a noise that is not finite for samples \[0, 1"),
        (lambda x, u: (u - 0.5, torch.full((len(x),), math.inf)), "a log-density that is not finite"),
        (lambda x, u: (u[:, :1] - 0.5, torch.zeros(len(x))), r"a noise with shape \(25, 2\), but that is"),
        (lambda x, u: (u - 0.5, 0.0), r"a log-density with shape \(25,\), but that is float"),
    ],
)  # fmt: skip
def test_noise_of_ones_own_stays_in_its_bin(noise, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="dequantization .*" + words):
        ss.discrete_log_likelihood(GAUSS, GRID, dequantization=noise, **ON)
