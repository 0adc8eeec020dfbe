r"""Laws of processes with any drift: a rotating, mean-reverting Gaussian, a nonlinear flow with known densities,
a double well at rest, and the linear process that is written as a nonlinear one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance

START, END = 1e-3, 10.0
A = torch.tensor([[1.0, 2.0], [-2.0, 1.0]], dtype=torch.float64)  # whose law at rest is isotropic
MEAN, SPREAD = (
    torch.tensor([[0.5, -1.0]], dtype=torch.float64),
    torch.tensor([[0.3, 0.1], [0.1, 0.6]], dtype=torch.float64),
)  # of the data minus the measurement
FINE = {"rtol": 1e-6, "atol": 1e-6}


def law(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mean and the covariance of dx = A (y - x) dt + sqrt(2) dw, with shapes (B, 2) and (B, 2, 2)."""

    s = (t.double() - START)[:, None]
    cos, sin = torch.cos(2 * s), torch.sin(2 * s)
    E = torch.exp(-s)[:, None] * torch.stack(
        [torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 1
    )
    eye = torch.eye(2, dtype=torch.float64)
    return y + torch.einsum("bij,bj->bi", E, MEAN.expand_as(y)), eye + E @ (SPREAD - eye) @ E.mT


def reverting(std: float = 1.0) -> ss.NonlinearProcess:
    return ss.NonlinearProcess(
        lambda x, t, measurement: (measurement - x) @ A.to(x).T,
        2**0.5,
        std=std,
        t_min=START,
        t_max=END,
        mean=lambda measurement: measurement,
        conditions=("measurement",),
    )


def restored(std: float = 1.0) -> ss.ScoreModel:
    def score(x: Tensor, t: Tensor, measurement: Tensor) -> Tensor:
        mean, covariance = law(t, measurement.double())
        return torch.linalg.solve(covariance, mean.to(x) - x)

    return ss.NetworkScore(score, reverting(std), "score", conditions=["measurement"], shape=(2,))


def seen(count: int) -> Tensor:
    return torch.linspace(-3, 3, 2 * count, dtype=torch.float64).reshape(count, 2)


def data(y: Tensor) -> Tensor:
    z = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return y + MEAN + z @ torch.linalg.cholesky(SPREAD).T


def density(x: Tensor, y: Tensor) -> Tensor:
    return torch.distributions.MultivariateNormal(y + MEAN, SPREAD).log_prob(x)


def test_a_rotating_gaussian_around_measurements_has_its_density() -> None:
    y = seen(4)
    x, model = data(y), restored()
    l = ss.log_likelihood(model, x, measurement=y, **FINE)
    assert torch.allclose(l.nats, density(x, y), atol=2e-4)
    assert bool(((l.nats - density(x, y)).abs() <= l.total).all())
    assert l.stderr.tolist() == [0.0] * 4
    assert 0 < float(l.budget["prior"].max()) < 1e-3
    assert "end" not in l.budget
    assert l.noise_level != l.noise_level
    assert l.slope is not None
    assert torch.allclose(l.slope, torch.linalg.solve(SPREAD, (y + MEAN - x).T).T, atol=1e-9)
    rough = ss.log_likelihood(model.given(measurement=y), x, batch_size=3)
    assert bool(((rough.nats - density(x, y)).abs() <= rough.total).all())
    assert float(rough.total.max()) < 0.05
    assert "tighten rtol=" in rough.cures["path"]


def test_densities_by_probes_are_as_wrong_as_they_say() -> None:
    y = seen(24)
    x, model = data(y), restored().given(measurement=y)
    for options in ({"divergence": "hutchinson", "probes": 2}, {"target_stderr": 0.1}):
        l = ss.log_likelihood(model, x, nodes=24, rtol=1e-4, **options)
        off = (l.nats - density(x, y)) / l.total
        assert off.abs().median() < 1, options
        assert off.abs().max() < 3, options
    assert float(l.stderr.max()) <= 0.1


def test_latents_are_the_flow_and_come_back(tmp_path: Path) -> None:
    y = seen(5)
    x, model = data(y), restored()
    z = ss.encode(model, x, measurement=y, **FINE)
    mean, covariance = law(torch.full((5,), END), y)
    square = torch.einsum("bi,bij,bj->b", z.x - mean, covariance.inverse(), z.x - mean)
    start = torch.einsum("bi,ij,bj->b", x - y - MEAN, SPREAD.inverse(), x - y - MEAN)
    assert torch.allclose(square, start, atol=1e-4)  # as the flow of a Gaussian keeps it
    ss.save_latents(tmp_path / "z.npz", z)
    back = ss.decode(model, ss.load_latents(tmp_path / "z.npz"), measurement=y)
    assert torch.allclose(back.x, x, atol=1e-4)
    with pytest.raises(ValueError, match="take measurement=, which is missing"):
        ss.decode(model, z)
    r = ss.reconstruct(model, x, measurement=y, steps=400)
    assert float(r.rms.max()) < 1e-4
    assert r.latent.provenance["solver"] == "rk4"
    known = ss.latent_statistics(model.given(measurement=y), z)
    assert r.statistics is not None
    assert torch.allclose(r.statistics.mean, known.mean, atol=1e-4)
    assert torch.allclose(known.mean, (z.x - y).mean(1), atol=1e-12)


@pytest.mark.parametrize(("solver", "steps"), [("heun", 200), ("em", 400)])
def test_samples_around_measurements_have_their_law(solver: str, steps: int) -> None:
    y = seen(3).repeat(1000, 1)
    model = restored().given(measurement=y)
    x = ss.sample(model, 3000, solver=solver, steps=steps, dtype=torch.float64).x
    off = x - y - MEAN
    assert off.mean(0).abs().max() < 5 * (SPREAD.diagonal() / 3000).sqrt().max()
    assert (off.T.cov() - SPREAD).abs().max() < 0.1
    some = torch.tensor([0, 4])
    part = ss.sample(model.rows(some), 2, solver=solver, steps=3, seeds=[0, 1])
    other = ss.sample(restored(), 2, measurement=y[some], solver=solver, steps=3, seeds=[0, 1])
    assert torch.equal(part.x, other.x)
    alone = ss.sample(model, 3000, solver="heun", steps=2, batch_size=1999).x
    assert torch.allclose(
        alone, ss.sample(model, 3000, solver="heun", steps=2, seed=0).x, atol=1e-5
    )


def bent(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""For x = sinh(a u) / a with a = 1 - t and u ~ N(0, 1): u, the score, and the velocity."""

    a = 1 - t
    root = (1 + (a * x) ** 2).sqrt()
    u = torch.asinh(a * x) / a
    return u, -u / root - a**2 * x / root**2, -(u * root - x) / a


def test_a_nonlinear_drift_has_its_density_and_its_latents() -> None:
    def drift(x: Tensor, t: Tensor) -> Tensor:  # so that the marginals are those of the bent flow
        _, score, velocity = bent(t, x)
        return velocity + (1 + t) ** 2 / 2 * score

    process = ss.NonlinearProcess(drift, lambda t: 1 + t, t_min=0.0, t_max=0.999)
    model = ss.NetworkScore(lambda x, t: bent(t[:, None], x)[1], process, "score", shape=(1,))
    x = torch.tensor([[-4.0], [0.3], [1.7]], dtype=torch.float64)
    u = torch.asinh(x)
    l = ss.log_likelihood(model, x, **FINE)
    want = -(u**2)[:, 0] / 2 - (2 * torch.pi * (1 + x**2))[:, 0].log() / 2
    assert torch.allclose(l.nats, want, atol=1e-5)
    assert bool(((l.nats - want).abs() <= l.total + 1e-6).all())
    coarse = ss.log_likelihood(model, x, solver="euler", steps=8)  # whose defect is taken out
    assert float(coarse.budget["path"][0]) > 0.05
    assert torch.allclose(coarse.nats, want, atol=1e-5)
    z = ss.encode(model, x, **FINE).x
    assert torch.allclose(z, torch.sinh(0.001 * u) / 0.001, atol=1e-5)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.allclose(model.velocity(x, t), bent(t, x)[2], atol=1e-12)


def test_a_double_well_at_rest_stays() -> None:
    def well(x: Tensor, t: Tensor) -> Tensor:
        return x - x**3

    process = ss.NonlinearProcess(well, 0.7)
    model = ss.NetworkScore(lambda x, t: 2 * well(x, t) / 0.49, process, "score", shape=(1,))
    x = torch.tensor([[-1.1], [0.2]], dtype=torch.float64)
    l = ss.log_likelihood(model, x)
    assert torch.allclose(l.latent, x, atol=1e-12)
    assert torch.allclose(l.nats, process.prior_log_prob(x), atol=1e-12)
    assert l.dominant == "prior"  # which is not the law of the well, and that is said
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    rest = (grid**2 - grid**4 / 2) / 0.49
    known = (
        (x**2 - x**4 / 2)[:, 0] / 0.49 - torch.logsumexp(rest, 0) - torch.log(grid[1] - grid[0])
    )
    gap = (known - process.prior_log_prob(x)).abs()
    assert bool((l.budget["prior"] > gap / 2).all())


LINEAR = ss.LinearProcess(-1.0, 2**0.5, t_max=7.0)
PAIR = ss.MixtureOracle(
    torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64), 0.5, process=LINEAR
)
OU = ss.NonlinearProcess(lambda x, t: -x, 2**0.5, t_max=7.0)


def same(model: ss.ScoreModel = PAIR) -> ss.ScoreModel:
    r"""A model of the linear process as one of the nonlinear process with the same drift."""

    return ss.NetworkScore(model.score, OU, "score", conditions=model.conditions, shape=(2,))


def test_a_linear_drift_gives_the_numbers_of_the_linear_process() -> None:
    x, options = PAIR.data(4).double(), {"solver": "dopri5", "clock": "t", **FINE}
    alpha = LINEAR.scales(torch.tensor(START, dtype=torch.float64))[0]
    ours, theirs = (
        ss.encode(same(), x, **options),
        ss.encode(PAIR, x / alpha, t_min=START, **options),
    )
    assert torch.allclose(ours.x, theirs.x, atol=1e-6)
    z = OU.prior_sample((4, 2), dtype=torch.float64)
    assert torch.equal(z * LINEAR.prior_std(), LINEAR.prior_sample((4, 2), dtype=torch.float64))
    back = ss.decode(PAIR, z, t_min=START, denoise=False, **options).x
    assert torch.allclose(ss.decode(same(), z, **options).x, back, atol=1e-6)
    wide = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), SPREAD, process=LINEAR)
    want = wide.log_density(x / alpha, START) - 2 * alpha.log()
    l = ss.log_likelihood(same(wide), x, **FINE)
    assert torch.allclose(l.nats, want, atol=1e-5)
    assert bool(((l.nats - want).abs() <= l.total).all())


LABEL, TIMES = torch.tensor([0, 1, 1]), (0.3, 2.0)


@pytest.mark.parametrize("rule", [
    lambda m, free: ss.classifier_free(m, 3.0, label=LABEL),
    lambda m, free: ss.classifier_free(m, torch.tensor([1.0, 0.0, -2.0]), label=LABEL),
    lambda m, free: ss.classifier_free(m, 3.0, negative={"label": 1 - LABEL}, label=LABEL),
    lambda m, free: guidance.autoguidance(m.given(label=LABEL), m, 2.0),
    lambda m, free: guidance.product(m, [m.given(label=LABEL)], [-0.5]),
    lambda m, free: guidance.mixture([m, m.given(label=LABEL)], lambda x, t: torch.stack([x[:, 0], x[:, 1]], 1)),
    lambda m, free: guidance.classifier(m, lambda x, t, label: t * (x.sum(1) - label).tanh(), 0.7, label=LABEL),
    lambda m, free: guidance.feedback(m, lambda x, t, label: x[:, 0], 0.6, label=LABEL),
])  # fmt: skip
def test_sums_of_scores_are_those_of_denoised_data(rule) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = rule(same(), None), rule(PAIR, None)
    x, t = seen(3), torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
    assert torch.allclose(ours.score(x, t), theirs.score(x, t), rtol=1e-9)
    plain = {"solver": "rk4", "steps": 8, "clock": "t", "grid": "t", "denoise": False}
    z = ss.decode(ours, x, t_min=0.5, **plain).x
    assert torch.allclose(z, ss.decode(theirs, x, t_min=0.5, **plain).x, rtol=1e-8)
    assert torch.allclose(
        z[1:], ss.decode(ours.rows(LABEL.new_tensor([1, 2])), x[1:], t_min=0.5, **plain).x
    )


def test_intervals_and_experts_go_by_time() -> None:
    model, x = same(), seen(3)
    bound = model.given(label=LABEL)
    t = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    inside = torch.tensor([[False], [True], [False]])
    free, held = model.score(x, t), bound.score(x, t)
    guided = ss.classifier_free(model, 3.0, interval=TIMES, label=LABEL)
    assert torch.allclose(guided.score(x, t), torch.where(inside, free + 3 * (held - free), held))
    within = guidance.within(bound, model, TIMES)
    assert torch.allclose(within.score(x, t), torch.where(inside, held, free))
    both = guidance.experts([model, bound], [2.0])
    assert torch.allclose(both.score(x, t), torch.where(t[:, None] >= 2, held, free))
    by_time = ss.classifier_free(model, lambda time: 1 + time, label=LABEL)
    assert torch.allclose(by_time.score(x, t), free + (1 + t[:, None]) * (held - free))
    l = ss.log_likelihood(both, x, rtol=1e-2, atol=1e-2, nodes=8)
    assert l.nats.isfinite().all()
    assert "guided flow" not in repr(l)


@pytest.mark.parametrize("rule", [
    lambda m: guidance.thresholded(m, 1.0),
    lambda m: guidance.zero_star(m, m, 2.0),
    lambda m: guidance.universal(m, lambda D: D.square().sum(1), 1.0),
    lambda m: guidance.posterior_sampling(m, lambda x: x, seen(3)),
])  # fmt: skip
def test_guidance_by_clean_data_is_refused(rule) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ValueError, match="acts on clean data, which a NonlinearProcess does not define"
    ):
        rule(same())


def test_guided_models_share_the_conditions_of_their_process() -> None:
    y = seen(3)
    model = restored()
    bound = model.given(measurement=y)
    guided = guidance.autoguidance(bound, bound, 2.0)
    free = guidance.autoguidance(model, model, 2.0)
    plain = {"solver": "heun", "steps": 4}
    x = ss.sample(bound, 3, **plain).x
    assert torch.allclose(ss.sample(guided, 3, **plain).x, x, atol=1e-5)
    assert torch.allclose(ss.sample(free, 3, measurement=y, **plain).x, x, atol=1e-5)
    some = torch.tensor([2, 0])
    again = ss.sample(guided.rows(some), 2, seeds=[5, 6], **plain).x
    assert torch.allclose(
        again, ss.sample(model, 2, measurement=y[some], seeds=[5, 6], **plain).x, atol=1e-5
    )
    with pytest.raises(
        ValueError, match="measurement is a condition of the process.*the same for all"
    ):
        guidance.autoguidance(bound, model.given(measurement=y + 1), 2.0)


def test_conditions_that_only_the_process_takes_do_not_reach_the_network() -> None:
    model = ss.NetworkScore(lambda x, t: -x, reverting(), "score", shape=(2,))
    assert model.accepts == ("measurement",)
    bound = model.given(measurement=seen(1))
    assert bound.accepts == ()
    t = torch.tensor(1.0)
    x = seen(3)
    assert torch.allclose(bound.velocity(x, t), (seen(1) - x) @ A.T + x)
    with pytest.raises(TypeError, match="measurement= is already bound"):
        bound.given(measurement=seen(1))


Y = torch.zeros(1, 2, dtype=torch.float64)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ss.sample(restored(), 3, solver="em", steps=2), "take measurement=, which is missing"),
    (lambda: ss.encode(restored(), Y), "take measurement=, which is missing"),
    (lambda: ss.log_likelihood(restored(), Y), "take measurement=, which is missing"),
    (lambda: ss.sample(restored(), 3, solver="em", steps=2, measured=Y), "did you mean measurement="),
    (lambda: ss.sample(restored(), 3, solver="em", steps=2, measurement=seen(2)), "leading size 3 or 1"),
    (lambda: ss.sample(restored(), 3, solver="em", steps=2, measurement=Y[:, :1]), "mean must be of the shape"),
    (lambda: restored().given(measurement={"a": Y}), "must be one tensor, but is a dict"),
    (lambda: ss.NonlinearProcess(lambda x, t: x, 1.0, mean="y"), "mean must be"),
    (lambda: ss.NonlinearProcess(lambda x, t: x, 1.0, mean=torch.tensor([torch.nan])), "mean must hold finite"),
    (lambda: ss.elbo(same(), Y), "bounds and views need noise levels"),
    (lambda: ss.views(same(), Y), "bounds and views need noise levels"),
    (lambda: ss.discrete_log_likelihood(same(), Y, levels=3), "has no alpha and sigma"),
    (lambda: ss.encode(same(), Y, solver="ddim", steps=3), "has no alpha and sigma"),
    (lambda: ss.log_likelihood(same(), Y, solver="exponential"), "has no alpha and sigma"),
    (lambda: ss.encode(same(), Y, solver="em", steps=3), "is stochastic"),
    (lambda: ss.sample(same(), 2, solver="heun", times=[3.0, 0.1]), "times must start at t_max=7"),
    (lambda: ss.NetworkScore(lambda x, t: -x, OU, "noise", shape=(2,)).score(Y, 0.5), "has no alpha and sigma"),
    (lambda: guidance.autoguidance(same(), same(), 2.0).denoise(Y, 0.5), "has no alpha and sigma"),
])  # fmt: skip
def test_what_has_no_meaning_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_drift_without_its_derivative_has_no_density() -> None:
    process = ss.NonlinearProcess(lambda x, t: -3 * x.detach(), 1.0)
    model = ss.NetworkScore(lambda x, t: -x, process, "score", shape=(2,))
    with pytest.raises(ValueError, match="the network or the drift f detaches"):
        ss.log_likelihood(model, seen(3))


def test_a_mean_that_is_not_the_law_at_the_end_is_told() -> None:
    mean = torch.tensor([2.0, 0.0])
    right, wrong = (
        ss.NonlinearProcess(lambda x, t: mean - x, 2**0.5, t_max=9.0, mean=m)
        for m in (mean, mean + 1)
    )
    score = lambda x, t: mean - x
    x = ss.sample(
        ss.NetworkScore(score, right, "score", shape=(2,)), 2000, solver="heun", steps=4
    ).x
    assert torch.allclose(x.mean(0), mean, atol=0.1)
    with pytest.warns(UserWarning, match="or mean= or std= is wrong"):
        ss.sample(ss.NetworkScore(score, wrong, "score", shape=(2,)), 2, solver="heun", steps=4)
    assert "mean=" in repr(right)
