r"""The fixed cost of a run: what is called on the way to the first network call, counted and never timed."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
from solvers.doors.signatures import checked

ROOT = Path(__file__).parent.parent
OURS = tuple(str(ROOT / package) for package in ("scoresde", "solvers"))
CALLS, FUNCTIONS, FILES = 233, 165, 46  # a little above what there is


def calls_before_the_network(**options: object) -> Counter[tuple[str, str]]:
    r"""The calls of functions of the packages before a network is first called, by file and name."""

    found: Counter[tuple[str, str]] = Counter()

    def network(x: Tensor, t: Tensor) -> Tensor:
        sys.setprofile(None)
        return 0.3 * x

    def called(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            found[code.co_filename, code.co_qualname] += 1

    model = ss.NetworkScore(network, ss.EDM(), "data", shape=(2,), data_scale=0.5)
    ss.sample(model, 1, seed=0, **options)  # type: ignore[arg-type]
    before = sys.getprofile()
    try:
        sys.setprofile(called)
        ss.sample(model, 1, seed=1, **options)  # type: ignore[arg-type]
    finally:
        sys.setprofile(before)
    return found


def test_the_way_to_the_first_network_call_is_short() -> None:
    found = calls_before_the_network(steps=1)
    files = {file for file, _ in found}
    assert any(name == "sample" for _, name in found)
    assert found.total() <= CALLS, found.most_common(9)
    assert len(found) <= FUNCTIONS
    assert len(files) <= FILES


def test_the_way_does_not_grow_with_the_steps() -> None:
    few, many = (calls_before_the_network(steps=steps, grid="rho") for steps in (10, 20))
    grown = {name: (few[name], n) for name, n in many.items() if n > few[name]}
    allowed = {"NetworkScore._bind", "Counter.watch"}  # one closure for each step
    assert {name for _, name in grown} <= allowed, grown


def test_nothing_is_asked_of_a_model_twice() -> None:
    found = calls_before_the_network(steps=1)
    names = Counter[str]()
    for (_, name), count in found.items():
        names[name] += count
    assert names["held_by"] == 1  # the modules within a function
    assert names["as_times"] == 0  # a door that nobody outside has called
    assert names["Settings.method"] == names["Settings.adaptive"] == 1


class Doubled:
    r"""Scales that do not come from a process, for one to inherit."""

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.log(2 * t)


class Mixed(Doubled, ss.EDM):
    r"""The process of :math:`\alpha = 1, \sigma = 2 t`."""

    def time(self, log_snr: Tensor) -> Tensor:
        return (torch.exp(-log_snr) / 2).clamp(self.t_min, self.t_max)


def test_functions_without_doors_are_those_that_a_process_has_or_inherits() -> None:
    process, t = Mixed(ss.Karras(0.01, 10.0)), torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert process.prior_std() == pytest.approx(20, rel=1e-14)  # 2 t at t = 10
    torch.testing.assert_close(process.scales(t)[1], 2 * t, rtol=1e-14, atol=0)
    torch.testing.assert_close(process.bare_time(-torch.log(2 * t)), t, rtol=1e-14, atol=0)
    assert process.noise_level(0.5) == pytest.approx(1, rel=1e-14)


class Trained(ss.EDM):
    r"""The process of :math:`\alpha = 1, \sigma = g t`, whose g changes."""

    gain = 1.0

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.log(self.gain * t)

    def time(self, log_snr: Tensor) -> Tensor:
        return (torch.exp(-log_snr) / self.gain).clamp(self.t_min, self.t_max)


class Slope(ss.Schedule):
    r"""The schedule :math:`\lambda = a (1 - 2 t)`, whose a changes."""

    a = 10.0

    def __call__(self, t: Tensor) -> Tensor:
        return self.a * (1 - 2 * t)

    def inverse(self, log_snr: Tensor) -> Tensor:
        return (1 - log_snr / self.a) / 2


def test_what_may_change_is_worked_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    process, other = Trained(), ss.VE(Slope())
    assert ss.EDM().is_constant
    assert not process.is_constant
    assert not other.is_constant
    assert (process.prior_std(), process.noise_level(0.5)) == pytest.approx((80, 0.5), rel=1e-14)
    assert process.start_of("sampling") == pytest.approx(0.01, rel=1e-12)
    assert other.noise_level(0.25) == pytest.approx(math.exp(-5), rel=1e-14)
    monkeypatch.setattr(Trained, "gain", 2.0)
    monkeypatch.setattr(Slope, "a", 8.0)
    assert (process.prior_std(), process.noise_level(0.5)) == pytest.approx((160, 1.0), rel=1e-14)
    assert process.start_of("sampling") == pytest.approx(0.005, rel=1e-12)
    assert other.noise_level(0.25) == pytest.approx(math.exp(-4), rel=1e-14)


def test_doors_stand_where_the_user_comes_in() -> None:
    process = ss.VP()
    with pytest.raises(ValueError, match=r"^t must be numbers, but holds NaN\.$"):
        process.scales(torch.tensor([0.5, torch.nan]))
    with pytest.raises(TypeError, match=r"^t must be a number, but is None\.$"):
        process.noise_level(None)  # type: ignore[arg-type]


@checked
def taken(count: int | None = None, path: bool | str = False, each: Sequence[int] = ()) -> object:
    r"""What comes through a door."""

    return count, path, each


def test_plain_values_pass_a_door_as_they_are_and_no_others() -> None:
    assert taken(3, path=True, each=[1, 2]) == (3, True, [1, 2])
    assert taken(torch.tensor(3), "a", [np.int64(1)]) == (3, "a", [1])  # type: ignore[arg-type]
    for wrong, message in (
        (2**70, "count must fit into 64 bits"),
        (True, "count must be a whole number"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            taken(wrong)
    with pytest.raises(TypeError, match="each of each must be a whole number, but is None"):
        taken(each=[1, None])  # type: ignore[list-item]
