r"""Models in the latent space of an autoencoder: data in and out, densities, bounds, losses, files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde as ss
from scoresde import autoencoders
from scoresde.networks import VAE, VQVAE

from ..test_cli import answer

DENSE = {"solver": "exponential_3", "steps": 24, "nodes": 24}
SMALL = {"width": 8, "multipliers": (1, 2), "size": 4}
SIZES, NOISE = torch.tensor([2.0, 0.7]).double(), 0.5


class Linear(nn.Module):
    r"""Probabilistic principal components: x = W z + s e, with orthogonal columns: diagonal posteriors.

    `apart` moves the mean of the posterior, in its deviations, and `wide` multiplies these.
    """

    def __init__(self, apart: float = 0.0, wide: float = 1.0, prior: float = 1.0) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(1)))[0]
        self.weight = nn.Parameter(basis.double() * SIZES)
        self.apart, self.wide, self.prior = apart, wide, prior

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        variance = 1 / (SIZES**2 / NOISE**2 + 1 / self.prior)
        mean = variance * (x @ self.weight) / NOISE**2
        std = variance.sqrt().expand(mean.shape)
        return mean + self.apart * std, self.wide * std

    def encode(self, x: Tensor) -> Tensor:
        return x @ (self.weight / SIZES**2)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.weight.T

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.distributions.Normal(self.decode(z), NOISE).log_prob(x).sum(1)


def linear_model(spread: float = 1.0, **options: float) -> tuple[ss.ScoreModel, float]:
    r"""A model of normal latents with some deviation, and the variance of what its density is of."""

    space = ss.Latent(Linear(**options), (5,), mean=0.0, std=spread)
    model = ss.GaussianOracle(torch.zeros(2).double(), 1.0)
    model.transform = space
    level = model.process.noise_level(model.process.start_of("likelihood"))
    return model, spread**2 * (1 + level**2)


def exact(x: Tensor, prior: float) -> Tensor:
    r"""The log-density of x = W z + s e with z of variance `prior`."""

    weight = Linear().weight.detach()
    covariance = prior * weight @ weight.T + NOISE**2 * torch.eye(5)
    return torch.distributions.MultivariateNormal(torch.zeros(5), covariance).log_prob(x)


def images_of(coder: nn.Module, **options: object) -> ss.NetworkScore:
    torch.manual_seed(2)
    space = ss.Latent(coder, **options)
    network = ss.networks.UNet(channels=space.shape[0], width=8, multipliers=(1,), blocks=1)
    with torch.no_grad():
        network.last[-1].weight.normal_(std=0.1)
    found = ss.NetworkScore(network, ss.EDM(), "edm", shape=space.shape, data_std=1.0)
    found.eval().transform = space
    return found


CARD = {"network": {"name": "UNet", "settings": {
    "channels": 2, "width": 8, "multipliers": [1], "blocks": 1}}}  # fmt: skip


def test_samples_are_decoded_states() -> None:
    model, mean = images_of(VAE(latent=2, **SMALL), mean=0.3, std=2.0), 0.3
    space = model.transform
    samples = ss.sample(model, 3, steps=4)
    assert torch.equal(samples.x, ss.sample(model, (3, 1, 4, 4), steps=4, seed=0).x)
    plain = images_of(VAE(latent=2, **SMALL))
    plain.transform = None
    states = ss.sample(plain, (3, 2, 2, 2), steps=4).x
    assert torch.allclose(samples.x, space.autoencoder.decode(mean + 2 * states))


def test_latents_and_edits_go_from_data_to_data() -> None:
    r"""A linear autoencoder projects, so a round trip of data is its projection."""

    model, _ = linear_model()
    x = torch.randn(4, 5)
    space = model.transform
    projected = space.autoencoder.decode(space.autoencoder.encode(x))
    z = ss.encode(model, x, solver="lattice_heun", steps=6)
    assert z.x.shape == (4, 2)
    assert torch.allclose(ss.decode(model, z, denoise=False).x, projected, atol=1e-8)
    e = ss.edit(model, model, x, noise_level=4e-3, steps=2, seed=1)
    assert torch.allclose(e.x, projected, atol=0.05)
    assert float(ss.reconstruct(model, x, solver="lattice_heun", steps=6).rms.max()) < 1e-8


def test_runs_of_latents_are_stored_and_go_on(tmp_path: Path) -> None:
    r"""Paths and companions are states, whose shape is not that of data."""

    model, x, run = (
        images_of(VAE(latent=2, **SMALL)),
        torch.rand(2, 1, 4, 4),
        {"steps": 4, "seed": 1},
    )
    part = ss.sample(model, 2, callback=lambda event: event.fraction > 0.4, **run)
    whole = ss.sample(model, 2, path=True, **run)
    z = ss.encode(model, x, solver="lattice_heun", steps=3)
    back = ss.decode(model, z, denoise=False)
    stored = []
    for solution in (part, whole, z, back):
        ss.save_solution(tmp_path / "s.npz", solution)
        stored.append(ss.load_solution(tmp_path / "s.npz"))
    assert torch.equal(ss.resume(model, stored[0]).x, whole.x)
    assert stored[1].path.shape == (5, 2, 2, 2, 2)
    assert torch.equal(stored[1].path, whole.path)
    assert torch.equal(ss.decode(model, stored[2], denoise=False).x, back.x)
    assert torch.equal(stored[3].companion, back.companion)
    damaged = {**whole.provenance, "state": [1, 4, 4]}
    ss.save_solution(tmp_path / "s.npz", replace(whole, provenance=damaged))
    with pytest.raises(ValueError, match=r"'path' must have shape \(5, 2, 1, 4, 4\)"):
        ss.load_solution(tmp_path / "s.npz")


def test_a_loss_of_data_guides_latents() -> None:
    r"""The gradient of |D(m + s u) - y|^2 / 2 for a linear decoder W is s W' (D(m + s u) - y)."""

    model, _ = linear_model(spread=3.0)
    y, u, t = torch.randn(5), torch.randn(4, 2), torch.tensor(0.5)
    guided = ss.guidance.optimised(
        model, lambda x: (x - y).square().sum(1) / 2, 0.01, iterations=1
    )
    plain, weight = model.denoise(u, t), model.transform.autoencoder.weight.detach()
    wanted = plain - 0.01 * 3 * ((3 * plain) @ weight.T - y) @ weight
    assert torch.allclose(guided.denoise(u, t), wanted)


def test_a_density_is_that_of_the_latent_in_its_own_units() -> None:
    model, prior = linear_model(spread=3.0)
    x = torch.randn(4, 5)
    found = ss.log_likelihood(model, x, **DENSE)
    z = model.transform.autoencoder.encode(x)
    wanted = torch.distributions.Normal(0.0, math.sqrt(prior)).log_prob(z).sum(1)
    assert torch.allclose(found.nats, wanted, atol=2e-3)
    assert "of latents" in repr(found)
    with pytest.raises(ValueError, match="densities of latents, which have no levels"):
        ss.bits_per_dim(found, levels=17)


@pytest.mark.parametrize("spread", [1.0, 2.5])
def test_with_the_exact_posterior_the_bound_is_the_density(spread: float) -> None:
    r"""Every draw then gives log p(x), whatever the units of the states."""

    _, prior = linear_model(spread)
    model, _ = linear_model(spread, prior=prior)
    x = 2 * torch.randn(6, 5)
    found = autoencoders.pixel_elbo(model, x, draws=2, options=DENSE)
    assert torch.allclose(found.nats, exact(x, prior), atol=2e-3)
    assert float(found.stderr.max()) < 2e-3
    parts = found.reconstruction + found.prior + found.entropy
    assert torch.allclose(found.nats, parts)
    by = autoencoders.pixel_elbo(model, x, draws=2, by="elbo", options={"nodes": 2})
    assert torch.allclose(by.nats, exact(x, prior), atol=1e-6)


@pytest.mark.parametrize(("apart", "wide"), [(0.5, 1.0), (0.0, 1.5)])
def test_a_wrong_posterior_costs_its_divergence(apart: float, wide: float) -> None:
    r"""KL of N(a s, w^2 s^2) from N(0, s^2) is (a^2 + w^2 - 1 - 2 log w) / 2 per entry, here of two."""

    _, prior = linear_model()
    model, _ = linear_model(apart=apart, wide=wide, prior=prior)
    x = torch.randn(400, 5)
    found = autoencoders.pixel_elbo(model, x, draws=1, options={**DENSE, "steps": 12})
    lost = exact(x, prior) - found.nats
    divergence = apart**2 + wide**2 - 1 - 2 * math.log(wide)
    assert abs(float(lost.mean()) - divergence) < 4 * float(lost.std()) / math.sqrt(400) + 1e-3
    assert found.stderr.isnan().all()


def test_bits_of_a_bound_are_those_of_a_density() -> None:
    model, _ = linear_model()
    found = autoencoders.pixel_elbo(
        model, torch.randn(3, 5), draws=1, by="elbo", options={"nodes": 2}
    )
    wanted = -(found.nats / 5 + math.log(0.5)) / math.log(2)
    assert torch.allclose(found.bits_per_dim(levels=5), wanted)


def test_the_variational_loss_of_the_exact_posterior_is_the_density_of_data() -> None:
    r"""Its mean; single draws differ, since the divergence is not drawn."""

    x = torch.randn(1, 5).expand(5000, 5)
    loss = autoencoders.variational_loss(Linear(), x)
    error = 4 * float(loss.detach().std()) / math.sqrt(len(x))
    assert abs(float(loss.detach().mean()) + float(exact(x[:1], 1.0).detach())) < error


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_divergence_is_that_of_normal_distributions(weight: float) -> None:
    coder, x = VAE(latent=2, **SMALL), torch.randn(3, 1, 4, 4)
    mean, std = coder.posterior(x)
    posterior, prior = (torch.distributions.Normal(*p) for p in ((mean, std), (0 * mean, 1.0)))
    divergence = torch.distributions.kl_divergence(posterior, prior).flatten(1).sum(1)
    whole, none = (autoencoders.variational_loss(coder, x, weight=w, seed=5) for w in (weight, 0))
    assert torch.allclose(whole - none, weight * divergence)


def test_gradients_pass_the_codebook_straight_through() -> None:
    coder = VQVAE(codes=5, latent=2, **SMALL)
    z = torch.randn(3, 2, 2, 2, requires_grad=True)
    chosen = coder.quantize(z)
    far = (z.movedim(1, -1)[..., None, :] - coder.codebook).square().sum(-1)
    assert torch.equal(coder.nearest(z), far.argmin(-1))
    assert torch.equal(chosen, coder.codebook[far.argmin(-1)].movedim(-1, 1))
    assert torch.equal(coder.quantize(chosen), chosen)
    e = chosen.detach().requires_grad_()
    [of_z] = torch.autograd.grad(coder.decode(z).sin().sum(), z)
    [of_e] = torch.autograd.grad(coder.decoder(e).sin().sum(), e)
    assert torch.allclose(of_z, of_e)


def test_the_codebook_moves_to_the_mean_of_its_encodings() -> None:
    r"""Its gradient is 2 (n / N) (e - mean) for n of N encodings, each a mean over the entries of a sample."""

    coder, x = VQVAE(codes=3, latent=2, **SMALL), torch.randn(6, 1, 4, 4)
    z, far = coder.features(x).detach(), 100.0
    coder.codebook.data[2] = far  # of no encoding
    [found] = torch.autograd.grad(
        autoencoders.quantization_loss(coder, x, commitment=7.0).mean(), coder.codebook
    )
    vectors, code = z.movedim(1, -1).reshape(-1, 2), coder.nearest(z).flatten()
    wanted = torch.stack([
        2 * (coder.codebook[k].detach() - vectors[code == k]).sum(0) / vectors.numel() for k in range(3)
    ])  # fmt: skip
    assert torch.allclose(found, wanted)


def test_encodings_are_drawn_to_the_codebook() -> None:
    coder, x = VQVAE(codes=3, latent=2, **SMALL), torch.randn(6, 1, 4, 4)
    z = coder.features(x)
    some, none = (autoencoders.quantization_loss(coder, x, commitment=c).mean() for c in (0.5, 0))
    committed = (z - coder.quantize(z).detach()).square().mean()
    assert torch.allclose(some - none, 0.5 * committed)
    weights = list(coder.encoder.parameters())
    rebuilt = (x - coder.decode(z)).square().mean()  # all that moves them without commitment
    found, wanted = (torch.autograd.grad(v, weights, retain_graph=True) for v in (none, rebuilt))
    assert all(map(torch.allclose, found, wanted))


def test_standardised_latents_have_mean_0_and_deviation_1() -> None:
    r"""Of draws from the posterior: the variance of its means, and the mean of its variances."""

    x, coder = 3 * torch.randn(20_000, 5) + 1, Linear(wide=3.0)
    space = ss.Latent.of(coder, x, batch_size=7000)
    mean, std = space.posterior("x", x)
    u = mean + std * torch.randn(mean.shape)
    assert float(u.mean(0).abs().max()) < 4 / math.sqrt(len(x))
    assert float((u.std(0) - 1).abs().max()) < 4 / math.sqrt(2 * len(x))


def test_latents_of_a_codebook_have_no_density() -> None:
    model, x = images_of(VQVAE(latent=2, codes=4, **SMALL)), torch.randn(2, 1, 4, 4)
    samples = ss.sample(model, 2, steps=3)
    assert samples.x.shape == (2, 1, 4, 4)
    for density in (ss.log_likelihood, ss.elbo, ss.views):
        with pytest.raises(ValueError, match="points have no density"):
            density(model, x)
    with pytest.raises(TypeError, match="but this model has a VQVAE"):
        autoencoders.pixel_elbo(model, x)


def test_fitting_finds_the_principal_components() -> None:
    r"""The least error of one linear dimension is the sum of the other variances; two runs are equal."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.there, self.back = nn.Linear(3, 1, bias=False), nn.Linear(1, 3, bias=False)

    def loss(coder: Line, x: Tensor, seed: int) -> Tensor:
        return (coder.back(coder.there(x)) - x).square().sum(1)

    x = torch.randn(400, 3) * torch.tensor([2.0, 0.5, 0.3])
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(autoencoders.fit_autoencoder(
            Line(), x, loss=loss, steps=300, batch_size=64, lr=0.05))  # fmt: skip
    least = torch.linalg.svdvals(x)[1:].square().sum() / len(x)
    assert least <= loss(runs[0], x, 0).mean() < 1.02 * least
    assert torch.equal(runs[0].there.weight, runs[1].there.weight)


def test_a_codebook_starts_at_encodings_of_data() -> None:
    coder = VQVAE(codes=8, latent=2, **SMALL)
    x = torch.randn(16, 1, 4, 4)
    vectors = coder.features(x).detach().movedim(1, -1).reshape(-1, 2)
    autoencoders.fit_autoencoder(coder, x, steps=1, batch_size=4, lr=1e-12)
    assert float(torch.cdist(coder.codebook, vectors).min(1).values.max()) < 1e-6


@pytest.mark.parametrize("kind", [VAE, VQVAE])
def test_files_keep_the_autoencoder(tmp_path: Path, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = images_of(kind(latent=2, **SMALL), mean=0.2, std=torch.ones(2, 1, 1))
    again = ss.load(ss.save(model, tmp_path / "latent", CARD, dtype=torch.float64))
    assert repr(again.transform) == repr(model.transform)
    samples = (ss.sample(m, 2, steps=3).x for m in (again, model))
    assert torch.equal(*samples)
    assert not any(p.requires_grad for p in again.transform.autoencoder.parameters())


def test_commands_take_and_write_pictures(tmp_path: Path) -> None:
    ss.save(images_of(VAE(latent=2, **SMALL)).float(), tmp_path / "latent", CARD)
    answer("sample", "latent", "-n", 4, "--steps", 2, "--out", "x.png", folder=tmp_path)
    found = answer("likelihood", "latent", "--data", "x.png", "--solver", "heun", "--steps", 3,
                   "--nodes", 8, folder=tmp_path)  # fmt: skip
    assert found["samples"] == 4
    assert found["of"] == "latents, not of the data that they encode"


class Own(nn.Module):
    r"""An autoencoder of others."""

    settings: ClassVar[dict[str, float]] = {"factor": 2.0}
    shape = (2,)

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def encode(self, x: Tensor) -> Tensor:
        return self.factor * x

    def decode(self, z: Tensor) -> Tensor:
        return z / self.factor


def test_an_autoencoder_of_others_needs_trust(tmp_path: Path) -> None:
    model = images_of(VAE(latent=2, **SMALL))
    own = ss.Latent(Own(2.0))
    model.transform, model.shape = own, None
    file = ss.save(model, tmp_path / "own", CARD)
    with pytest.raises(ValueError, match="pass trust=True"):
        ss.load(file)
    assert torch.equal(
        ss.load(file, trust=True).transform.inside("x", [[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    )
    own.autoencoder.settings = None
    with pytest.raises(ValueError, match="attribute `settings`"):
        ss.save(model, tmp_path / "own", CARD)


@pytest.mark.parametrize(("change", "words"), [
    (lambda c, t: c.update(autoencoder="os:system"), "pass trust=True"),
    (lambda c, t: c.update(autoencoder="UNet"), "UNet"),
    (lambda c, t: c.update(settings={"latent": 3}), "shape"),
    (lambda c, t: c["settings"].update(width=800), "shape"),
    (lambda c, t: c["settings"].update(blocks=90), "more weights than"),
    (lambda c, t: c.update(data_shape=[1, 4, 0]), "'data_shape' must be"),
    (lambda c, t: c.update(data_shape=[1, 8, 8]), "data_shape must be"),
    (lambda c, t: t.pop("transform.mean"), "its tensors must be mean, std"),
    (lambda c, t: t.pop("transform.autoencoder.log_std"), "more weights than the 52"),
    (lambda c, t: t.update({"transform.std": torch.zeros(())}), "std must be positive"),
    (lambda c, t: t.update({"transform.std": torch.ones(9)}), "std must broadcast"),
    (lambda c, t: t.update({"transform.autoencoder.log_std": torch.tensor(math.nan)}), "must be finite"),
])  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, change: object, words: str) -> None:
    file = ss.save(images_of(VAE(latent=2, **SMALL)), tmp_path / "latent", CARD)
    card, weights = json.loads(file.read_text()), file.with_suffix(".safetensors")
    tensors = load_file(weights)
    change(card["transform"], tensors)  # type: ignore[operator]
    file.write_text(json.dumps(card))
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=words):
        ss.load(file)


X = torch.zeros(2, 5)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: ss.Latent(nn.Linear(1, 1)), "autoencoder must have the methods encode and decode"),
    (lambda: ss.Latent(Linear()), "data_shape is missing"),
    (lambda: ss.Latent(Linear(), (5,), std=0.0), "std must be positive"),
    (lambda: ss.Latent(Linear(), (5,), mean=torch.zeros(3)), r"mean must broadcast with a latent of shape \(2,\)"),
    (lambda: ss.Latent.of(Linear(), X[:1]), "data must have at least 2 samples"),
    (lambda: ss.sample(linear_model()[0], (2, 3)), r"shape must be \(B, 5\)"),
    (lambda: ss.log_likelihood(linear_model()[0], X[:, :2]), r"x must be \(B, 5\), the data of this model's"),
    (lambda: autoencoders.pixel_elbo(ss.GaussianOracle(X[0], 1.0), X), "must have a ss.Latent"),
    (lambda: autoencoders.pixel_elbo(linear_model()[0], X, by="path"), "by must be one of flow, elbo"),
    (lambda: autoencoders.pixel_elbo(linear_model()[0], X, draws=0), "draws must be"),
    (lambda: autoencoders.fit_autoencoder(Linear(), X), "loss= must be passed, since a Linear has"),
    (lambda: autoencoders.fit_autoencoder(VAE(), X), r"data must be \(B, 1, 8, 8\) for this autoencoder"),
    (lambda: autoencoders.fit_autoencoder(VAE(), X.new_zeros(2, 1, 8, 8), levels=4), "must lie on 4 levels"),
    (lambda: autoencoders.fit_autoencoder(Linear(), X, loss=lambda a, x, s: 1), "loss must return a tensor"),
    (lambda: ss.Latent(VAE(), (1, 4, 4)), r"data_shape must be \(1, 8, 8\)"),
    (lambda: autoencoders.variational_loss(Linear(), X, weight=-1), "weight must be not negative"),
    (lambda: VAE(size=6, multipliers=(1, 2, 2)), "size must be a multiple of 4"),
    (lambda: VAE(width=12), "width must be a multiple of 8"),
    (lambda: VAE(latent=0), "latent must be at least 1"),
    (lambda: VAE(multipliers=()), "multipliers must be positive"),
    (lambda: VQVAE(codes=1), "codes must be at least 2"),
])  # fmt: skip
def test_refusals(call: object, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        call()  # type: ignore[operator]
