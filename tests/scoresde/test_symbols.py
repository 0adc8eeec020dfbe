r"""Symbols by diffusion of their codes: exact where the law of the symbols is known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss

CHANCES = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
SHARP = 1e-7  # deviation of the components of oracles, whose data are points


def pairs(chances: Tensor) -> tuple[Tensor, Tensor]:
    r"""All pairs of symbols that are alike or neighbours, and their probabilities, which depend on each other."""

    count = len(chances)
    both = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    close = (both[:, 0] - both[:, 1]).abs() <= 1
    both = both[close]
    weights = chances[both[:, 0]] * chances[both[:, 1]]
    return both, weights / weights.sum()


def oracle(form: ss.symbols.Symbols, symbols: Tensor, weights: Tensor) -> ss.MixtureOracle:
    r"""The exact model of the codes of symbols with given probabilities."""

    codes = form.inside("x", symbols).double()
    found = ss.MixtureOracle(codes, SHARP, weights, ss.VP())
    found.transform, found.finest = form, 1.0  # of points, there is no finest detail
    return found


def posterior(model: ss.MixtureOracle, codes: Tensor, weights: Tensor) -> Callable[..., Tensor]:
    r"""The exact log-probability of each whole sample given a noisy state."""

    def of(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = model.process.scales(t)
        apart = (x.flatten(1)[:, None] - alpha * codes.flatten(1)).square().sum(-1)
        return (weights.log() - apart / (2 * sigma**2)).log_softmax(-1)

    return of


class Exact(nn.Module):
    r"""The network of exact logits for samples of two symbols, from the law of the pairs."""

    def __init__(self, embedding: ss.symbols.Embedding, symbols: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.embedding, self.symbols, self.weights = embedding, symbols, weights

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        s = torch.exp(4 * level)[:, None]
        y = x.flatten(1) * torch.sqrt(1 + s**2)  # the noisy data over alpha
        codes = self.embedding(self.symbols).flatten(1)
        apart = (y[:, None] - codes).square().sum(-1)
        joint = (self.weights.log() - apart / (2 * s**2)).softmax(-1)
        chosen = nn.functional.one_hot(self.symbols, self.embedding.count).to(joint)
        return torch.einsum("bj,jlk->blk", joint, chosen).clamp(min=1e-300).log()


def embedded() -> tuple[ss.symbols.EmbeddedScore, ss.MixtureOracle, Tensor, Tensor]:
    symbols, weights = pairs(CHANCES)
    embedding = ss.symbols.Embedding(4, 3).double()
    network = Exact(embedding, symbols, weights)
    model = ss.symbols.EmbeddedScore(network, embedding, ss.VP(), shape=(2,))
    return model, oracle(ss.symbols.Vectors(embedding), symbols, weights), symbols, weights


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("count", [2, 3, 5, 8, 17, 100, 256])
def test_bits_return_every_symbol(count: int, gray: bool) -> None:
    form = ss.symbols.Bits(count, gray)
    symbols = torch.arange(count).reshape(1, -1)
    codes = form.inside("x", symbols)
    assert codes.shape == (1, count, math.ceil(math.log2(count)))
    assert torch.equal(codes.abs(), torch.ones_like(codes))
    assert torch.equal(form.outside(0.01 * codes), symbols)
    assert torch.equal(form.log_probabilities(codes).argmax(-1), symbols)
    if gray:
        assert torch.equal(
            (codes[:, 1:] != codes[:, :-1]).sum(-1), torch.ones(1, count - 1).long()
        )


@pytest.mark.parametrize("gray", [False, True])
def test_a_code_without_symbol_becomes_the_nearest(gray: bool) -> None:
    form = ss.symbols.Bits(5, gray)
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    codes = form.inside("x", torch.arange(5))
    signs = torch.where(x > 0, 1.0, -1.0)
    valid = (signs[:, None] == codes).all(-1).any(-1)
    nearest = torch.cdist(x, codes).argmin(-1)
    assert 0 < (~valid).sum() < 500
    assert torch.equal(form.outside(x), nearest)


@pytest.mark.parametrize("form", [ss.symbols.Bits(4), ss.symbols.Bits(4, gray=True)])
def test_sampled_symbols_have_their_frequencies(form: ss.symbols.Bits) -> None:
    symbols, weights = pairs(CHANCES)
    model, n = oracle(form, symbols, weights), 4000
    x = ss.sample(model, n, steps=12, seed=1).x
    found = (x[:, None] == symbols).all(-1)
    assert bool(found.any(1).all())  # no pair that is no sample
    error = (weights * (1 - weights) / n).sqrt()
    assert bool(((found.double().mean(0) - weights).abs() < 4 * error).all())


def test_probabilities_of_bits_are_the_posterior_of_independent_bits() -> None:
    form = ss.symbols.Bits(4)
    chances = torch.outer(torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.8])).flatten().double()
    symbols = torch.arange(4)[:, None]
    model = oracle(form, symbols, chances)
    of = posterior(model, form.inside("x", symbols).double(), chances)
    s = ss.sample(model, 50, steps=4, t_min=0.3, path=True, dtype=torch.float64)
    exact = of(s.path[-1], s.times[-1]).exp()[:, None]
    assert torch.allclose(ss.symbols.probabilities(model, s), exact, atol=1e-10)
    assert 0.01 < exact.amax(-1).min() < 0.9


def test_probabilities_of_logits_are_the_posterior() -> None:
    model, exact, symbols, weights = embedded()
    s = ss.sample(model, 50, steps=4, t_min=0.5, path=True, dtype=torch.float64)
    codes = model.embedding(symbols).detach()
    joint = posterior(exact, codes, weights)(s.path[-1], s.times[-1]).exp()
    each = torch.einsum("bj,jlk->blk", joint, nn.functional.one_hot(symbols, 4).double())
    assert torch.allclose(ss.symbols.probabilities(model, s), each, atol=1e-10)
    bound = ss.symbols.probabilities(model.given(), s)
    assert torch.equal(bound, ss.symbols.probabilities(model, s))


def test_exact_logits_make_the_exact_denoiser() -> None:
    model, exact, _, _ = embedded()
    x = 2 * torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    for t in (0.05, 0.3, 0.7, 1.0):
        time = torch.tensor(t).double()
        apart = (model.denoise(x, time) - exact.denoise(x, time)).abs().max()
        assert apart < 1e-10
        assert (model.score(x, time) - exact.score(x, time)).abs().max() < 1e-8
    plain = {"solver": "ddim", "grid": "log_snr", "steps": 6, "dtype": torch.float64}
    one, two = (ss.sample(m, 20, **plain).x for m in (model, exact))
    assert torch.equal(one, two)
    assert one.dtype == torch.int64


def test_evidence_completes_the_posterior_of_independent_symbols() -> None:
    embedding = ss.symbols.Embedding(4, 3).double()
    symbols = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    exact = oracle(ss.symbols.Vectors(embedding), symbols, CHANCES[symbols].prod(1))

    def frequencies(x: Tensor, level: Tensor) -> Tensor:
        return CHANCES.log().expand(*x.shape[:-1], 4)

    model = ss.symbols.EmbeddedScore(frequencies, embedding, ss.VP(), shape=(2,), evidence=True)
    x = 2 * torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    for t in (0.01, 0.3, 0.7, 1.0):
        time = torch.tensor(t).double()
        assert (model.denoise(x, time) - exact.denoise(x, time)).abs().max() < 1e-10


def test_cross_entropy_is_least_for_the_posterior() -> None:
    model, _, symbols, weights = embedded()
    draw = torch.Generator().manual_seed(0)
    x = symbols[torch.multinomial(weights, 4000, replacement=True, generator=draw)]
    z = torch.randn(4000, 2, 3, generator=draw).double()
    level = torch.full((4000,), -0.7).double()
    exact = ss.losses.cross_entropy(model, x, level, z)
    for change in (
        lambda logits: 0.7 * logits,
        lambda logits: 1.4 * logits,
        lambda logits: logits + torch.tensor([0.5, 0.0, 0.0, -0.5]),
    ):
        other = _with(model, change)
        loss = ss.losses.cross_entropy(other, x, level, z)
        apart = loss - exact
        assert apart.mean() > 3 * apart.std() / math.sqrt(4000)
    t = model.process.time(level[0])
    alpha, sigma = model.process.scales(t)
    state = alpha * model.embedding(x) + sigma * z
    own = model.logits(state, t).log_softmax(-1).gather(-1, x[..., None])[..., 0].mean(1)
    assert torch.allclose(exact, -own, atol=1e-12)
    codes = model.embedding(x).detach()
    assert torch.allclose(ss.losses.cross_entropy(model, codes, level, z), exact, atol=1e-12)


def _with(model: ss.symbols.EmbeddedScore, change: Callable[[Tensor], Tensor]) -> ss.ScoreModel:
    inner = model.network.network

    def changed(x: Tensor, level: Tensor) -> Tensor:
        return change(inner(x, level))

    return ss.symbols.EmbeddedScore(changed, model.embedding, model.process, shape=(2,))


COPIES = 200  # of each sample, with noise of their own


def bound_of(model: ss.ScoreModel, symbols: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    r"""The mean bound of each sample over copies, and its standard error."""

    found = ss.symbols.elbo(model, symbols.repeat(COPIES, 1), nodes=16, draws=4, seed=3, **options)
    values = found.nats.reshape(COPIES, -1)
    return values.mean(0), values.std(0) / math.sqrt(COPIES)


@pytest.mark.parametrize("t_min", [None, 1e-4])
def test_the_bound_is_the_probability_of_symbols_for_exact_models(t_min: float | None) -> None:
    model, _, symbols, weights = embedded()
    bits = oracle(ss.symbols.Bits(4, gray=True), symbols, weights)
    for one in (model, bits):
        nats, error = bound_of(one, symbols, t_min=t_min)
        assert error.max() < 0.1
        assert bool(((nats - weights.log()).abs() < 4 * error).all())
        whole = float((weights.square() @ error.square()).sqrt())
        assert abs(float(weights @ (nats - weights.log()))) < 3 * whole < 0.1


@pytest.mark.filterwarnings("ignore:.*the prior is")
@pytest.mark.parametrize("t_min", [None, 0.35])
@pytest.mark.parametrize("process", [ss.VP(t_max=0.4), ss.EDM(t_max=2.0)], ids=["VP", "EDM"])
def test_the_bound_misses_what_the_prior_does(process: ss.Process, t_min: float | None) -> None:
    form, weights = ss.symbols.Bits(2, shape=(1,)), torch.tensor([0.8, 0.2]).double()
    model = ss.MixtureOracle(form.inside("x", [[0], [1]]), 1e-4, weights, process)
    model.transform = form
    nats, error = bound_of(model, torch.tensor([[0], [1]]), t_min=t_min)
    alpha, sigma = map(float, process.scales(torch.tensor(process.t_max).double()))
    y = torch.linspace(-30, 30, 20_001).double()
    law = (weights * normal(y[:, None] - alpha * torch.tensor([-1.0, 1.0]), sigma)).sum(1)
    apart = law * (law / normal(y, process.prior_std())).log()
    wanted = (weights * weights.log()).sum() - torch.trapezoid(apart, y)
    assert torch.trapezoid(apart, y) > 0.02
    assert abs(float(weights @ nats - wanted)) < 4 * float(
        (weights.square() @ error.square()).sqrt()
    )
    assert (weights.square() @ error.square()).sqrt() < 0.015


def normal(x: Tensor, std: float) -> Tensor:
    r"""The density of a normal number."""

    return (-(x.square()) / (2 * std**2)).exp().clamp(min=1e-300) / (std * math.sqrt(2 * math.pi))


def test_the_standard_error_of_the_bound_covers() -> None:
    model, _, symbols, weights = embedded()
    l = ss.symbols.elbo(model, symbols.repeat(30, 1), nodes=8, draws=8, seed=1)
    inside = ((l.nats - weights.log().repeat(30)).abs() < 2 * l.stderr).double().mean()
    assert 0.88 < inside


@pytest.mark.parametrize("worse", ["decoder", "logits"])
def test_the_bound_is_lower_for_what_is_not_exact(worse: str) -> None:
    model, _, symbols, weights = embedded()
    other = model if worse == "decoder" else _with(model, lambda logits: 0.5 * logits)
    nats, error = bound_of(other, symbols, t_min=0.8 if worse == "decoder" else None)
    whole = float((weights.square() @ error.square()).sqrt())
    assert float(weights @ (nats - weights.log())) < -4 * whole


def test_the_bound_begins_where_symbols_can_be_read_off() -> None:
    symbols, weights = pairs(CHANCES)
    bits = oracle(ss.symbols.Bits(4), symbols, weights)
    own = ss.symbols.elbo(bits, symbols, nodes=4, draws=2)
    said = bits.process.at_noise_level(1 / 8)  # whose codes are 2 apart
    assert torch.equal(own.nats, ss.symbols.elbo(bits, symbols, nodes=4, draws=2, t_min=said).nats)
    assert own.nats.ne(ss.symbols.elbo(bits, symbols, nodes=4, draws=2, t_min=1e-4).nats).all()


def test_rows_of_the_bound_do_not_depend_on_the_batch() -> None:
    model, _, symbols, _ = embedded()
    whole = ss.symbols.elbo(model, symbols, nodes=4, draws=3)
    alone = ss.symbols.elbo(model, symbols[3:5], nodes=4, draws=3, first_index=3)
    split = ss.symbols.elbo(model, symbols, nodes=4, draws=3, batch_size=3)
    assert torch.allclose(whole.nats[3:5], alone.nats, atol=1e-10)
    assert torch.allclose(whole.nats, split.nats, atol=1e-10)
    assert whole.calls == 3 * (4 + 1)


def test_encoding_returns_the_symbols() -> None:
    model, _, symbols, _ = embedded()
    z = ss.encode(model, symbols, steps=128, dtype=torch.float64)
    assert z.x.shape == (len(symbols), 2, 3)
    assert torch.equal(ss.decode(model, z).x, symbols)


def test_the_embedding_keeps_its_length_and_learns() -> None:
    embedding = ss.symbols.Embedding(6, 4)
    embedding(torch.arange(6))[0, 0].backward()
    assert embedding.weight.grad is not None
    slope = embedding.weight.grad[0]
    assert slope.abs().max() > 0
    assert abs(float(slope @ embedding.weight[0].detach())) < 1e-6  # no gain from length
    assert torch.allclose(embedding.vectors.square().mean(-1), torch.ones(6))
    assert torch.equal(embedding.vectors, ss.symbols.Embedding(6, 4).vectors)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f.inside("x", torch.tensor([[5]])), "symbols in \\[0, 5\\), but holds 5"),
        (lambda f: f.inside("x", torch.tensor([[-1]])), "holds -1"),
        (lambda f: f.inside("x", torch.zeros(2, 4)), "or their codes, with shape"),
        (lambda f: f.inside("x", torch.tensor([[True]])), "holds torch.bool"),
        (lambda f: ss.symbols.Bits(1), "count"),
        (lambda f: ss.symbols.Embedding(1, 3), "count"),
        (lambda f: ss.symbols.Bits(4, shape=(0,)), "shape must hold positive"),
    ],
)
def test_what_is_no_symbol_is_refused(call: Callable[..., object], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        call(ss.symbols.Bits(5))


def test_models_without_symbols_are_refused() -> None:
    model = ss.GaussianOracle(torch.zeros(2), 0.5)
    x, zero = torch.zeros(1, 2), torch.zeros(1)
    with pytest.raises(TypeError, match="must have symbols as data"):
        ss.symbols.elbo(model, x)
    with pytest.raises(TypeError, match="must be an ss.symbols.EmbeddedScore"):
        ss.losses.cross_entropy(model, x, zero, x)
    own, _, _, _ = embedded()
    with pytest.raises(ValueError, match="path=True"):
        ss.symbols.probabilities(own, ss.sample(own, 2, steps=2))
    short = ss.symbols.EmbeddedScore(
        lambda x, c: x, ss.symbols.Embedding(5, 3), ss.VP(), shape=(2,)
    )
    with pytest.raises(ValueError, match="one logit for each symbol"):
        ss.sample(short, 2, steps=2)
