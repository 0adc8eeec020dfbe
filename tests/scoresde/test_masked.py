r"""Samples of different sizes in one batch: entries that do not exist count nothing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

import scoresde as ss
from solvers import Brownian
from solvers.noise.partial import Partial

SIZES = torch.tensor([1, 2, 4])
MASK = torch.arange(4) < SIZES[:, None]
STDS = torch.tensor([0.3, 0.8, 0.5, 1.2]).double()
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def entries(size: int) -> ss.GaussianOracle:
    r"""A model of independent entries, so that those of short samples do not depend on padding."""

    found = ss.GaussianOracle(torch.zeros(size).double(), torch.diag(STDS[:size] ** 2))
    found.moments, found.data_scale, found.finest = None, 0.7, 0.3
    return found


def padded() -> ss.ScoreModel:
    return ss.Masked(entries(4), MASK)


def alone(x: Tensor, row: int) -> tuple[ss.ScoreModel, Tensor]:
    r"""The model and the data of one sample without its padding."""

    size = int(SIZES[row])
    return entries(size), x[row : row + 1, :size]


X = torch.tensor([[0.2, 0, 0, 0], [0.1, -0.5, 0, 0], [0.4, 1.0, -0.3, 2.0]]).double()


@pytest.mark.parametrize("solver", ["exponential", "dopri5"])
def test_adaptive_steps_are_those_without_padding(solver: str) -> None:
    z = ss.encode(padded(), X, solver=solver, **EXACT)
    assert torch.equal(z.x[~MASK], torch.zeros_like(z.x[~MASK]))
    for row in range(3):
        model, x = alone(X, row)
        single = ss.encode(model, x, solver=solver, **EXACT)
        assert single.accepted.tolist() == z.accepted[row : row + 1].tolist()
        assert torch.allclose(single.x[0], z.x[row, : SIZES[row]], rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson", "probes": 4}])
def test_densities_are_those_without_padding(options: dict[str, object]) -> None:
    l = ss.log_likelihood(padded(), X, **options)
    assert l.entries.tolist() == SIZES.tolist()
    bits = ss.bits_per_dim(l, levels=4)
    noise = padded().process.start_of("likelihood")
    for row in range(3):
        model, x = alone(X, row)
        std = (STDS[: SIZES[row]] ** 2 + noise**2).sqrt()
        exact = torch.distributions.Normal(0, std).log_prob(x).sum()
        within = float(l.total[row])
        assert float(l.nats[row]) == pytest.approx(float(exact), abs=2 * within + 1e-3)
        single = ss.bits_per_dim(ss.log_likelihood(model, x), levels=4)
        assert float(bits[row]) == pytest.approx(float(single), abs=2 * within + 1e-3)


@pytest.mark.parametrize("process", [ss.VP(), ss.VE(ss.Geometric(0.01, 20.0)), ss.Interpolant()])
def test_padding_adds_no_error_and_no_budget(process: ss.Process) -> None:
    small = ss.MixtureOracle(
        torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).double(), 2.0, process=process
    )
    small.moments, small.data_scale, small.finest = None, 2.2, None

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([small.denoise(x[:, :2], t), torch.zeros_like(x[:, 2:])], 1)

    wide = ss.NetworkScore(network, process, "data", shape=(40,), data_scale=2.2)
    padding = torch.zeros(3, 38).double()
    x = small.data(3).double()
    own = ss.log_likelihood(small, x)
    model = ss.Masked(wide, torch.arange(40)[None] < 2)
    found = ss.log_likelihood(model, torch.cat([x, padding], 1))
    torch.testing.assert_close(found.nats, own.nats, rtol=0, atol=2e-4)
    for name in ("prior", "end"):
        torch.testing.assert_close(found.budget[name], own.budget[name], rtol=1e-2, atol=0)
    assert bool((found.budget["quadrature"] < 1.5 * own.budget["quadrature"]).all())
    assert bool((found.total < 1.2 * own.total).all())


def test_rows_of_a_density_keep_their_numbers_of_entries() -> None:
    l = ss.log_likelihood(padded(), X)
    bits = ss.bits_per_dim(l, levels=4)
    assert l[[2, 0]].entries.tolist() == [4, 1]
    assert torch.equal(ss.bits_per_dim(l[[2, 0]], levels=4), bits[[2, 0]])


def test_a_bound_is_that_without_padding() -> None:
    found = ss.elbo(padded(), X, draws=64)
    for row in range(3):
        model, x = alone(X, row)
        bound = ss.elbo(model, x, draws=64)
        spread = float((bound.stderr[0] ** 2 + found.stderr[row] ** 2).sqrt())
        assert float(found.nats[row]) == pytest.approx(float(bound.nats[0]), abs=4 * spread)
        assert float(found.stderr[row]) < 2 * float(bound.stderr[0])


def test_padding_adds_nothing_to_a_bound_at_a_low_last_noise_level() -> None:
    process = ss.VE(ss.Geometric(0.01, 3.0))
    wide, small = (ss.GaussianOracle(torch.zeros(d).double(), 1.0, process) for d in (20, 2))
    wide.moments = small.moments = None  # so that the bound has no noise
    x = torch.tensor([[0.3, -1.2]]).double()
    model = ss.Masked(wide, torch.arange(20)[None] < 2)
    found = ss.elbo(model, torch.cat([x, torch.zeros(1, 18).double()], 1), draws=2)
    torch.testing.assert_close(found.nats, ss.elbo(small, x, draws=2).nats, rtol=0, atol=1e-5)


def test_a_density_in_the_users_units_counts_the_entries_that_exist() -> None:
    inner, model = padded(), padded()
    std = torch.tensor([2.0, 3.0, 5.0, 7.0]).double()
    model.transform = ss.Standardized(0.0, std)
    gap = ss.log_likelihood(inner, X).nats - ss.log_likelihood(model, std * X).nats
    wanted = [math.log(2), math.log(6), math.log(210)]
    assert gap.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m", "em", "edm_churn"])
def test_padding_gets_no_noise(solver: str) -> None:
    s = ss.sample(padded(), 3, solver=solver, steps=12, path=True)
    assert torch.equal(s.path[:, ~MASK], torch.zeros_like(s.path[:, ~MASK]))
    assert torch.equal(s.x[~MASK], torch.zeros_like(s.x[~MASK]))
    assert bool((s.x[MASK] != 0).all())
    adaptive = ss.sample(padded(), 3, solver="exponential_sde", rtol=0.01, atol=0.01)
    assert torch.equal(adaptive.x[~MASK], torch.zeros_like(s.x[~MASK]))
    halves = ss.sample(padded(), 3, solver=solver, steps=12, batch_size=2)
    assert torch.equal(halves.x, s.x)


class Ones(Brownian):
    r"""A motion that moves every entry by 1, however it is asked."""

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        return torch.ones(3, 4)

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        return [torch.ones(3, 4)] * (len(inside) + 1)

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(3, 4), torch.ones(3, 4)

    def fresh(self, step: int, k: int) -> Tensor:
        return torch.ones(3, 4)

    def rows(self, index: Tensor) -> "Ones":
        return self


def test_a_partial_motion_moves_what_exists_alone() -> None:
    t0, t1 = torch.zeros(()), torch.ones(())
    for mask, motion in (
        (MASK, Partial(Ones(), MASK)),
        (MASK[1:2].expand(3, 4), Partial(Ones(), MASK[1:2])),
    ):
        moves = [motion.increment(0, t0, t1), motion.fresh(0, 1)]
        moves += [*motion.increments(0, t0, t1, [0.5]), *motion.increment_and_integral(0, t0, t1)]
        assert len(moves) == 6
        for move in moves:
            assert torch.equal(move, mask.float())
    assert torch.equal(
        Partial(Ones(), MASK).rows(torch.tensor([2, 0, 1])).fresh(0, 0), MASK[[2, 0, 1]].float()
    )


def test_samples_have_the_law_of_the_entries_that_exist() -> None:
    mask = torch.tensor([[True, False, True, True]])
    s = ss.sample(ss.Masked(entries(4), mask), 4000, solver="dpmpp_2m_sde", steps=60)
    assert torch.allclose(s.x.std(0)[[0, 2, 3]].double(), STDS[[0, 2, 3]], rtol=0.06)


def test_a_network_sees_the_mask_and_guidance_keeps_it() -> None:
    seen = []

    def network(x: Tensor, t: Tensor, mask: Tensor, label: Tensor | None = None) -> Tensor:
        seen.append(mask)
        return x / mask.sum(1, keepdim=True)  # which depends on the size

    net = ss.NetworkScore(
        network, ss.EDM(), "data", shape=(4,), conditions=["mask", "label"], data_scale=0.5
    )
    model = ss.Masked(net, MASK)
    assert model.conditions == ("label",)
    guided = ss.classifier_free(model, 2.0, label=torch.tensor([1]))
    s = ss.sample(guided, 3, steps=3, batch_size=2)
    assert torch.equal(s.x[~MASK], torch.zeros_like(s.x[~MASK]))
    assert {len(mask) for mask in seen} <= {1, 2}


def test_guidance_by_losses_leaves_padding_alone() -> None:
    def loss(x: Tensor) -> Tensor:
        return (x - 1).square().flatten(1).sum(1)

    s = ss.sample(ss.guidance.universal(padded(), loss, scale=0.1), 3, steps=6, path=True)
    assert torch.equal(s.path[:, ~MASK], torch.zeros_like(s.path[:, ~MASK]))
    alone = ss.guidance.universal(entries(1), loss, scale=0.1)
    z, t = torch.tensor([[0.3]]).double(), torch.tensor([2.0])
    wide = torch.tensor([[0.3, 0, 0, 0]]).double()
    found = ss.guidance.universal(padded().rows(torch.tensor([0])), loss, scale=0.1)
    assert float(found.denoise(wide, t)[0, 0]) == pytest.approx(float(alone.denoise(z, t)[0, 0]))
    with pytest.raises(ValueError, match="same mask, but their masks"):
        ss.guidance.within(padded(), entries(4), (0.0, 1.0))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.tensor([[1.0, 0.5]]), "must be True or 1"),
        (torch.tensor([1, 0]), "must be True or 1"),
        (torch.tensor([[1, 0], [0, 0]]), r"rows \[1\] have none"),
    ],
)
def test_a_wrong_mask_gets_a_sentence(mask: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ss.Masked(entries(2), mask)


NOISE = ss.VariationalNoise(torch.nn.Linear(4, 8))
LABELLED = ss.Masked(ss.MixtureOracle(torch.eye(4), 0.5), MASK[2:])


def test_what_mixes_entries_refuses_a_mask() -> None:
    model = ss.Masked(ss.GaussianOracle(torch.zeros(4), 0.5), MASK)
    with pytest.raises(ValueError, match="mix all entries"):
        ss.sample(model, 3, solver="moment_2", steps=3)
    for density in (ss.path_density, ss.views, partial(ss.elbo, steps=10), ss.latent_statistics):
        with pytest.raises(ValueError, match="takes no masked model"):
            density(model, X.float())
    for call in (
        lambda: next(iter(ss.fit_noise(NOISE, model, torch.zeros(3, 4), levels=3))),
        lambda: ss.inference.factors(LABELLED, LABELLED, label=torch.tensor([0, 1])),
    ):
        with pytest.raises(ValueError, match="takes no masked model"):
            call()
    with pytest.raises(ValueError, match="takes no masked model"):
        ss.discrete_log_likelihood(model, torch.zeros(3, 4), levels=3)
    with pytest.raises(ValueError, match="weighted samples would count .* takes no masked model"):
        ss.weighted_sample([ss.Masked(entries(4), MASK[:1])], [1.0], 4)
    with pytest.raises(ValueError, match="mask must have shape"):
        ss.sample(model, 2)
    with pytest.raises(ValueError, match="same mask"):
        ss.sample(ss.guidance.experts([model, ss.Masked(entries(4), MASK.flip(0))], [1.0]), 3)


def test_what_stands_in_padding_changes_nothing_else() -> None:
    covariance = torch.eye(4).double() + 0.5  # entries depend on each other
    model = ss.Masked(ss.GaussianOracle(torch.zeros(4).double(), covariance), MASK)
    t, junk = torch.full((3,), 0.7).double(), torch.where(MASK, X, 5.0)
    for estimate in (model.denoise, model.score, model.raw):
        assert torch.equal(estimate(junk, t)[MASK], estimate(X, t)[MASK])
    for view in (ss.log_likelihood, ss.elbo):
        assert torch.equal(view(model, junk).nats, view(model, X).nats)
    assert torch.equal(ss.log_likelihood(model, junk).total, ss.log_likelihood(model, X).total)
    assert torch.equal(ss.reconstruct(model, junk).rms, ss.reconstruct(model, X).rms)


@pytest.mark.parametrize("solver", ["ancestral", "em", "dpmpp_2m_sde"])
def test_densities_of_steps_are_those_without_padding(solver: str) -> None:
    options = {"solver": solver, "steps": 4, "path": True, "dtype": torch.float64}
    s = ss.sample(padded(), 3, **options)
    found = ss.transition_log_prob(padded(), s)
    for row, size in enumerate(SIZES.tolist()):
        single = ss.sample(entries(size), 1, **options)
        single = replace(single, path=s.path[:, row : row + 1, :size])
        right = ss.transition_log_prob(entries(size), single)
        assert torch.allclose(found[:, row], right[:, 0], rtol=1e-9)


def test_models_that_share_states_have_the_same_mask() -> None:
    whole, other = entries(4), ss.Masked(entries(4), torch.ones(1, 4))
    options = {"noise_level": 0.5, "steps": 2}
    for one, two in ((padded(), whole), (whole, padded()), (padded(), other)):
        with pytest.raises(ValueError, match="source and target must have the same mask"):
            ss.edit(one, two, X, **options)
        with pytest.raises(ValueError, match="models must have the same mask"):
            ss.guidance.autoguidance(one, two, 2.0)
        with pytest.raises(ValueError, match="models must have the same mask"):
            ss.weighted_sample([one, two], [1.0, 1.0], 3)
    wide = ss.Masked(entries(4), MASK[1:2].expand(3, 4))
    ss.guidance.autoguidance(ss.Masked(entries(4), MASK[1:2]), wide, 2.0)


def test_errors_of_round_trips_are_those_without_padding() -> None:
    r = ss.reconstruct(padded(), X, steps=4)
    assert r.statistics is None
    assert "Statistics" not in repr(r)
    for row in range(3):
        model, x = alone(X, row)
        single = ss.reconstruct(model, x, steps=4)
        assert torch.allclose(r.rms[row : row + 1], single.rms, rtol=1e-6)
        assert float(single.rms) > 0
    with pytest.raises(ValueError, match="latent_statistics would count the entries that do not"):
        ss.latent_statistics(padded(), r.latent)


def test_guidance_by_statistics_of_a_sample_takes_no_mask() -> None:
    whole = entries(4)
    for guide in (
        lambda model: ss.guidance.rescaled(model, model),
        lambda model: ss.guidance.thresholded(model, 1.0, quantile=0.9),
    ):
        for make in (
            lambda guide=guide: guide(padded()),
            lambda guide=guide: ss.Masked(guide(whole), MASK),
        ):
            with pytest.raises(ValueError, match="the guidance .* would count the entries"):
                make()
    ss.Masked(ss.guidance.thresholded(whole, 1.0), MASK)  # each entry on its own
