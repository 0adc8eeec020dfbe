r"""Strengths of each entry, and edits of edits: what is independent is edited as if it were alone."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss

from .cases import PROCESSES

SOURCE = torch.tensor([-0.4, 0.3, 0.1], dtype=torch.float64)
TARGET = torch.tensor([0.9, -0.5, 0.7], dtype=torch.float64)
NARROW, WIDE = 0.3, 0.6
STRENGTHS = torch.tensor([0.0, 0.55, 0.8], dtype=torch.float64)


def normal(mean: Tensor, std: float, process: ss.Process | None = None) -> ss.GaussianOracle:
    return ss.GaussianOracle(mean, std**2 * torch.eye(len(mean)), process or ss.EDM())


def released(process: ss.Process, times: Tensor, strengths: Tensor, low: float) -> Tensor:
    r"""The first level of a grid at or below that of each strength, which is where an entry is free."""

    span = process.noise_level(process.t_max) / low
    wanted = low * span**strengths
    levels = torch.exp(-process.log_snr(times))
    return torch.stack([levels[levels <= w * (1 + 1e-6)].max() for w in wanted])


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
@pytest.mark.parametrize("per", ["entry", "sample"])
def test_noise_up_to_each_strength_has_its_own_law(process: str, per: str) -> None:
    here = PROCESSES[process]
    model, x = normal(TARGET, WIDE, here), torch.full((6000, 3), 1.5)
    strength = STRENGTHS if per == "entry" else STRENGTHS.repeat(2000)
    options = {"method": "noise", "solver": "exponential_3", "steps": 60}
    e = ss.edit(model, model, x, strength=strength, **options)
    found = e.x if per == "entry" else e.x.reshape(2000, 3, 3)[..., 1]
    low = here.noise_level(float(e.times[-1]))
    level = released(here, e.times, STRENGTHS[1:], low)
    kept = WIDE / (WIDE**2 + level**2).sqrt()  # of the flow from that level down
    mean = (TARGET[1:] if per == "entry" else TARGET[1].expand(2)) * (1 - kept) + kept * 1.5
    assert (found[:, 0] == 1.5).all()
    assert torch.allclose(found[:, 1:].mean(0), mean, atol=0.03)
    assert torch.allclose(found[:, 1:].std(0), kept * level, rtol=0.04)


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_transport_up_to_each_strength_is_its_own_map(process: str) -> None:
    here = PROCESSES[process]
    x = SOURCE + NARROW * torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    pair = normal(SOURCE, NARROW, here), normal(TARGET, WIDE, here)
    e = ss.edit(*pair, x, strength=STRENGTHS, rtol=1e-5, atol=1e-5)
    low = here.noise_level(float(e.times[-1]))
    level = low * (here.noise_level(here.t_max) / low) ** STRENGTHS[1:]
    size = [std / (std**2 + level**2).sqrt() for std in (NARROW, WIDE)]
    up = SOURCE[1:] + (x[:, 1:] - SOURCE[1:]) / size[0]
    assert torch.equal(e.x[:, 0], x[:, 0])
    assert (e.x[:, 1:] - (TARGET[1:] + (up - TARGET[1:]) * size[1])).abs().max() < 2e-3


@pytest.mark.parametrize(("method", "power"), [("flow", 1), ("noise_path", 2)])
def test_shifts_from_each_level_follow_their_recursion(method: str, power: int) -> None:
    here, x = ss.VP(), SOURCE + torch.randn(4, 3)
    pair = normal(SOURCE, WIDE, here), normal(TARGET, WIDE, here)
    own = torch.tensor([0.0, 0.7, 3.0], dtype=torch.float64)
    e = ss.edit(*pair, x, noise_level=own, method=method, steps=12)
    levels, done = torch.exp(-here.log_snr(e.times)).tolist(), torch.zeros(3)
    for s, after in zip(levels, [*levels[1:], 0.0][: len(levels) - power + 1], strict=False):
        gain, ratio = WIDE**2 / (WIDE**2 + s**2), (after / s) ** power
        free = torch.where(s <= own * (1 + 1e-6), 1.0, 0.0)
        done = ratio * done + (1 - ratio) * (gain * done + 1 - gain) * free
    assert 0.05 < done[1] < done[2] - 0.1
    assert torch.allclose(e.x - x, (done * (TARGET - SOURCE)).expand_as(x), atol=1e-8)


def test_a_grid_releases_at_its_first_level_below() -> None:
    pair = normal(SOURCE, NARROW), normal(TARGET, WIDE)
    x = SOURCE + NARROW * torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    error = []
    for steps in (60, 120):
        e = ss.edit(*pair, x, strength=STRENGTHS, solver="exponential_3", steps=steps)
        level = released(ss.EDM(), e.times, STRENGTHS[1:2], 0.002)
        alone = ss.edit(*pair, x, noise_level=float(level), rtol=1e-6, atol=1e-6)
        error.append(float((e.x[:, 1] - alone.x[:, 1]).abs().max()))
    assert error[1] < 0.6 * error[0] < 0.03  # of first order, by the jump of the estimate


@pytest.mark.parametrize("method", ["encode", "noise", "noise_path", "flow"])
def test_one_strength_for_all_entries_is_that_strength(method: str) -> None:
    pair, x = (normal(SOURCE, NARROW), normal(TARGET, WIDE)), SOURCE + torch.randn(3, 3)
    one = ss.edit(*pair, x, strength=0.6, method=method, steps=8)
    all_alike = ss.edit(*pair, x, strength=torch.full((3, 1), 0.6), method=method, steps=8)
    assert torch.allclose(one.x, all_alike.x, atol=1e-12)
    part = ss.edit(*pair, x, strength=STRENGTHS[None], method=method, steps=8)
    alone = ss.edit(*pair, x[1:], strength=STRENGTHS[None], method=method, steps=8, first_index=1) if (
        method != "encode") else ss.edit(*pair, x[1:], strength=STRENGTHS[None], steps=8)  # fmt: skip
    assert torch.allclose(part.x[1:], alone.x, atol=1e-10)


@pytest.mark.parametrize("way", ["replacement", "gradient"])
def test_known_in_part_is_a_strength_of_its_own(way: str) -> None:
    here = ss.EDM()
    model, x = normal(TARGET, WIDE, here), torch.full((4000, 3), 1.5)
    e = ss.inpaint(model, x, 1 - STRENGTHS, method=way, steps=120)
    level = released(here, e.times, STRENGTHS[1:], here.noise_level(float(e.times[-1])))
    kept = WIDE**2 / (WIDE**2 + level**2)  # of the reverse diffusion from that level down
    mean = TARGET[1:] * (1 - kept) + kept * 1.5
    spread = (WIDE**2 * level**2 / (WIDE**2 + level**2) + kept**2 * level**2).sqrt()
    assert torch.equal(e.x[:, 0], x[:, 0])
    assert torch.allclose(e.x[:, 1:].mean(0), mean, atol=0.04)
    assert torch.allclose(e.x[:, 1:].std(0), spread, rtol=0.06)


def test_half_known_lies_between_known_and_free() -> None:
    covariance = torch.tensor([[0.5, 0.4], [0.4, 0.5]])
    model = ss.GaussianOracle(torch.zeros(2), covariance, ss.EDM())
    x = torch.tensor([1.3, 0.0]).expand(3000, 2)
    means = [
        float(ss.inpaint(model, x, torch.tensor([m, 0.0]), steps=40, seed=1).x[:, 0].mean())
        for m in (0.0, 0.3, 0.5, 1.0)
    ]
    assert means == sorted(means)
    assert means[0] == pytest.approx(0.0, abs=0.05)
    assert means[-1] == pytest.approx(1.3)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda p, x: ss.edit(*p, x, strength=torch.zeros(4, 1)), ValueError, "at least one entry above 0"),
    (lambda p, x: ss.edit(*p, x, strength=[0.1, 0.2, 1.5]), ValueError, r"strength must lie on \[0, 1\]"),
    (lambda p, x: ss.edit(*p, x, noise_level=[0.1, -0.2, 1.5]), ValueError, "noise_level must lie at 0 or above"),
    (lambda p, x: ss.edit(*p, x[:3], strength=[0.1, 0.2, 0.3]), ValueError, r"pass strength\[:, None\] for one"),
    (lambda p, x: ss.edit(*p, x, strength=[0.1, 0.2]), ValueError, "one number, one per sample"),
    (lambda p, x: ss.edit(*p, x, strength=[0.1] * 3, method="null"), ValueError, "one number for method='null'"),
    (lambda p, x: ss.edit(*p, x, strength=[0.1] * 3, method="inpaint", known=x > 0), ValueError,
     "pass known= between 0 and 1"),
    (lambda p, x: ss.edit(*p, x, strength=[0.1] * 3, noise_level=1.0), ValueError, "exactly one"),
    (lambda p, x: ss.edit(*p, x, strength="much"), TypeError, "strength must be numbers"),
    (lambda p, x: ss.edit(*p, ss.encode(p[0], x), strength=0.5), ValueError, "holds latents"),
    (lambda p, x: ss.encode(p[0], ss.sample(p[0], 3, steps=2, denoise=False)), ValueError, "in states"),
    (lambda p, x: ss.decode(p[0], ss.edit(*p, x, strength=0.5)), ValueError, "this solution holds data"),
])  # fmt: skip
def test_what_no_edit_can_do_is_told(call: Callable, error: type[Exception], words: str) -> None:
    pair = normal(SOURCE, NARROW), normal(TARGET, WIDE)
    with pytest.raises(error, match=words):
        call(pair, torch.ones(4, 3))


def test_an_edit_of_an_edit_keeps_the_chain(tmp_path: Path) -> None:
    source, target = normal(SOURCE, NARROW), normal(TARGET, WIDE)
    first = ss.edit(source, target, SOURCE + torch.zeros(4, 3), strength=0.5, steps=6)
    second = ss.edit(target, source, first, strength=0.4, method="noise", steps=4)
    assert torch.equal(
        second.x, ss.edit(target, source, first.x, strength=0.4, method="noise", steps=4, seed=0).x
    )
    third = ss.inpaint(source, second[1:], torch.tensor([1, 0, 0]), steps=4)
    z = ss.encode(source, third, steps=60)
    ss.save_latents(tmp_path / "z.npz", z)
    made = ss.load_latents(tmp_path / "z.npz").provenance
    chain = []
    while "origin" in made:
        made = made["origin"]
        chain.append(made.get("edit"))
    assert chain == [None, "noise", "encode"]
    assert torch.allclose(ss.decode(source, z, denoise=False).x, third.x, atol=0.05)
    plain = [
        ss.log_likelihood(source, given, solver="heun", steps=8, nodes=8).nats
        for given in (third, third.x)
    ]
    assert torch.equal(*plain)
    assert "origin" not in first.provenance
    assert math.isfinite(ss.metrics.energy_distance(first, second))


def test_samples_that_failed_are_no_data() -> None:
    model = normal(SOURCE, NARROW)
    s = ss.sample(model, 3, rtol=1e-4, atol=1e-4, max_calls=9, on_failure="partial")
    with pytest.raises(ValueError, match=r"samples \[0, 1, 2\] of this solution did not reach"):
        ss.encode(model, s)
