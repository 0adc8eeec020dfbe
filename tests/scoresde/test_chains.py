r"""Chains of symbols: laws, reverse rates, orders of steps, and bounds, against generators of whole sequences."""

import itertools
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import chi2
from torch import Tensor

import scoresde as ss
from scoresde.chains import Absorbing, Chain, ChainModel, TableOracle, Uniform
from scoresde.chains.bound import apart, ending
from scoresde.chains.draws import draw
from scoresde.chains.steps import STEPS, correction
from solvers import SolverError

TABLE = torch.tensor([[0.3, 0.05, 0.1], [0.05, 0.2, 0.0], [0.1, 0.05, 0.15]], dtype=torch.float64)
SURE = TABLE + 0.01  # no probability is 0
CHAINS = [
    Absorbing(3),
    Absorbing(3, ss.Cosine()),
    Absorbing(3, ss.LinearBeta(), t_max=0.7),
    Uniform(3, t_max=0.9),
    Uniform(3, ss.LinearBeta()),
]
IDS = ["masks", "masks, cosine", "masks, linear beta", "uniform", "uniform, linear beta"]
OF_CHAINS = pytest.mark.parametrize("chain", CHAINS, ids=IDS)
RARE = 1e-4  # chance that a test of samples fails for the right law; its seeds are fixed


def number(t: float) -> Tensor:
    return torch.tensor([t], dtype=torch.float64)


def states(chain: Chain, length: int = 2) -> Tensor:
    r"""All states of a sequence."""

    return torch.tensor([*itertools.product(range(chain.states), repeat=length)])


def generator(chain: Chain, length: int = 2) -> Tensor:
    r"""The rates between all states at beta = 1, written out."""

    known = states(chain, length).tolist()
    found = torch.zeros(len(known), len(known), dtype=torch.float64)
    masks = isinstance(chain, Absorbing)
    for a, x in enumerate(known):
        for b, y in enumerate(known):
            changed = [(p, q) for p, q in zip(x, y, strict=True) if p != q]
            if len(changed) == 1:
                into_mask = changed[0][1] == chain.vocabulary
                found[a, b] = float(into_mask) if masks else 1 / chain.vocabulary
    return found - found.sum(1).diag()


def exponential(matrix: Tensor) -> Tensor:
    return torch.tensor(expm(matrix.numpy()))


@cache
def law(chain: Chain, t: float, table: Tensor = TABLE) -> Tensor:
    r"""The law of all states at t, by the matrix exponential."""

    length = table.ndim
    start = torch.zeros((chain.states,) * length, dtype=torch.float64)
    start[(slice(chain.vocabulary),) * length] = table / table.sum()
    passed = -chain.shares(number(t))[0].log()
    return start.flatten() @ exponential(generator(chain, length) * passed)


def joint(laws: Tensor) -> Tensor:
    r"""The transition matrix of sequences whose symbols move independently, from (n, L, S)."""

    torch.testing.assert_close(laws.sum(-1), torch.ones_like(laws[..., 0]))
    found = laws[:, 0]
    for i in range(1, laws.shape[1]):
        found = (found[:, :, None] * laws[:, i, None]).flatten(1)
    return found


def stepped(
    p: Tensor,
    model: ChainModel,
    solver: str,
    times: Tensor,
    corrections: int = 0,
    size: float = 1.0,
) -> Tensor:
    r"""The exact law of the states of a sampler at the end of a grid."""

    x = states(model.chain, model.length or 1)
    for t, s in itertools.pairwise(times.tolist()):
        t, s = number(t).expand(len(x)), number(s).expand(len(x))
        p = p @ joint(STEPS[solver](model, x, t, s))
        for _ in range(corrections):
            p = p @ joint(correction(model, x, s, size * (t - s)))
    return p


def is_law_of(x: Tensor, table: Tensor) -> bool:
    r"""Whether samples pass the chi-square test of a table; events of probability 0 never occur."""

    v, length = table.shape[0], table.ndim
    places = (x * v ** torch.arange(length - 1, -1, -1)).sum(1)
    counts = torch.bincount(places, minlength=table.numel()).double()
    wanted = len(x) * (table / table.sum()).flatten()
    there = wanted > 0
    score = ((counts - wanted)[there].square() / wanted[there]).sum()
    most = chi2.isf(RARE, max(int(there.sum()) - 1, 1))
    return not bool(counts[~there].any()) and float(score) < most


@OF_CHAINS
def test_forward_laws_are_exponentials_of_the_generator(chain: Chain) -> None:
    for t in (0.05, 0.3, 0.65):
        passed = -chain.shares(number(t))[0].log()
        wanted = exponential(chain.generator * passed)[: chain.vocabulary]
        symbols = torch.arange(chain.vocabulary)[:, None]
        found = chain.marginal(symbols, number(t).expand(len(symbols)))[:, 0]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@OF_CHAINS
def test_rates_are_slopes_of_the_share(chain: Chain) -> None:
    h = 1e-5
    for t in (0.05, 0.3, 0.65):
        before, after = (chain.shares(number(t + way * h))[0] for way in (-1, 1))
        torch.testing.assert_close(
            chain.fall(number(t)), (before - after) / (2 * h), rtol=1e-7, atol=0
        )
        slope = (before.log() - after.log()) / (2 * h)
        torch.testing.assert_close(chain.rate(number(t)), slope, rtol=1e-6, atol=0)


def test_the_share_is_that_of_the_signal_in_the_variance() -> None:
    t = torch.linspace(0.1, 0.9, 9).double()
    for schedule in (ss.Cosine(), ss.LinearBeta()):
        alpha = ss.VP(schedule).scales(t)[0]
        torch.testing.assert_close(Uniform(3, schedule).shares(t)[0], alpha**2)
    torch.testing.assert_close(Absorbing(3).shares(t)[0], 1 - t)
    assert [float(Absorbing(3).shares(number(t))[0]) for t in (0.0, 1.0)] == [1, 0]


@OF_CHAINS
def test_times_invert_shares(chain: Chain) -> None:
    t = torch.linspace(chain.t_min, chain.t_max, 9, dtype=torch.float64)[1:-1]
    torch.testing.assert_close(chain.time(chain.shares(t)[1]), t)


def ratios_of(chain: Chain, table: Tensor = SURE) -> ChainModel:
    r"""The exact model whose network predicts ratios of the probabilities of states."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        p = law(chain, float(t[0]), table).reshape((chain.states,) * table.ndim)
        found = torch.empty(*x.shape, chain.vocabulary, dtype=torch.float64)
        for i, place, y in itertools.product(*map(range, found.shape)):
            there = x[i].clone()
            there[place] = y
            found[i, place, y] = p[tuple(there)] / p[tuple(x[i])]
        return found.log()

    return ChainModel(network, chain, "ratios", length=table.ndim)


def rates_of(model: ChainModel, t: float) -> Tensor:
    r"""The model's rates between all states."""

    x = states(model.chain, model.length or 1)
    rates = model.rates(x, number(t).expand(len(x)))
    found = torch.zeros(len(x), len(x), dtype=torch.float64)
    powers = model.chain.states ** torch.arange(x.shape[1] - 1, -1, -1)
    for a, place, y in itertools.product(*map(range, rates.shape)):
        there = x[a].clone()
        there[place] = y
        found[a, (there * powers).sum()] += rates[a, place, y]
    return found - found.sum(1).diag()


@OF_CHAINS
@pytest.mark.parametrize("predicts", ["symbols", "ratios"])
def test_reverse_rates_are_those_of_the_reverse_chain(chain: Chain, predicts: str) -> None:
    table = TABLE if predicts == "symbols" else SURE
    model = TableOracle(table, chain) if predicts == "symbols" else ratios_of(chain)
    for t in (0.2, 0.6):
        p, forward = law(chain, t, table), chain.rate(number(t)) * generator(chain)
        wanted = forward.mT * p / p[:, None]
        wanted = wanted.fill_diagonal_(0.0)
        wanted = torch.where(p[:, None] > 0, wanted, 0.0)
        found = rates_of(model, t).fill_diagonal_(0.0)
        there = p > 0  # what happens elsewhere is not known
        torch.testing.assert_close(found[there], wanted[there], rtol=1e-10, atol=1e-12)
        both = forward + rates_of(model, t)
        assert (p[there] @ both[there]).abs().max() < 1e-10  # which the corrector rests on


@OF_CHAINS
def test_ratios_and_symbols_determine_each_other(chain: Chain) -> None:
    x, t = states(chain), number(0.4).expand(chain.states**2)
    found, wanted = ratios_of(chain).symbols(x, t), TableOracle(SURE, chain).symbols(x, t)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@OF_CHAINS
def test_analytic_steps_are_exact_for_one_symbol(chain: Chain) -> None:
    table = TABLE.sum(1)
    oracle = TableOracle(table, chain)
    for times in ((0.65, 0.1), (0.65, 0.6, 0.1)):
        found = stepped(law(chain, times[0], table), oracle, "analytic", torch.tensor(times))
        torch.testing.assert_close(found, law(chain, 0.1, table), rtol=1e-6, atol=1e-8)


@OF_CHAINS
@pytest.mark.parametrize("solver", STEPS)
def test_steps_have_order_one(chain: Chain, solver: str) -> None:
    oracle, errors = TableOracle(SURE, chain), []
    for n in (32, 64):
        times = torch.linspace(0.6, 0.1, n + 1, dtype=torch.float64)
        found = stepped(law(chain, 0.6, SURE), oracle, solver, times)
        errors.append(float((found - law(chain, 0.1, SURE)).abs().sum()) / 2)
    assert 1e-5 < errors[1] < errors[0] < 0.05
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.1


@OF_CHAINS
def test_symbols_stay_with_the_chance_of_no_jump(chain: Chain) -> None:
    oracle, x = TableOracle(SURE, chain), states(chain)
    t = number(0.5).expand(len(x))
    total = oracle.rates(x, t).sum(-1)
    for h in (0.01, 0.1, 0.45):
        for solver, wanted in (("euler", 1 - h * total), ("tau_leaping", (-h * total).exp())):
            found = STEPS[solver](oracle, x, t, t - h).gather(-1, x[..., None])[..., 0]
            torch.testing.assert_close(found, wanted.clamp(min=0))


@OF_CHAINS
def test_corrections_preserve_the_law_and_repair_it(chain: Chain) -> None:
    table = SURE
    oracle, x, p = TableOracle(table, chain), states(chain), law(chain, 0.3, table)
    s, errors = number(0.3).expand(len(x)), []
    for h in (0.01, 0.005):
        moved = p @ joint(correction(oracle, x, s, torch.full_like(s, h)))
        errors.append(float((moved - p).abs().sum()))
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.15  # of the order two in one step
    times = torch.linspace(0.6, 0.3, 5, dtype=torch.float64)
    start = law(chain, 0.6, table)
    bare, repaired = (
        float((stepped(start, oracle, "analytic", times, n, 0.1) - p).abs().sum()) for n in (0, 40)
    )
    assert repaired < bare / 2


SMALL = torch.tensor([[[0.3, 0.02], [0.05, 0.13]], [[0.02, 0.2], [0.08, 0.2]]]).double()


def test_first_hitting_is_exact() -> None:
    for schedule in (ss.chains.Linear(), ss.Cosine()):
        oracle = TableOracle(SMALL, Absorbing(2, schedule))
        s = ss.chains.sample(oracle, 4000, solver="first_hitting", seed=1)
        assert is_law_of(s.x, SMALL)
        assert (s.calls == 3).all()
    at_once = ss.chains.sample(oracle, 4000, steps=1, seed=1)
    assert not is_law_of(at_once.x, SMALL)  # which the test can tell


def test_tolerance_bounds_what_is_drawn_together() -> None:
    oracle = TableOracle(TABLE, Absorbing(3))
    own = [TABLE.sum(1), TABLE.sum(0)]
    gap = min(
        float(torch.special.entr(p).sum()) for p in own
    )  # sum of both entropies minus the larger
    for tolerance, calls, table in (
        (0.99 * gap, 2, TABLE),
        (1.01 * gap, 1, own[0][:, None] * own[1]),
    ):
        s = ss.chains.sample(oracle, 4000, solver="first_hitting", tolerance=tolerance)
        assert (s.calls == calls).all()
        assert is_law_of(s.x, table)


@pytest.mark.parametrize("solver", [*STEPS, "first_hitting"])
def test_symbols_that_are_known_condition_the_others(solver: str) -> None:
    oracle = TableOracle(SMALL, Absorbing(2, ss.Cosine()))
    options = {} if solver == "first_hitting" else {"steps": 40, "corrections": 1}
    s = ss.chains.sample(oracle, 4000, solver=solver, known=[2, 1, 2], seed=3, **options)
    assert (s.x[:, 1] == 1).all()
    assert is_law_of(s.x[:, ::2], SMALL[:, 1])  # which differs from the law of both
    assert not is_law_of(s.x[:, ::2], SMALL.sum(1))
    if solver == "first_hitting":
        assert (s.calls == 2).all()
        both = torch.tensor([[2, 2, 2], [1, 0, 1], [0, 2, 0]])
        mixed = ss.chains.sample(oracle, 3, solver=solver, known=both)
        assert mixed.calls.tolist() == [3, 0, 1]
        assert torch.equal(torch.where(both < 2, both, mixed.x), mixed.x)


def test_first_hitting_keeps_to_a_limit_of_calls() -> None:
    oracle = TableOracle(SMALL, Absorbing(2))
    for most in (1, 2, 3, 9):
        s = ss.chains.sample(oracle, 50, solver="first_hitting", max_calls=most, seed=0)
        assert (s.calls == min(most, 3)).all()
    fair = ChainModel(lambda x, t: torch.zeros(*x.shape, 2), Absorbing(2), "symbols")
    options = {"solver": "first_hitting", "tolerance": 2.1, "max_calls": 2, "seed": 0}
    assert (ss.chains.sample(fair, (4, 9), **options).calls == 2).all()  # of 5 and 4 symbols
    alone = SMALL.sum((1, 2))[:, None, None] * SMALL.sum((0, 2))[:, None] * SMALL.sum((0, 1))
    s = ss.chains.sample(oracle, 4000, solver="first_hitting", max_calls=1, seed=2)
    assert is_law_of(s.x, alone)


def test_certain_symbols_cost_no_calls() -> None:
    copies = torch.zeros(2, 2, 2).double()
    copies[0, 0, 0], copies[1, 1, 1] = 0.5, 0.5
    oracle = TableOracle(copies, Absorbing(2))
    s = ss.chains.sample(oracle, 400, solver="first_hitting", tolerance=0.0)
    assert (s.calls == 2).all()
    assert is_law_of(s.x, copies)


@pytest.mark.parametrize("chain", [Absorbing(3), Uniform(3)], ids=["masks", "uniform"])
def test_samples_have_the_law_of_the_data(chain: Chain) -> None:
    one = TableOracle(TABLE.sum(1), chain)
    assert is_law_of(ss.chains.sample(one, 4000, steps=2).x, TABLE.sum(1))


@pytest.mark.parametrize("chain", [Absorbing(2), Uniform(2, t_max=0.9)], ids=["masks", "uniform"])
@pytest.mark.parametrize("solver", STEPS)
def test_samples_have_the_law_of_their_steps(chain: Chain, solver: str) -> None:
    oracle = TableOracle(torch.tensor([[0.45, 0.05], [0.1, 0.4]]), chain)
    x = states(chain)
    start = joint(chain.noise.expand(1, 2, -1))[0]
    times = torch.linspace(chain.t_max, 0.2, 4, dtype=torch.float64)
    p = stepped(start, oracle, solver, times[:3], corrections=2, size=0.3)
    p = stepped(p, oracle, solver, times[2:])
    clean = p @ joint(oracle.symbols(x, number(0.2).expand(len(x))))
    s = ss.chains.sample(
        oracle, 4000, solver=solver, steps=3, corrections=2, correction_size=0.3, t_min=0.2, seed=2
    )
    assert is_law_of(s.x, clean.reshape(2, 2))


def test_draws_do_not_depend_on_a_factor() -> None:
    p = torch.tensor([0.0, 0.2, 0.0, 0.8, 0.0]).expand(1, 5, -1)
    u = torch.tensor([[1e-9, 0.1999, 0.2001, 0.7, 1.0]]).double()
    for factor in (1e-3, 1.0, 7.0):
        assert draw(factor * p, u).tolist() == [[1, 1, 3, 3, 3]]


def test_forward_samples_have_the_forward_law() -> None:
    for chain in CHAINS:
        x = torch.zeros(4000, 1, dtype=torch.long)
        noisy = chain.perturb(x, torch.full((4000,), 0.4), seed=3)
        wanted = chain.marginal(x[:1], number(0.4))[0, 0]
        assert is_law_of(noisy, wanted)
        assert is_law_of(chain.prior_sample((4000, 1), seed=3), chain.noise)


def bound_of(model: ChainModel, x: Tensor) -> Tensor:
    r"""The bound without draws: quadrature over the root of the share of noise, and sums over noisy states."""

    chain = model.chain
    y = states(chain, x.shape[1])
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(24))
    least, most = chain.shares(torch.tensor([chain.t_min, chain.t_max]).double())[1]
    found = []
    for one in x:
        total = torch.zeros((), dtype=torch.float64)
        for u, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            t = chain.time(least + (most - least) * u**2).expand(len(y))
            p = joint(chain.marginal(one[None], t[:1]))[0]
            gap = apart(model, one.expand(len(y), -1), y, t)
            speed = chain.speed_per_share(t[:1])[0]
            total = total + weight * 2 * u * (most - least) * speed * (p * gap)[p > 0].sum()
        found.append(-total)
        found[-1] = found[-1] - missed(chain, one) + told(model, one, y)
    return torch.stack(found)


def missed(chain: Chain, x: Tensor) -> Tensor:
    r"""The divergence of the law of a sequence at t_max from noise."""

    p = chain.marginal(x[None], number(chain.t_max))[0]
    return (p * (p / chain.noise).log()).nansum()


def told(model: ChainModel, x: Tensor, y: Tensor) -> Tensor:
    r"""The mean log-probability of a sequence given its noisy states at t_min, if there is noise."""

    t = number(model.chain.t_min)
    if not model.chain.shares(t)[1] > 0:
        return torch.zeros(()).double()
    p, clean = joint(model.chain.marginal(x[None], t))[0], model.symbols(y, t.expand(len(y)))
    each = clean.gather(-1, x.expand(len(y), -1)[..., None])[..., 0].log().sum(1)
    return (p * each)[p > 0].sum()


@pytest.mark.parametrize("predicts", ["symbols", "ratios"])
@pytest.mark.parametrize(
    "chain", [Absorbing(3), Uniform(3, t_max=1 - 1e-6)], ids=["masks", "uniform"]
)
def test_the_bound_of_the_exact_model_is_tight(chain: Chain, predicts: str) -> None:
    oracle = TableOracle(SURE, chain)
    model = oracle if predicts == "symbols" else ratios_of(chain, SURE)
    x = torch.tensor([[0, 0], [1, 2], [2, 0]])
    torch.testing.assert_close(bound_of(model, x), oracle.log_prob(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "chain", [Absorbing(3, t_min=0.3), Uniform(3, t_min=0.3)], ids=["masks", "uniform"]
)
def test_the_bound_of_one_symbol_is_tight_with_noise_at_the_end(chain: Chain) -> None:
    oracle, x = TableOracle(SURE.sum(1), chain), torch.tensor([[0], [1], [2]])
    torch.testing.assert_close(bound_of(oracle, x), oracle.log_prob(x), rtol=0, atol=1e-5)
    found, stderr = averaged(oracle, x)
    assert ((found - oracle.log_prob(x)).abs() < 4 * stderr + 1e-9).all()


def test_the_mean_gap_is_the_divergence_of_the_last_law_from_noise() -> None:
    chain, table = Uniform(3, t_max=0.6), (SURE) / (SURE).sum()
    oracle, x = TableOracle(table, chain), states(chain)
    gap = (table.flatten() * (oracle.log_prob(x) - bound_of(oracle, x))).sum()
    last = law(chain, 0.6, table)
    torch.testing.assert_close(gap, (last * (last * 9).log()).sum(), rtol=1e-3, atol=0)


def test_other_models_have_lower_bounds() -> None:
    p = TABLE.sum(1)
    alone = ChainModel(lambda x, t: p.log().expand(*x.shape, -1), Absorbing(3), "symbols")
    x = torch.tensor([[0, 1], [2, 2]])
    torch.testing.assert_close(bound_of(alone, x), p.log()[x].sum(1))  # each symbol on its own
    wrong = ChainModel(
        lambda x, t: p.log().expand(*x.shape, -1), Uniform(3, t_max=0.999), "symbols"
    )
    exact = TableOracle(p, Uniform(3, t_max=0.999))
    one = torch.tensor([[0], [1], [2]])
    assert (bound_of(wrong, one) < exact.log_prob(one) - 0.01).all()  # it does not look at x


def averaged(model: ChainModel, x: Tensor, **options: int) -> tuple[Tensor, Tensor]:
    r"""The mean of the bound over copies of each sequence, and its standard error."""

    copies = ss.chains.elbo(model, x.repeat_interleave(600, 0), draws=1, seed=2, **options).nats
    each = copies.reshape(len(x), 600)
    return each.mean(1), each.std(1) / 600**0.5


@pytest.mark.parametrize("predicts", ["symbols", "ratios"])
@pytest.mark.parametrize(
    "chain", [Absorbing(3), Uniform(3, t_max=0.999)], ids=["masks", "uniform"]
)
def test_errors_of_the_network_cost_their_square(chain: Chain, predicts: str) -> None:
    p, x = SURE / SURE.sum(), states(Uniform(3))
    model = TableOracle(SURE, chain) if predicts == "symbols" else ratios_of(chain)
    right = model.network
    bump = torch.tensor([0.5, -1.0, 0.2]).double()
    means = []
    for size in (0.0, 0.02, 0.04):
        wrong = ChainModel(
            lambda y, t, size=size: right(y, t) + size * bump, chain, predicts, length=2
        )
        means.append(float((p.flatten() * bound_of(wrong, x)).sum()))
    gaps = [means[0] - mean for mean in means[1:]]
    assert 0 < gaps[0] < 1e-2
    assert abs(math.log2(gaps[1] / gaps[0]) - 2) < 0.1


SHORT = [Absorbing(3, t_min=0.3), Uniform(3, t_min=0.2, t_max=0.4)]


@pytest.mark.parametrize("chain", [*CHAINS, *SHORT], ids=[*IDS, "masks, short", "uniform, short"])
def test_draws_of_the_bound_agree_with_quadrature(chain: Chain) -> None:
    oracle, x = TableOracle(SURE, chain), torch.tensor([[0, 0], [1, 2], [2, 0]])
    found, stderr = averaged(oracle, x)
    assert ((found - bound_of(oracle, x)).abs() < 4 * stderr + 1e-4).all()
    assert (stderr < 0.5).all()
    bound = ss.chains.elbo(oracle, x, nodes=4, draws=16)
    assert bound.calls == 16 * (4 + (chain.t_min > 0))
    wanted = averaged(oracle, x, nodes=4)[1] * (600 / 16) ** 0.5
    assert (bound.stderr / wanted < 5).all()
    assert (bound.stderr / wanted > 0.2).all()


def test_the_bound_does_not_depend_on_the_schedule() -> None:
    x = torch.tensor([[0, 0], [1, 2]])
    found = [
        ss.chains.elbo(TableOracle(SURE, Absorbing(3, schedule)), x).nats
        for schedule in (ss.chains.Linear(), ss.Cosine())
    ]
    torch.testing.assert_close(*found, rtol=0, atol=1e-3)


def test_the_bound_in_steps_is_that_of_the_sampler() -> None:
    x = torch.tensor([[0, 0], [1, 2], [2, 0]])
    oracle, p = TableOracle(SURE, Absorbing(3)), SURE / SURE.sum()
    one = ss.chains.elbo(oracle, x, steps=1, nodes=1, draws=1)  # each symbol by itself, from masks
    wanted = p.sum(1).log()[x[:, 0]] + p.sum(0).log()[x[:, 1]]
    torch.testing.assert_close(one.nats, wanted, rtol=0, atol=1e-12)
    found, stderr = averaged(oracle, x, steps=2)
    known = (wanted + oracle.log_prob(x)) / 2  # the second is drawn with the first with chance 1/2
    assert ((found - known).abs() < 4 * stderr).all()
    for chain in CHAINS:
        oracle = TableOracle(SURE, chain)
        found, stderr = averaged(oracle, x, steps=2000)
        assert ((found - bound_of(oracle, x)).abs() < 4 * stderr + 1e-2).all()


def uneven(x: Tensor, t: Tensor) -> Tensor:
    r"""Logits of a model whose law depends on the order in which symbols are revealed, and on their times."""

    shown = torch.where(x == 2, 0.3, 4.0 * x - 2)
    near = shown.flip(1) * torch.tensor([1.0, -0.5])
    return torch.stack([near, 3 * t[:, None] - 1.5 + shown * 0], -1)


def test_the_likelihood_is_that_of_first_hitting() -> None:
    x = states(Uniform(2), 2)
    model = ChainModel(uneven, Absorbing(2), "symbols", length=2)
    found = ss.chains.log_likelihood(model, x, draws=1000, seed=1)
    assert found.calls == 2 * 1000
    p, error = found.nats.exp(), found.nats.exp() * found.stderr
    assert abs(float(p.sum()) - 1) < 4 * float(error.sum()) < 0.2
    s = ss.chains.sample(model, 8000, solver="first_hitting", seed=2).x
    share = torch.bincount(2 * s[:, 0] + s[:, 1], minlength=4) / 8000
    assert ((share - p).abs() < 4 * (error + (p * (1 - p) / 8000).sqrt())).all()
    each = ss.chains.log_likelihood(model, x.repeat_interleave(1000, 0), draws=1).nats
    each = each.reshape(4, 1000)
    mean, stderr = each.mean(1), each.std(1) / 1000**0.5  # of log w, which is the bound
    assert (mean < found.nats - 4 * (stderr + found.stderr)).any()
    bound = bound_of(model, x)
    assert ((mean - bound).abs() < 4 * stderr + 1e-3).all()


def test_the_likelihood_of_the_exact_model_is_exact() -> None:
    for chain in (Absorbing(2), Absorbing(2, ss.Cosine())):
        for model in (TableOracle(SMALL, chain), ratios_of(chain, SMALL)):
            x = states(Uniform(2), 3)[:3]
            found = ss.chains.log_likelihood(model, x, draws=2)
            wanted = TableOracle(SMALL, chain).log_prob(x)
            torch.testing.assert_close(found.nats, wanted, rtol=0, atol=1e-9)


def test_the_mean_loss_is_the_negative_bound() -> None:
    oracle = TableOracle(SMALL, Absorbing(2, ss.Cosine()))
    x = torch.tensor([[0, 1, 1]]).expand(6000, -1)
    loss = ss.chains.loss(oracle, x, seed=1)
    assert loss.shape == (6000,)
    assert abs(float(loss.mean() + oracle.log_prob(x)[0])) < 4 * float(loss.std()) / 6000**0.5
    chain = Absorbing(2, ss.Cosine(), t_min=0.3, t_max=0.8)  # whose span is not 1
    short, one = TableOracle(SMALL, chain), x[:1]
    rest = told(short, one[0], states(chain, 3)) - missed(chain, one[0])
    loss = ss.chains.loss(short, x, seed=1)
    apart = float(loss.mean() + bound_of(short, one)[0] - rest)
    assert abs(apart) < 4 * float(loss.std()) / 6000**0.5


@OF_CHAINS
def test_ratios_of_no_law_give_probabilities(chain: Chain) -> None:
    wild = ChainModel(
        lambda x, t: torch.tensor([4.0, -5.0, 3.0]).expand(*x.shape, 3), chain, "ratios"
    )
    x = states(chain)
    p = wild.symbols(x, number(0.4).expand(len(x)))
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p.sum(-1)))


def test_losses_have_gradients_where_probabilities_vanish() -> None:
    logits = torch.tensor([0.0, -400.0, 200.0], requires_grad=True)  # float32 rounds two to 0
    for chain in (Absorbing(3), Uniform(3)):
        model = ChainModel(lambda x, t: logits.expand(*x.shape, -1), chain, "symbols")
        loss = ss.chains.loss(model, torch.ones(64, 4, dtype=torch.long))
        logits.grad = None
        loss.mean().backward()
        assert loss.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert float(logits.grad[1]) < 0 < float(logits.grad[2])


@pytest.mark.parametrize("solver", [*STEPS, "first_hitting"])
def test_conditions_belong_to_their_samples(solver: str) -> None:
    label = torch.tensor([0.0, 2.0, 0.0, 1.0, 2.0])
    options = {"solver": solver, "seed": 1}
    options |= {} if solver == "first_hitting" else {"steps": 6}
    whole = ss.chains.sample(LABELLED, 5, label=label, **options)
    parts = ss.chains.sample(LABELLED.given(label=label), 5, batch_size=2, **options)
    assert torch.equal(whole.x, parts.x)
    for i in (1, 3):
        one = ss.chains.sample(LABELLED, 1, label=label[i], first_index=i, **options)
        assert torch.equal(one.x[0], whole.x[i])
    x = torch.tensor([[0, 0], [2, 1], [1, 1]])
    for verb in (ss.chains.elbo, ss.chains.log_likelihood):
        both = verb(LABELLED, x, label=label[:3]).nats
        assert torch.equal(both, verb(LABELLED, x, label=label[:3], batch_size=1).nats)
    each = of_label(x, x[:, 0], label[:3]).log_softmax(-1).gather(-1, x[..., None])
    torch.testing.assert_close(both, each.sum((1, 2)))  # of symbols that are independent given it
    t = torch.full((3,), 0.9)
    loss = ss.chains.loss(LABELLED, x, t, label=label[:3])
    swapped = ss.chains.loss(LABELLED.given(label=label[:3].roll(1)), x, t)
    assert not torch.equal(loss, swapped)


def test_a_seed_of_none_draws_one() -> None:
    some = [ss.chains.sample(LABELLED, 40, label=1, seed=None) for _ in range(2)]
    assert not torch.equal(some[0].x, some[1].x)
    again = ss.chains.sample(LABELLED, 40, label=1, seed=some[0].provenance["seed"])
    assert torch.equal(again.x, some[0].x)
    ss.chains.sample(LABELLED, 3, label=1)
    with pytest.warns(UserWarning, match="this call of sample equals an earlier one"):
        ss.chains.sample(LABELLED, 3, label=1)


@pytest.mark.parametrize("schedule", [ss.chains.Linear(), ss.Cosine()], ids=["linear", "cosine"])
def test_the_uniform_chain_ends_where_nothing_is_left(schedule: ss.Schedule) -> None:
    chain = Uniform(3, schedule)
    oracle, wanted = TableOracle(SURE, chain), law(chain, 0.1, SURE)
    assert 1e-7 < ending(chain, X).max() < 1e-5
    start = joint(chain.noise.expand(1, 2, -1))[0]
    x, end = states(chain), number(chain.t_max).expand(9)
    for solver in STEPS:
        errors = []
        for n in (32, 64):
            times = torch.linspace(chain.t_max, 0.1, n + 1, dtype=torch.float64)
            found = stepped(start, oracle, solver, times)
            errors.append(float((found - wanted).abs().sum()) / 2)
        assert errors[1] < 0.6 * errors[0] < 0.03
    found = ratios_of(chain).symbols(x, end)
    torch.testing.assert_close(found, oracle.symbols(x, end), rtol=1e-6, atol=1e-6)
    assert ss.chains.sample(oracle, 3, solver="euler", seed=0).ok


@pytest.mark.parametrize("solver", [*STEPS, "first_hitting"])
def test_rows_do_not_depend_on_their_batch(solver: str) -> None:
    oracle = TableOracle(SMALL, Absorbing(2, ss.Cosine()))
    steps = {} if solver == "first_hitting" else {"steps": 5, "corrections": 1}
    steps = {"tolerance": 0.3} if solver == "first_hitting" else steps
    whole = ss.chains.sample(oracle, 7, solver=solver, seed=4, **steps)
    parts = ss.chains.sample(oracle, 7, solver=solver, seed=4, batch_size=3, **steps)
    last = ss.chains.sample(oracle, 2, solver=solver, seed=4, first_index=5, **steps)
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(whole.calls, parts.calls)
    assert torch.equal(whole.x[5:], last.x)
    assert torch.equal(whole.calls[5:], last.calls)
    assert not torch.equal(whole.x, ss.chains.sample(oracle, 7, solver=solver, seed=5, **steps).x)


def test_bounds_and_noise_do_not_depend_on_their_batch() -> None:
    oracle, x = TableOracle(SMALL, Absorbing(2)), states(Uniform(2), 3)[:5]
    whole = ss.chains.elbo(oracle, x, draws=2)
    parts = ss.chains.elbo(oracle, x, draws=2, batch_size=2)
    last = ss.chains.elbo(oracle, x[3:], draws=2, first_index=3)
    assert torch.equal(whole.nats, parts.nats)
    assert torch.equal(whole.nats[3:], last.nats)
    t = torch.full((5,), 0.5)
    noisy = oracle.chain.perturb(x, t, seed=1)
    assert torch.equal(noisy[3:], oracle.chain.perturb(x[3:], t[3:], seed=1, first_index=3))


def test_calls_are_counted_at_the_network() -> None:
    asked = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.zeros(*x.shape, 2)

    def calls(chain: Chain, **options: object) -> int:
        asked.clear()
        s = ss.chains.sample(ChainModel(network, chain, "symbols"), (8, 5), **options)
        assert int(s.calls.sum()) == sum(asked)
        return int(s.calls.max())

    assert calls(Absorbing(2), steps=6) == 6
    assert calls(Absorbing(2), steps=6, corrections=2) == 6 + 2 * 5
    assert calls(Absorbing(2), steps=6, t_min=0.5) == 7
    assert calls(Uniform(2), steps=6) == 6
    assert calls(Uniform(2, ss.Cosine()), steps=6) == 7
    assert calls(Absorbing(2), solver="first_hitting") == 5
    assert calls(Absorbing(2), solver="first_hitting", tolerance=2.1) == 2  # 3 of log 2 each fit


def test_paths_go_from_noise_to_data() -> None:
    oracle = TableOracle(SMALL, Absorbing(2))
    s = ss.chains.sample(oracle, 3, steps=4, grid="share", path=True)
    assert s.path is not None
    assert s.path.shape == (5, 3, 3)
    assert (s.path[0] == 2).all()
    assert torch.equal(s.path[-1], s.x)
    cosine = TableOracle(SMALL, Absorbing(2, ss.Cosine()))
    times = ss.chains.sample(cosine, 3, steps=4, grid="share").times
    lost = cosine.chain.shares(times)[1]
    torch.testing.assert_close(lost, torch.linspace(1, float(lost[-1]), 5).double())
    again = ss.chains.sample(cosine, 3, times=times)
    assert torch.equal(again.x, ss.chains.sample(cosine, 3, steps=4, grid="share", seed=0).x)


FAIR = ChainModel(lambda x, t: torch.zeros(*x.shape, 3), Absorbing(3), "symbols", length=2)
X = torch.zeros(2, 2, dtype=torch.long)


def of_label(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    r"""Logits of symbols near a label."""

    apart = torch.arange(3) - label.double()[:, None, None]
    return -apart.abs().expand(*x.shape, 3)


LABELLED = ChainModel(of_label, Absorbing(3), "symbols", length=2, conditions=["label"])


@pytest.mark.parametrize(
    "name", ["encode", "decode", "reconstruct", "resume", "views", "check_score"]
)
def test_verbs_of_score_models_refuse_chains_by_name(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} has no meaning for a ChainModel; .* for ss.samp"):
        getattr(ss, name)(FAIR, torch.zeros(2, 2))


def test_what_else_takes_score_models_says_what_chains_are_for() -> None:
    x = torch.zeros(20, 2)
    for call in (
        lambda: ss.edit(FAIR, FAIR, x, noise_level=1.0),
        lambda: ss.compare(FAIR, ["ddim"], [5]),
        lambda: ss.tune(FAIR, 5),
        lambda: ss.suggest(FAIR),
        lambda: ss.train(FAIR, x),
        lambda: ss.classifier_free(FAIR, 2.0, label=1),
        lambda: ss.losses.denoising(FAIR, x, x[:, 0], x),
    ):
        with pytest.raises(TypeError, match="it is a model of a chain of symbols, for ss.sample"):
            call()


def test_verbs_that_mean_something_for_chains_answer() -> None:
    oracle, x = TableOracle(SURE, Absorbing(3)), torch.tensor([[0, 1], [2, 2]])
    s = ss.sample(oracle, 5, solver="euler", steps=4, seed=1)
    assert torch.equal(s.x, ss.chains.sample(oracle, 5, solver="euler", steps=4, seed=1).x)
    assert torch.equal(ss.elbo(oracle, x, nodes=2).nats, ss.chains.elbo(oracle, x, nodes=2).nats)
    found = ss.log_likelihood(model=oracle, x=x, draws=2).nats
    torch.testing.assert_close(found, oracle.log_prob(x), rtol=0, atol=1e-12)
    drawn = ss.inpaint(oracle, x, [True, False], steps=3, seed=1).x
    known = torch.tensor([[0, 3], [2, 3]])
    assert torch.equal(drawn, ss.chains.sample(oracle, 2, known=known, steps=3, seed=1).x)
    with pytest.raises(
        ValueError, match="known must be True or False for each symbol, with shape"
    ):
        ss.inpaint(oracle, x, torch.tensor([0.5, 1.0]))
    with pytest.raises(TypeError, match="eta= is neither an option nor a condition"):
        ss.sample(oracle, 2, eta=1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Absorbing(1), "vocabulary must be at least 2, but is 1"),
        (lambda: Absorbing(3, t_max=2.0), r"t_min and t_max must satisfy 0 <= .*, but are 0.0 and 2.0"),
        (lambda: ChainModel(lambda x, t: x, Uniform(3, t_max=1.0), "ratios"), "an earlier t_max, such as 0.999"),
        (lambda: TableOracle(torch.ones(2, 3), Absorbing(3)), r"probabilities must have shape \(V"),
        (lambda: TableOracle(-torch.ones(3, 3), Absorbing(3)), "must not be negative"),
        (lambda: ss.chains.sample(FAIR, 2, steps=0), "steps must be at least 1, but is 0"),
        (lambda: ss.chains.sample(FAIR, (2, 3)), r"shape must be \(B, 2\) for this model"),
        (lambda: ss.chains.sample(FAIR, 2, solver="heun"), "solver must be 'analytic', .* but is 'heun'"),
        (lambda: ss.chains.sample(FAIR, 2, tolerance=0.1), "tolerance= has no effect on analytic"),
        (lambda: ss.chains.sample(FAIR, 2, solver="first_hitting", steps=3), "steps= has no effect"),
        (lambda: ss.chains.sample(FAIR, 2, steps=3, times=[1.0, 0.0]), "leave out steps="),
        (lambda: ss.chains.sample(FAIR, 2, times=[0.5, 0.0]), "times must go from t_max=1"),
        (lambda: ss.chains.sample(FAIR, 2, t_min=1.0), "t_min must be at least 0 and below"),
        (lambda: ss.chains.elbo(FAIR, X + 3), "x must hold symbols from 0 to 2, but holds 3 to 3"),
        (lambda: ss.chains.elbo(FAIR, X.float()), "x must hold whole numbers, the symbols"),
        (lambda: ss.chains.loss(FAIR, X, torch.ones(2)), "t must lie between 0 and 1, not at an end"),
        (lambda: ss.chains.sample(TableOracle(TABLE, Uniform(3, t_max=1.0)), 2, solver="euler"),
         "rates are not finite at t=1, where no signal is left; use solver='analytic'"),
        (lambda: ss.chains.sample(TableOracle(TABLE, Uniform(3)), 2, solver="first_hitting"),
         "solver='first_hitting' needs a chain with a mask, .* use 'analytic'"),
        (lambda: ss.chains.sample(TableOracle(TABLE, Uniform(3)), 2, known=[0, 1]),
         "known= needs a chain with a mask, .* use ss.chains.Absorbing"),
        (lambda: ss.chains.sample(FAIR, 2, known=[0, 4]), "known must hold symbols from 0 to 3"),
        (lambda: ss.chains.sample(FAIR, 2, known=[0, 1, 3]), r"known must have shape \(2,\) or \(2, 2\)"),
        (lambda: ss.chains.sample(FAIR, 2, steps=5, solver="euler", max_calls=5),
         "max_calls=5 is less than the 6 calls that euler may take here; take fewer steps"),
        (lambda: ss.chains.sample(FAIR, 2, max_calls=0), "max_calls must be at least 1"),
        (lambda: ss.chains.sample(FAIR, 2, device="tpu"), "device='tpu' is not a device"),
        (lambda: ss.chains.log_likelihood(TableOracle(TABLE, Uniform(3)), X),
         "log_likelihood needs a chain with a mask, .* use ss.elbo"),
        (lambda: ChainModel(of_label, Absorbing(3), "symbols", conditions=["corrections"]),
         "a condition cannot be called 'corrections'"),
        (lambda: ss.chains.sample(LABELLED, 2), "the network needs label=, .*; pass label= to the call"),
        (lambda: ss.chains.sample(LABELLED, 2, lable=1), "did you mean label=?"),
        (lambda: ss.chains.elbo(LABELLED, X, label=[0, 1, 2]), "label must have leading size 2 or 1"),
        (lambda: ss.chains.loss(LABELLED.given(label=[0, 1, 2]), X), "label must have leading size 2 or 1"),
        (lambda: ChainModel(lambda x, t: x, Absorbing(3), "symbols").symbols(X, torch.ones(2)),
         r"network must return a tensor of shape \(B, L, V\) = \(2, 2, 3\), but returns \(2, 2\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_a_cure(call: object, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        call()  # type: ignore[operator]


class Neighbours(torch.nn.Module):
    r"""Logits of each symbol from those beside it, and from a label."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary + 1, vocabulary)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.embed(x).flip(1) * self.scale * (1 + label[:, None, None]) + t[:, None, None]


def of_neighbours(chain: Chain, **options: object) -> ChainModel:
    torch.manual_seed(0)
    return ChainModel(
        Neighbours(chain.vocabulary), chain, "symbols", conditions=["label"], **options
    )


CARD = {"network": {"settings": {"vocabulary": 3}}}


@pytest.mark.parametrize(
    "chain",
    [Absorbing(3), Uniform(3, ss.LinearBeta(0.2, 15.0), t_min=0.1)],
    ids=["masks", "uniform"],
)
def test_models_of_chains_are_saved(tmp_path: Path, chain: Chain) -> None:
    model = of_neighbours(chain, length=5)
    file = ss.save(model, tmp_path / "chain", CARD, dtype=torch.float64)
    with pytest.raises(ValueError, match="trust=True"):
        ss.load_chain(file)
    again = ss.load_chain(tmp_path, trust=True)
    assert again.chain == chain
    assert again.length == 5
    one, two = (ss.sample(m, 6, label=1, steps=4, seed=0).x for m in (model, again))
    assert torch.equal(one, two)
    with pytest.raises(
        ValueError, match="holds a model of a chain .* load it in Python by ss.load_ch"
    ):
        ss.load(file)
    card = json.loads(file.read_text())
    for entry, words in (
        ({"name": "Absorbing"}, "lacks 'vocabulary'"),
        ({**card["chain"], "vocabulary": 1}, "vocabulary must be at least 2"),
        ({**card["chain"], "schedule": "os"}, "'schedule' must be one of"),
        ({**card["chain"], "t_max": 7.0}, "t_min and t_max must satisfy"),
        ({**card["chain"], "more": 1}, "unknown entry 'more'"),
    ):
        file.write_text(json.dumps({**card, "chain": entry}))
        with pytest.raises(ValueError, match=words):
            ss.sample(ss.load_chain(file, trust=True), 2, label=0)
    with pytest.raises(ValueError, match="it lacks chain"):
        ss.load_chain("digits")


def test_what_no_file_holds_is_refused(tmp_path: Path) -> None:
    for call, words in (
        (lambda: ss.save(TableOracle(TABLE, Absorbing(3)), tmp_path / "m"), "a network with weights"),
        (lambda: ss.save(of_neighbours(Absorbing(3)).given(label=1), tmp_path / "m", CARD), "label bound"),
        (lambda: ss.save(of_neighbours(Absorbing(3)), tmp_path / "m"), "must have the entry 'network'"),
        (lambda: ss.save(of_neighbours(Absorbing(3)), tmp_path / "m", {"network": {"settings": {}}}),
         "not saved"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_networks_that_tell_of_no_symbol_are_named(value: float) -> None:
    bad = ChainModel(lambda x, t: torch.full((*x.shape, 3), value), Absorbing(3), "symbols")
    for call in (
        lambda: ss.chains.sample(bad, (2, 2)),
        lambda: ss.chains.log_likelihood(bad, X),
        lambda: ss.chains.elbo(bad, X),
    ):
        with pytest.raises(SolverError, match=r" for samples \[0, 1\]"):
            call()


def test_ratios_may_be_large() -> None:
    logs = torch.tensor([200.0, 100.0, -200.0])
    model = ChainModel(lambda x, t: logs.expand(*x.shape, 3), Uniform(3), "ratios", length=2)
    p = model.symbols(X + 1, number(0.5).expand(2))
    torch.testing.assert_close(p[0, 0], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-6)


def test_noise_of_corrections_is_new_in_each_step() -> None:
    fair = ChainModel(lambda x, t: torch.zeros(*x.shape, 50), Uniform(50), "symbols")
    options = {"steps": 3, "corrections": 1, "correction_size": 1e3, "path": True}
    path = ss.chains.sample(fair, (50, 8), seed=1, **options).path  # each correction draws anew
    assert path is not None
    assert (path[1] == path[2]).double().mean() < 0.08
