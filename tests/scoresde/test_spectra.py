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
