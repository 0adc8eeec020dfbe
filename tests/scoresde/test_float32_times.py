r"""Grids in float32, as other libraries make them."""

import pytest
import torch

import scoresde as ss

from .cases import mixture


def karras(count: int, low: float, high: float, rho: float = 7.0) -> torch.Tensor:
    ends = high ** (1 / rho), low ** (1 / rho)
    return (ends[0] + torch.linspace(0, 1, count) * (ends[1] - ends[0])) ** rho


GRIDS = {
    "EDM": (ss.EDM(), karras(10, 0.002, 80.0)),
    "EDM by hand": (ss.EDM(ss.Karras(0.0292, 14.6146)), karras(10, 0.0292, 14.6146)),
    "VP": (ss.VP(), torch.linspace(1, 1e-5, 11)),
    "Interpolant": (ss.Interpolant(), torch.linspace(0.999, 0.001, 11)),
    "Interpolant backwards": (ss.Interpolant(), 1 - torch.linspace(0.001, 0.999, 11)),
    "VE": (ss.VE(), torch.linspace(1, 0, 11)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:at ")
@pytest.mark.parametrize("name", GRIDS)
def test_grids_that_end_at_the_ends_are_taken(name: str) -> None:
    process, times = GRIDS[name]
    oracle = mixture(process)
    exact = times.double().clone()
    exact[0], exact[-1] = process.t_max, process.t_min
    s, right = (ss.sample(oracle, 3, times=grid) for grid in (times, exact))
    assert (s.times[0], s.times[-1]) == (process.t_max, process.t_min)
    assert torch.allclose(s.x, right.x, rtol=1e-6)
    z = process.prior_sample((3, 2), dtype=torch.float64)
    for t_max in (process.t_max, torch.tensor(process.t_max).item()):
        assert torch.equal(
            ss.decode(oracle, z, times=times, t_max=t_max).x, ss.decode(oracle, z, times=times).x
        )
    up = ss.encode(oracle, oracle.data(2), times=times.flip(0))
    assert (up.times[0], up.times[-1]) == (process.t_min, process.t_max)
    rows = ss.sample(oracle, 2, times=times[:, None].expand(-1, 2))
    assert (rows.times[0] == process.t_max).all()
    likelihood = ss.log_likelihood(
        oracle, oracle.data(2), times=times.flip(0), solver="heun", t_min=process.t_min
    )
    assert likelihood.nats.isfinite().all()


def test_ends_of_runs_in_float32_are_taken() -> None:
    oracle = mixture(ss.Interpolant())
    high, low = torch.tensor(0.999).item(), torch.tensor(0.001).item()
    z = torch.randn(2, 2)
    assert torch.equal(
        ss.decode(oracle, z, t_max=high, t_min=low, steps=3).x,
        ss.decode(oracle, z, t_min=0.001, steps=3).x,
    )


def test_times_outside_are_refused_in_digits_that_tell() -> None:
    oracle = mixture(ss.EDM())
    with pytest.raises(
        ValueError,
        match=r"from 0 to 80; leave out the final 0 of other libraries' grids, which the last",
    ):
        ss.sample(
            oracle, 2, times=torch.cat([karras(5, 0.01, 80.0).clamp(max=80), torch.zeros(1)])
        )
    with pytest.raises(ValueError, match=r"in \[0.002, 80\].* reach from 0.00199 to 80"):
        ss.sample(oracle, 2, times=torch.tensor([80.0, 0.00199], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"t_max must lie in \[0.002, 80\].* but is 80.001"):
        ss.decode(oracle, torch.zeros(1, 2), t_max=80.001)
    with pytest.raises(ValueError, match="must start at t_max=70, not at 69.9"):
        ss.decode(oracle, torch.zeros(1, 2), t_max=70.0, times=[69.9, 1.0])
