r"""Data in the user's units, complex data and named parts: the transform that a model carries."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss

MEAN, STD = torch.tensor([3.0, -200.0]).double(), torch.tensor([0.5, 40.0]).double()
EXACT = {"rtol": 1e-7, "atol": 1e-7}


def model(transform: ss.Transform | None, size: int = 2) -> ss.GaussianOracle:
    r"""A model of standardised Gaussian data with deviations between a half and one."""

    scales = torch.linspace(0.5, 1, size).double()
    found = ss.GaussianOracle(torch.zeros(size).double(), torch.diag(scales**2))
    found.transform = transform
    return found


def normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x).sum(1)


def test_samples_are_those_of_the_states_in_the_users_units() -> None:
    inner = ss.sample(model(None), 5, steps=4, path=True)
    outer = ss.sample(model(ss.Standardized(MEAN, STD)), 5, steps=4, path=True)
    assert torch.allclose(outer.x.double(), MEAN + STD * inner.x.double(), rtol=1e-6)
    assert torch.equal(outer.path, inner.path)  # the states of the process


def test_densities_are_those_of_data_in_the_users_units() -> None:
    m, x = (
        model(ss.Standardized(MEAN, STD)),
        MEAN + STD * torch.tensor([[0.3, -0.4], [1.0, 0.2]]).double(),
    )
    noise = m.process.start_of("likelihood")  # EDM: the level is the time
    std = STD * (torch.tensor([0.5, 1.0]).double() ** 2 + noise**2).sqrt()
    l = ss.log_likelihood(m, x, **EXACT)
    assert torch.allclose(l.nats, normal(x, MEAN, std), atol=1e-4)
    assert torch.allclose(l.slope.double(), -(x - MEAN) / std**2, rtol=1e-3)
    for bound in (ss.elbo(m, x), ss.views(m, x)["flow"], ss.path_density(m, x, steps=400)):
        assert torch.allclose(bound.nats, normal(x, MEAN, std), atol=0.5)


def test_a_round_trip_speaks_the_users_units() -> None:
    m, x = (
        model(ss.Standardized(MEAN, STD)),
        MEAN + STD * torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double(),
    )
    z = ss.encode(m, x, **EXACT)
    assert torch.allclose(
        z.x.double().std(0) / m.process.t_max, torch.tensor([2.0, 1.0]).double(), rtol=1
    )
    assert torch.allclose(ss.decode(m, z, denoise=False).x, x, rtol=1e-5)
    r = ss.reconstruct(m, x, steps=64)
    assert torch.allclose(r.x, x, rtol=1e-3)
    assert torch.allclose(r.max, (r.x - x).abs().amax(1), rtol=1e-3)
    e = ss.edit(m, m, x, strength=0.5)
    assert torch.allclose(e.x, x, rtol=2e-2)
    known = torch.tensor([1, 0])
    assert torch.allclose(ss.inpaint(m, x, known, steps=4).x[:, 0], x[:, 0], rtol=1e-3)


def test_guidance_by_functions_of_data_speaks_the_users_units() -> None:
    m, y = model(ss.Standardized(MEAN, STD)), torch.tensor([[3.5]]).double()
    first = lambda x: x[:, :1]
    plain = ss.sample(m, 400, steps=30, dtype=torch.float64, seed=1).x[:, 0]
    for guided in (
        ss.guidance.pseudoinverse(m, first, y),
        ss.guidance.replacement(m, first, y),
        ss.guidance.moment_matching(m, first, y, noise=0.01),
    ):
        found = ss.sample(guided, 20, steps=30, dtype=torch.float64, seed=1).x[:, 0]
        assert (found - 3.5).abs().max() < 0.05 < plain.std()

    def log_prob(D: Tensor, level: float, y: Tensor) -> Tensor:
        spread = 0.25**2 * level**2 / (0.5**2 + level**2)  # of data given its noisy state
        return -((D[:, 0] - y[:, 0]) ** 2) / 2 / (0.25**2 + spread)

    s = ss.twisted_sample(m, log_prob, 1000, steps=50, y=y)
    assert float(s.mean(lambda x: x)[0]) == pytest.approx(3.25, abs=0.03)  # between 3 and 3.5


def test_a_product_has_the_mass_of_the_users_units() -> None:
    m = model(None)
    plain = ss.weighted_sample([m, m], [1.0, 0.5], 50, steps=50)
    m.transform = ss.Standardized(MEAN, STD)
    s = ss.weighted_sample([m, m], [1.0, 0.5], 50, steps=50)
    mass = -0.5 * float(STD.log().sum())  # the density falls by the volume, to the power of 1.5
    assert s.log_normaliser == pytest.approx(plain.log_normaliser + mass)
    assert torch.allclose(s.x.double(), MEAN + STD * plain.x.double(), rtol=1e-6)


def test_complex_data_is_a_pair_of_real_numbers() -> None:
    m = model(ss.ComplexPairs(), 4)
    scales = torch.linspace(0.5, 1, 4).double()
    s = ss.sample(m, (3, 2), steps=4)
    assert s.x.is_complex()
    assert s.x.shape == (3, 2)
    x = torch.tensor([[1 + 2j, 0.5j], [0.1 + 0j, -1 - 1j]], dtype=torch.complex128)
    pairs = torch.cat([x.real, x.imag], 1)
    noise = m.process.start_of("likelihood")
    l = ss.log_likelihood(m, x, **EXACT)
    std = (scales**2 + noise**2).sqrt()
    assert torch.allclose(l.nats, normal(pairs, torch.zeros(4).double(), std), atol=1e-3)
    z = ss.encode(m, x, **EXACT)
    assert z.x.is_complex()
    assert torch.allclose(ss.decode(m, z, denoise=False).x, x, atol=1e-4)


def test_a_network_of_complex_data_sees_complex_numbers() -> None:
    pairs = ss.ComplexPairs()
    network = pairs.network(lambda x, t: x * torch.exp(1j * t[:, None]))
    x, t = torch.randn(3, 4), torch.tensor([0.1, 0.2, 0.3])
    wanted = pairs.unpack(x) * torch.exp(1j * t[:, None])
    assert torch.allclose(network(x, t), torch.cat([wanted.real, wanted.imag], 1))


def test_named_parts_are_one_state() -> None:
    shapes = {"place": (2,), "turn": (1, 2)}
    mean = {"place": torch.tensor([1.0, 2.0]), "turn": torch.tensor([[3.0, 4.0]])}
    std = {"place": torch.tensor([2.0, 2.0]), "turn": torch.tensor([[0.5, 10.0]])}
    parts = ss.NamedParts(shapes)
    m = model(ss.Standardized(mean, std, parts), 4)
    s = ss.sample(m, 3, steps=4)
    plain = ss.sample(model(None, 4), 3, steps=4).x
    assert s["turn"].shape == (3, 1, 2)
    assert torch.allclose(
        s["turn"][:, 0], torch.tensor([3.0, 4.0]) + torch.tensor([0.5, 10.0]) * plain[:, 2:]
    )
    x = {
        "place": torch.tensor([[1.0, 2.0]]).double(),
        "turn": torch.tensor([[[3.5, 4.0]]]).double(),
    }
    noise = m.process.start_of("likelihood")
    flat = torch.tensor([[1.0, 2.0, 3.5, 4.0]]).double()
    deviations = (
        torch.tensor([2.0, 2.0, 0.5, 10.0])
        * (torch.linspace(0.5, 1, 4).double() ** 2 + noise**2).sqrt()
    )
    exact = normal(flat, torch.tensor([1.0, 2.0, 3.0, 4.0]), deviations)
    assert torch.allclose(ss.log_likelihood(m, x, **EXACT).nats, exact, atol=1e-4)
    z = ss.encode(m, x, **EXACT)
    back = ss.decode(m, z, denoise=False)
    assert torch.allclose(back["place"], x["place"], atol=1e-4)
    assert torch.allclose(back[[0]].parts["turn"], x["turn"], atol=1e-4)
    network = parts.network(lambda p, t: {"place": p["place"] * 2, "turn": p["turn"] * 3})
    assert network(torch.ones(1, 4), torch.zeros(1)).tolist() == [[2, 2, 3, 3]]


def test_the_transform_of_data_has_its_mean_and_deviation() -> None:
    x = torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, -5.0]])
    t = ss.Standardized.of(x)
    assert t.mean.tolist() == [1, 1, 0]
    assert t.std.tolist() == pytest.approx([2**0.5, 1, 50**0.5])
    assert torch.allclose(t.inside("x", x).double(), (x - t.mean) / t.std)
    assert torch.allclose(t.outside(t.inside("x", x)), x)


def test_wrappers_carry_the_transform() -> None:
    pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
    pair.transform = ss.Standardized(100.0, 2.0)
    right = ss.classifier_free(pair, 1.0, label=torch.tensor([1]))
    s = ss.sample(right, 200, steps=20)
    assert float(s.x.mean()) == pytest.approx(102, abs=0.3)
    assert float(ss.sample(pair, 200, steps=20, label=1).x.mean()) == pytest.approx(102, abs=0.3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ss.Standardized(0.0, torch.tensor([1.0, 0.0])), "std must be positive"),
        (lambda: ss.NamedParts({}), "at least one part"),
        (
            lambda: ss.NamedParts({"a": (2,)}).inside("x", {"b": torch.ones(1, 2)}),
            "must have the parts a",
        ),
        (
            lambda: ss.NamedParts({"a": (2,)}).inside("x", {"a": torch.ones(1, 3)}),
            "must have shape",
        ),
        (lambda: ss.Standardized.of(np.ones((1, 2))), "at least 2 samples"),
        (
            lambda: ss.log_likelihood(
                model(ss.Standardized(torch.zeros(3), 1.0)), torch.ones(1, 2)
            ),
            "mean and std",
        ),
        (lambda: ss.geometry.follow(model(ss.Standardized(0.0, 1.0)), 4), "works with states"),
        (lambda: ss.sample(model(3), 4), "must be a Transform"),
    ],
)
def test_a_wrong_transform_gets_a_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError), match=says):
        make()


def test_a_failed_run_keeps_its_samples_in_the_users_units() -> None:
    m = model(ss.Standardized(MEAN, STD))
    with pytest.raises(RuntimeError) as caught:
        ss.sample(m, 2, solver="dopri5", rtol=1e-6, max_calls=20)
    with pytest.raises(RuntimeError) as plain:
        ss.sample(model(None), 2, solver="dopri5", rtol=1e-06, max_calls=20)
    kept, inner = caught.value.solution.x.double(), plain.value.solution.x.double()
    assert torch.allclose(kept, MEAN + STD * inner, rtol=1e-6)


def test_latents_of_complex_data_are_kept_in_files(tmp_path: Path) -> None:
    m = model(ss.ComplexPairs(), 4)
    x = torch.tensor([[1 + 2j, 0.5j], [0.1 + 0j, -1 - 1j]], dtype=torch.complex128)
    z = ss.encode(m, x, solver="reversible_heun", steps=20)
    ss.save_latents(tmp_path / "z.npz", z)
    back = ss.load_latents(tmp_path / "z.npz")
    assert torch.equal(back.x, z.x)
    assert torch.equal(back.companion, z.companion)
    assert torch.allclose(ss.decode(m, back, denoise=False).x, x, atol=1e-8)
    known = ss.latent_statistics(m, z)
    assert torch.equal(
        known.mean, ss.latent_statistics(model(None, 4), torch.cat([z.x.real, z.x.imag], 1)).mean
    )


@pytest.mark.parametrize("process", [ss.VP(), ss.Interpolant()])
def test_states_that_were_not_denoised_are_data_without_alpha(process: ss.Process) -> None:
    m = ss.GaussianOracle(torch.zeros(2).double(), 1.0, process=process)
    m.transform = ss.Standardized(MEAN, STD)
    x = MEAN + STD * torch.tensor([[0.3, -0.4], [1.0, 0.2]]).double()
    start = {"t_min": 0.3}  # where alpha is far from 1
    z = ss.encode(m, x, **EXACT, **start)
    back = ss.decode(m, z, denoise=False, **start)
    assert torch.allclose(back.x, x, rtol=1e-4)
    assert torch.allclose(ss.encode(m, back, **EXACT, **start).x, z.x, rtol=1e-3)
    stopped = ss.sample(m, 3, steps=6, callback=lambda event: event.fraction > 0.5, path=True)
    alpha = process.scales(stopped.reached)[0]
    m.transform = None
    plain = ss.sample(m, 3, steps=6, callback=lambda event: event.fraction > 0.5)
    assert torch.allclose(
        stopped.x.double(), MEAN + STD * plain.x.double() / alpha[:, None], rtol=1e-5
    )


def test_a_resumed_run_ends_in_the_same_data() -> None:
    m = ss.GaussianOracle(torch.zeros(2).double(), 1.0, process=ss.Interpolant())
    m.transform = ss.Standardized(MEAN, STD)
    options = {"steps": 6, "denoise": False, "t_min": 0.3}
    whole = ss.sample(m, 3, **options)
    part = ss.sample(m, 3, **options, callback=lambda event: event.fraction > 0.5)
    assert torch.equal(ss.resume(m, part).x, whole.x)


def test_models_that_share_states_have_the_same_transform() -> None:
    def scaled(mean: float, form: ss.Transform | None = None) -> ss.ScoreModel:
        model = ss.GaussianOracle(torch.zeros(2), 1.0)
        model.transform = ss.Standardized(mean, 2.0, form)
        return model

    plain, x = ss.GaussianOracle(torch.zeros(2), 1.0), torch.zeros(3, 2)
    pairs = (
        (scaled(1.0), plain),
        (plain, scaled(1.0)),
        (scaled(1.0), scaled(0.0)),
        (scaled(1.0), scaled(1.0, ss.ComplexPairs())),
    )
    for one, two in pairs:
        with pytest.raises(ValueError, match="source and target must have the same transform"):
            ss.edit(one, two, x, noise_level=1.0, steps=2)
        with pytest.raises(ValueError, match="models must have the same transform"):
            ss.guidance.product(one, [two], [1.0])
        with pytest.raises(ValueError, match="models must have the same transform"):
            ss.weighted_sample([one, two], [1.0, 1.0], 3)
    pivot = {"pivot": plain, "method": "null", "noise_level": 1.0, "steps": 2}
    with pytest.raises(ValueError, match="source and pivot must have the same transform"):
        ss.edit(scaled(1.0), scaled(1.0), x, **pivot)
    e = ss.edit(
        scaled(1.0), scaled(1.0), x, noise_level=1.0, steps=2
    )  # equal, if not the same object
    assert e.ok


@pytest.mark.parametrize("shape", [3, "3", None])
def test_shapes_of_parts_are_shapes(shape: object) -> None:
    with pytest.raises(TypeError, match=r"shapes\['a'\] must be the shape of one sample.*but is"):
        ss.NamedParts({"a": shape})


def test_draws_and_maps_are_in_data_units(tmp_path: Path) -> None:
    mean, std = torch.tensor([20.0, -5.0]).double(), torch.tensor([2.0, 0.1]).double()
    plain = ss.GaussianOracle(torch.zeros(2).double(), 0.5)
    scaled = ss.GaussianOracle(torch.zeros(2).double(), 0.5)
    scaled.transform = ss.Standardized(mean, std)
    low = torch.tensor([0.0, -0.5]).double()
    known = ss.inference.draw(plain, 40, low=low, steps=5)
    found = ss.inference.draw(scaled, 40, low=mean + std * low, steps=5)
    torch.testing.assert_close(found.samples, (mean + std * known.samples).to(found.samples))
    assert torch.equal(found.proposals, known.proposals)
    x = torch.tensor([[0.3, 0.2], [-0.3, 0.2]]).double()
    cut = known.renormalised(ss.log_likelihood(plain, x), x).nats
    y = mean + std * x
    there = found.renormalised(ss.log_likelihood(scaled, y), y).nats
    torch.testing.assert_close(there, cut - std.log().sum())
    map_of = [ss.plots.density(tmp_path / "d.png", m, side=5).nats for m in (plain, scaled)]
    torch.testing.assert_close(map_of[1], map_of[0] - std.log().sum())
    scaled.transform = ss.ComplexPairs()
    with pytest.raises(ValueError, match="draw works with states"):
        ss.inference.draw(scaled, 4, low=0.0)
