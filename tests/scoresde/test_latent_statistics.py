r"""What tells latents from noise: z-scores that have the law of z-scores, correlations that are ones."""

import math

import pytest
import torch

import scoresde as ss


def model(d: int, process: ss.Process | None = None) -> ss.GaussianOracle:
    return ss.GaussianOracle(torch.zeros(d), 1.0, process=process or ss.VP())


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_scores_of_correlation_do_not_depend_on_the_scale(scale: float) -> None:
    z = noise(800, 64)
    s = ss.latent_statistics(model(64), scale * z)
    assert s.neighbours.mean().abs() < 4 / 800**0.5
    assert s.neighbours.std() == pytest.approx(1.0, abs=0.1)
    plain = ss.latent_statistics(model(64), z)
    for name in ("neighbours", "pairs", "neighbour_correlation", "pair_correlation"):
        assert torch.allclose(getattr(s, name), getattr(plain, name))


def test_correlations_are_correlations() -> None:
    r"""Of a wave with a period of n entries, adjacent ones have the correlation cos(2 pi / n)."""

    t = torch.arange(4096.0)
    wave = torch.stack([torch.cos(2 * math.pi * t / n) for n in (8, 16, 64)])
    s = ss.latent_statistics(model(4096), wave)
    right = torch.tensor([math.cos(2 * math.pi / n) for n in (8, 16, 64)])
    assert torch.allclose(s.neighbour_correlation, right, atol=2e-3)
    assert torch.allclose(s.neighbours, right * 4095**0.5, rtol=2e-3)
    assert (s.pair_correlation < 1e-3).all()  # waves of other periods
    alike = ss.latent_statistics(model(3), torch.tensor([[1.0, 2.0, 3.0], [-2.0, -4.0, -6.0]]))
    assert torch.allclose(alike.pair_correlation, torch.ones(2))
    assert torch.allclose(alike.pairs, torch.full((2,), 3**0.5))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("process", [ss.VP(), ss.EDM(), ss.Interpolant()])
def test_the_batch_tells_in_few_dimensions(d: int, process: ss.Process) -> None:
    oracle, z = model(d, process), process.prior_std() * noise(800, d)
    good = ss.latent_statistics(oracle, z).batch
    assert good.verdict == "like the prior"
    assert good.std == pytest.approx(1.0, abs=4 / (2 * 800 * d) ** 0.5)
    assert good.means.shape == good.stds.shape == (d,)
    for wrong, what in (
        (1.3 * z, "std"),
        (0.8 * z, "std"),
        (z + 0.5 * process.prior_std(), "mean"),
    ):
        assert ss.latent_statistics(oracle, wrong).batch.verdict.startswith(
            f"unlike the prior: {what}"
        )
    even = process.prior_std() * (torch.rand(800, d) - 0.5) * 12**0.5
    assert "kurtosis" in ss.latent_statistics(oracle, even).batch.verdict
    assert "like the prior" in repr(ss.latent_statistics(oracle, z))


def test_the_batch_sees_entries_that_go_together() -> None:
    z = noise(500, 2)
    shear = torch.tensor([[1.0, 0.0], [0.6, 0.8]])  # of correlation 0.6
    s = ss.latent_statistics(model(2), z @ shear.T).batch
    assert s.correlation == pytest.approx(0.6, abs=4 * 0.64 / 500**0.5)
    assert s.correlation_z == pytest.approx(s.correlation * 500**0.5)
    assert s.verdict.startswith("unlike the prior: correlation")


def test_exact_latents_are_like_the_prior() -> None:
    oracle = ss.MixtureOracle(torch.tensor([[2.0, 0.0], [-1.0, 1.0]]), 0.3, process=ss.VP())
    s = ss.latent_statistics(oracle, ss.encode(oracle, oracle.data(400), rtol=1e-4, atol=1e-4))
    assert s.batch.verdict == "like the prior"


def test_a_single_latent_and_a_single_entry_have_what_they_can() -> None:
    one = ss.latent_statistics(model(4), noise(1, 4))
    assert one.pairs.isnan().all()
    assert one.batch.stds.isnan().all()
    assert math.isnan(one.batch.correlation)
    assert repr(one).startswith("LatentStatistics(1 samples")
    zero = ss.latent_statistics(model(4), torch.zeros(20, 4))
    assert zero.neighbours.tolist() == [0.0] * 20
    assert zero.batch.verdict.startswith("unlike the prior: std")
    assert len(repr(ss.latent_statistics(model(64), noise(50, 64)))) < 300
