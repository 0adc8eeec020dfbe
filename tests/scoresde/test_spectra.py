r"""Power spectra against Parseval's theorem, white noise, power laws and normal data."""

import math
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde import geometry, plots
from scoresde.geometry import spectra


def waves(power: torch.Tensor, count: int) -> torch.Tensor:
    r"""Normal images with a power at each frequency, of shape (H, W)."""

    z = torch.randn(count, 1, *power.shape, generator=torch.Generator().manual_seed(1))
    return torch.fft.ifft2(torch.fft.fft2(z) * power.sqrt()).real


def radius(size: int) -> torch.Tensor:
    axis = torch.fft.fftfreq(size)
    return torch.hypot(axis[:, None], axis[None, :])


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (2, 3, 7, 9), (4, 2, 6, 11)])
def test_the_power_of_all_rings_is_the_sum_of_squares(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    found = spectra.spectrum(x)
    assert torch.allclose((found.power * found.counts).sum(-1), x.square().mean(-3).sum((-1, -2)))
    assert int(found.counts.sum()) == shape[-1] * shape[-2]
    assert bool((found.frequencies.diff() > 0).all())


def test_noise_is_flat_and_adds_to_the_data() -> None:
    z = torch.randn(4000, 1, 8, 8)
    flat = spectra.spectrum(0.7 * z).power.mean(0)
    assert torch.allclose(flat, torch.full_like(flat, 0.49), rtol=0.08)
    x = waves(1 / (0.1 + radius(8)) ** 2, 4000)
    both = spectra.spectrum(x + 0.7 * z).power.mean(0)
    assert torch.allclose(both, spectra.spectrum(x).power.mean(0) + 0.49, rtol=0.08)


def test_the_hinge_of_a_power_law_is_where_it_meets_the_noise() -> None:
    size = 64
    ring = (radius(size) * size).round() / size
    data = spectra.spectrum(waves(0.01 / ring.clamp(min=1 / size) ** 2, 400))
    for level in (0.3, 0.5, 1.0):
        assert spectra.hinge(data, level) == pytest.approx(0.1 / level, rel=0.06)
    assert spectra.hinge(data, 100.0) == 0.0
    empty = spectra.Spectrum(
        data.frequencies, data.power * (torch.arange(data.power.shape[-1]) > 0), data.counts
    )
    assert spectra.hinge(empty, 0.5) == pytest.approx(
        spectra.hinge(data, 0.5)
    )  # the mean was taken out
    assert spectra.hinge(data, 1e-4) == math.inf
    with pytest.raises(ValueError, match="level must be positive"):
        spectra.hinge(data, 0.0)


def test_normal_images_are_drawn_from_coarse_to_fine() -> None:
    r"""Each ring has half its power at the level whose square is its own."""

    size = 6
    ring = (radius(size) * size).round()
    power = 10.0 * torch.exp(-1.5 * ring)
    columns = torch.fft.ifft2(torch.fft.fft2(torch.eye(36).reshape(36, size, size)) * power).real
    mean = torch.linspace(0, 9, 36).reshape(1, size, size)  # which is no matter
    model = ss.GaussianOracle(mean, columns.reshape(36, 36), ss.EDM())
    t = geometry.follow(model, 2000, solver="exponential_2", steps=80, grid="log_snr")
    found, settled = spectra.coarse_to_fine(t)
    want = torch.stack([power[ring == k].mean() for k in ring.unique()]).sqrt()
    assert torch.allclose(settled, want, rtol=0.05)
    assert torch.allclose(found.power[-1], want**2, rtol=0.12)
    pair = geometry.follow(model, 2, solver="ddim", steps=5)
    apart = spectra.spectrum(pair.guided[:, 0] - pair.guided[:, 1]).power / 2  # without bias
    assert torch.allclose(spectra.coarse_to_fine(pair)[0].power, apart)
    with pytest.raises(ValueError, match="at least two samples"):
        spectra.coarse_to_fine(geometry.follow(model, 1, solver="ddim", steps=2))


def test_spectra_are_drawn(tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.zeros(1, 4, 4), torch.eye(16), ss.EDM())
    t = geometry.follow(model, 3, solver="ddim", steps=6)
    hinges = plots.spectrum(tmp_path / "a.png", model.data(50), levels=[0.5, 2.0], followed=t)
    assert list(hinges) == [0.5, 2.0]
    assert hinges[0.5] == math.inf
    assert (tmp_path / "a.png").stat().st_size > 1e4
    with pytest.raises(ValueError, match="images have shape"):
        plots.spectrum(tmp_path / "b.png", torch.zeros(1, 3, 5))
    with pytest.raises(TypeError, match="floating-point numbers, but holds torch.uint8"):
        plots.spectrum(tmp_path / "b.png", torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="must be finite"):
        spectra.spectrum(torch.full((2, 1, 4, 4), math.nan))
    with pytest.raises(ValueError, match="must end in one of"):
        plots.spectrum(tmp_path / "b.gif", torch.zeros(2, 1, 4, 4))
    flat = ss.GaussianOracle(torch.zeros(2), torch.eye(2), ss.EDM())
    with pytest.raises(ValueError, match="spectra are of images"):
        spectra.coarse_to_fine(geometry.follow(flat, 3, solver="ddim", steps=2))


def power_law_model(size: int, process: ss.Process) -> tuple[ss.GaussianOracle, torch.Tensor]:
    r"""Normal images whose power falls as a power law, and their power at each frequency."""

    ring = (radius(size) * size).round().clamp(min=1) / size
    power = 0.02 * ring.double() ** -2
    rows = torch.fft.ifft2(torch.fft.fft2(torch.eye(size**2).reshape(-1, size, size)) * power)
    mean = torch.linspace(-1, 1, size**2).reshape(1, size, size).double()
    columns = rows.real.reshape(size**2, size**2)
    return ss.GaussianOracle(mean, (columns + columns.T) / 2, process), power


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()], ids=type)
def test_frequencies_are_drowned_where_the_noise_has_their_power(process: ss.Process) -> None:
    r"""The share P / (P + s^2) of a ring is decided: half where s is the root of P."""

    model, power = power_law_model(8, process)
    x = model.data(3000).double()
    levels = torch.logspace(-1.4, 0.9, 9)
    found = spectra.decided(model, x, levels.tolist())
    ring = (radius(8) * 8).round()
    P = torch.stack([power[ring == k].mean() for k in ring.unique()])
    want = P / (P + levels[:, None].double() ** 2)
    assert torch.allclose(found.shares, want, atol=0.03)
    assert torch.allclose(found.linear, want, atol=0.02)
    assert torch.allclose(found.halves, P.sqrt(), rtol=0.08)
    assert spectra.hinge(found.data, float(P[3].sqrt())) == pytest.approx(
        float(found.data.frequencies[3]), rel=0.05
    )
    factor, exponent = spectra.power_law(spectra.Spectrum(torch.arange(1, 9) / 16, P[1:2] * (
        16 * torch.arange(1, 9) / 16) ** -2.5, torch.ones(8)))  # fmt: skip
    assert exponent == pytest.approx(2.5)
    assert factor == pytest.approx(float(P[1]) * 16**-2.5, rel=1e-6)


def test_samples_decide_their_frequencies_in_the_order_of_their_power() -> None:
    r"""What the estimates of a sampled path settle is what the report says: both at the root of the power."""

    model, _ = power_law_model(6, ss.EDM())
    report = spectra.decided(model, model.data(1500))
    way = geometry.follow(model, 1500, solver="exponential_2", steps=40, grid="log_snr")
    settled = spectra.coarse_to_fine(way)[1]
    known = report.halves.isfinite() & settled.isfinite()
    assert int(known.sum()) >= 3
    assert torch.allclose(report.halves[known], settled[known].double(), rtol=0.15)


def test_odd_images_of_the_report_are_named() -> None:
    model, _ = power_law_model(4, ss.EDM())
    with pytest.raises(ValueError, match="at least 2 images"):
        spectra.decided(model, torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="x must vary"):
        spectra.decided(model, torch.ones(3, 1, 4, 4))
    with pytest.raises(ValueError, match="levels must lie inside"):
        spectra.decided(model, torch.randn(3, 1, 4, 4), [1e4])
    flat = spectra.Spectrum(torch.tensor([0.0, 0.6]), torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="at least two rings"):
        spectra.power_law(flat)
