r"""Time warping: the distribution function of levels is the normalised loss."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.losses.levels import Levels, LogUniform, TimeUniform, time_warp

PROCESS = ss.VP()
SHARE = (torch.arange(400).double() + 0.5) / 400


def bent(share: Tensor) -> Tensor:
    r"""A rising curve, linear between the eighths."""

    heights = torch.tensor([0.1, 0.1, 0.3, 1.0, 2.2, 2.5, 2.5, 2.6, 2.61]).double()
    place = share * 8
    low = place.long().clamp(max=7)
    return torch.lerp(heights[low], heights[low + 1], place - low)


@pytest.mark.parametrize("base", [LogUniform(), TimeUniform()])
def test_the_loss_is_the_distribution_function(base: Levels) -> None:
    log_snr = base.log_snr(PROCESS, SHARE)
    found = time_warp(PROCESS, log_snr, bent(SHARE), base=base, bins=8, floor=0.0)
    ends = bent(torch.tensor([0.0, 1.0]).double())
    due = (bent(SHARE) - ends[0]) / (ends[1] - ends[0])
    assert torch.allclose(found.share(PROCESS, log_snr), due, atol=1e-9)
    even = torch.linspace(0.02, 0.98, 13).double()  # at which the loss rises evenly
    heights = bent(base.share(PROCESS, found.log_snr(PROCESS, even)))
    assert torch.allclose(heights.diff(), heights.diff()[0].expand(12), atol=1e-7)


def test_the_density_is_the_slope_of_a_smooth_loss() -> None:
    log_snr = LogUniform().log_snr(PROCESS, SHARE)
    found = time_warp(PROCESS, log_snr, torch.sigmoid(-log_snr), bins=64, floor=0.0)
    ends = torch.sigmoid(-LogUniform().log_snr(PROCESS, torch.tensor([0.0, 1.0]).double()))
    due = (torch.sigmoid(-log_snr) - ends[0]) / (ends[1] - ends[0])
    assert (found.share(PROCESS, log_snr) - due).abs().max() < 2e-3


@pytest.mark.parametrize("curve", [lambda share: -share, lambda share: 0 * share])
def test_a_loss_that_never_rises_gives_the_base(curve: Callable[[Tensor], Tensor]) -> None:
    log_snr = LogUniform().log_snr(PROCESS, SHARE)
    found = time_warp(PROCESS, log_snr, curve(SHARE), bins=4)
    assert torch.allclose(torch.tensor(found.chances), torch.full((4,), 0.25))


def test_noise_of_losses_does_not_make_the_function_fall() -> None:
    draw = torch.Generator().manual_seed(0)
    noisy = bent(SHARE) + 0.5 * torch.randn(400, generator=draw).double()
    found = time_warp(PROCESS, LogUniform().log_snr(PROCESS, SHARE), noisy, bins=8, floor=0.2)
    assert min(found.chances) >= 0.2 / 8 - 1e-12
    assert abs(sum(found.chances) - 1) < 1e-12


def test_losses_and_levels_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="loss must have one number per log_snr, 2, but has 3"):
        time_warp(PROCESS, [0.0, 1.0], [1.0, 2.0, 3.0])
