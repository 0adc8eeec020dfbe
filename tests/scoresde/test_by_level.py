r"""Noise and guidance whose amount depends on the noise level or on the sample."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance
from scoresde.reverse.amounts import ByRow
from scoresde.reverse.linear_part import Frame, make_noise

STD = 0.5
GAUSS = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), STD)
MIXTURE = ss.MixtureOracle(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64), 0.3, process=ss.VP()
)
OPTIONS: dict[str, Any] = {"seed": 3, "dtype": torch.float64}
ROWS = [0.0, 0.3, 0.7, 1.0, 0.5]
FAMILIES = ("ancestral", "er_sde", "sa", "dpmpp_sde", "dpm_2_ancestral", "em", "sra1", "dpmpp_2m")


def rising(level: Tensor) -> Tensor:
    return 0.3 + level / (1 + level)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_step_has_the_integral_of_eta_squared(power: float) -> None:
    s, t = torch.tensor([-1.0, 0.2]).double(), torch.tensor([0.2, 1.1]).double()
    noise = make_noise("constant", lambda level: 0.7 * level**power, "canonical")(s, t)
    want = 0.49 * (torch.exp(-2 * power * s) - torch.exp(-2 * power * t)) / (2 * power)
    torch.testing.assert_close(noise, want, rtol=1e-12, atol=0)
    squared = make_noise("constant", lambda level: 0.49 * level ** (2 * power), "k_diffusion")
    torch.testing.assert_close(squared(s, t), want, rtol=1e-12, atol=0)
    mean = want / (t - s)
    ddim = make_noise("constant", lambda level: 0.1 * level**power, "ddim")(s, t)
    added = 1 - torch.exp(-2 * ddim)  # over that of eta = 1
    torch.testing.assert_close(
        added, mean / 49 * (1 - torch.exp(-2 * (t - s))), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("profile", ["constant", "er_sde", "sa"])
def test_gaussian_marginals_are_kept_by_any_amount(profile: str) -> None:
    s, t = torch.tensor([-1.0, 0.2]).double(), torch.tensor([0.2, 1.1]).double()
    frame = Frame(ss.EDM(), torch.tensor([0.3]).double(), make_noise(profile, rising, "canonical"))
    before, after = (0.3 + torch.exp(-2 * u)[:, None] for u in (s, t))
    kept = frame.decay(s, t) ** 2 * before + frame.noise_std(s, t) ** 2
    torch.testing.assert_close(kept, after, rtol=1e-13, atol=0)
    assert bool((frame.noise_std(s, t) > 0).all())


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("variance", [0.0, 0.3, math.inf])
@pytest.mark.parametrize("profile", ["constant", "er_sde", "sa"])
def test_a_linear_part_solves_its_equation(profile: str, variance: float, eta: float) -> None:
    s, t = torch.tensor(-1.0).double(), torch.tensor(0.4).double()
    noise = make_noise(profile, eta, "canonical")
    frame = Frame(ss.EDM(), torch.tensor([variance]).double(), noise)
    rate = 0.0 if noise is None else float(noise(s, t) / (t - s))  # the mean of eta^2
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))

    def integral(low: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        half = (t - low)[..., None] / 2
        return (function(low[..., None] + half * (nodes + 1)) * half * weights).sum(-1)

    def shrink(u: Tensor) -> Tensor:  # the rate at which the state shrinks
        return (1 + rate) * torch.exp(-2 * u) / (variance + torch.exp(-2 * u))

    def decay(u: Tensor) -> Tensor:
        return torch.exp(-integral(u, shrink))

    torch.testing.assert_close(frame.decay(s, t)[0], decay(s), rtol=1e-11, atol=0)
    u = torch.tensor([-0.7, 0.1]).double()
    unit = (variance + torch.exp(-2 * u)).sqrt() if variance < math.inf else torch.ones(2)
    want = (1 + rate) * torch.exp(-u) / unit * decay(u)
    found = frame.weight(u, s.expand(2), t.expand(2))[:, 0]
    torch.testing.assert_close(found, want, rtol=1e-11, atol=0)
    added = integral(s, lambda u: 2 * rate * torch.exp(-2 * u) * decay(u) ** 2)
    torch.testing.assert_close(frame.noise_std(s, t)[0], added.sqrt(), rtol=1e-11, atol=1e-15)
    a, b = frame.remainder(u)
    share = 1 / (1 + torch.exp(-2 * u) / variance) if variance else torch.zeros(2).double()
    torch.testing.assert_close(b[:, 0], unit * torch.exp(u))
    torch.testing.assert_close(a[:, 0], -share * b[:, 0])  # so it is 0 for normal data
    still = Frame(ss.EDM(), frame.variances, make_noise(profile, 0.0, "canonical"))
    assert torch.equal(frame.quiet.decay(s, t), still.decay(s, t))
    assert torch.equal(frame.quiet.noise_std(s, t), torch.zeros(1).double())
    if variance == 0:  # a time so much less noisy that the noise leads back to t
        left = torch.exp(-2 * frame.beyond(s, t))
        torch.testing.assert_close(left + added, torch.exp(-2 * t), rtol=1e-11, atol=0)


def test_the_noise_of_er_sde_shrinks_states_by_the_ratio_of_phi() -> None:
    def phi(level: Tensor) -> Tensor:
        return level * (torch.exp(level**0.3) + 10)

    s, t = torch.tensor([-3.0, 0.2]).double(), torch.tensor([-1.0, 1.1]).double()
    frame = Frame(ss.EDM(), torch.zeros(1).double(), make_noise("er_sde", 1.0, "canonical"))
    want = phi(torch.exp(-t)) / phi(torch.exp(-s))
    torch.testing.assert_close(frame.decay(s, t)[:, 0], want, rtol=1e-13, atol=0)


def test_steps_of_euler_maruyama_have_the_amount_at_their_start() -> None:
    times = torch.tensor([5.0, 2.0, 1.0, 0.4], dtype=torch.float64)
    start = torch.linspace(-4, 4, 6, dtype=torch.float64).reshape(3, 2)
    z = torch.linspace(-1, 1, 18, dtype=torch.float64).sin().reshape(3, 3, 2)
    options: dict[str, Any] = {"t_max": 5.0, "times": times, "noise": z, "denoise": False}
    for eta in (rising, [0.0, 0.5, 1.5]):
        found = ss.decode(GAUSS, start, solver="em", eta=eta, **options).x
        x = start
        for t, stop, normal in zip(times[:-1], times[1:], z, strict=True):
            e = rising(t) if callable(eta) else torch.tensor(eta, dtype=torch.float64)[:, None]
            D = STD**2 / (STD**2 + t**2) * x
            x = x - (1 + e**2) / t * (D - x) * (stop - t)
            x = x + e * (2 * t).sqrt() * (t - stop).sqrt() * normal
        torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "steps"), [("ancestral", 250), ("em", 300), ("torchsde/srk", 150)]
)
def test_gaussian_samples_have_their_deviation_with_any_amount(solver: str, steps: int) -> None:
    def middle(level: Tensor) -> Tensor:
        return 1.5 * torch.exp(-((level.log()) ** 2))

    s = ss.sample(GAUSS, 3000, solver=solver, steps=steps, grid="log_snr", eta=middle, denoise=False,
                  clock="log_snr" if solver != "ancestral" else None)  # fmt: skip
    assert abs(float(s.x.std()) / STD - 1) < 0.04


@pytest.mark.parametrize("convention", ["ddim", "k_diffusion"])
def test_amounts_per_sample_follow_the_convention(convention: str) -> None:
    options = {"solver": "ddim", "steps": 4, "eta_convention": convention, **OPTIONS}
    rows = ss.sample(MIXTURE, 5, eta=ROWS, **options).x
    single = [ss.sample(MIXTURE, 1, eta=e, first_index=i, **options).x for i, e in enumerate(ROWS)]
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("solver", FAMILIES)
def test_amounts_that_are_constant_or_per_sample_are_those_of_numbers(solver: str) -> None:
    options = {"solver": solver, "steps": 5, **OPTIONS}
    number = ss.sample(MIXTURE, 5, eta=0.7, **options).x
    assert torch.equal(number, ss.sample(MIXTURE, 5, eta=lambda level: 0.7, **options).x)
    rows = ss.sample(MIXTURE, 5, eta=ROWS, **options)
    assert torch.equal(
        rows.x, ss.sample(MIXTURE, 5, eta=torch.tensor(ROWS).double(), batch_size=2, **options).x
    )
    single = [ss.sample(MIXTURE, 1, eta=e, first_index=i, **options).x for i, e in enumerate(ROWS)]
    torch.testing.assert_close(rows.x, torch.cat(single), rtol=1e-13, atol=1e-13)
    one = ss.sample(MIXTURE, 1, eta=ROWS[3:4], first_index=3, **options).x
    assert torch.equal(rows.x[3:4], one)
    assert rows.provenance["eta"] == ROWS


def test_adaptive_noise_takes_amounts_by_level_and_by_sample() -> None:
    options = {"solver": "exponential_sde", "rtol": 0.05, "atol": 0.05, **OPTIONS}
    number = ss.sample(MIXTURE, 5, eta=0.7, **options).x
    assert torch.equal(number, ss.sample(MIXTURE, 5, eta=lambda level: 0.7, **options).x)
    rows = ss.sample(MIXTURE, 5, eta=ROWS, **options).x
    single = [ss.sample(MIXTURE, 1, eta=e, first_index=i, **options).x for i, e in enumerate(ROWS)]
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-13, atol=1e-13)
    sized = ss.sample(GAUSS, 200, eta=rising, **options, denoise=False).x
    assert abs(float(sized.std()) / STD - 1) < 0.15


@pytest.mark.parametrize("solver", ["ancestral", "em", "dpm_2_ancestral"])
def test_noise_that_stops_at_a_level_is_a_run_in_two_pieces(solver: str) -> None:
    options = {"solver": solver, "denoise": False, **OPTIONS}
    times = ss.sample(MIXTURE, 1, solver=solver, steps=8).times
    at, level = float(times[4]), MIXTURE.process.noise_level(float(times[4]))

    def stopping(levels: Tensor) -> Tensor:
        return torch.where(levels > level * (1 + 1e-9), 1.0, 0.0)

    whole = ss.sample(MIXTURE, 4, times=times, eta=stopping, **options).x
    above = ss.sample(MIXTURE, 4, times=times[:5], eta=1.0, **options).x
    below = ss.decode(MIXTURE, above, t_max=at, times=times[4:], eta=0.0, **options).x
    torch.testing.assert_close(whole, below, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(
        whole, ss.sample(MIXTURE, 4, times=times, eta=1.0, **options).x, atol=1e-3
    )


def test_the_reverse_sde_has_amounts_by_level_and_by_row() -> None:
    t, x = torch.tensor(2.0, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    sde = ss.reverse_sde(GAUSS, rising)
    same = ss.reverse_sde(GAUSS, float(rising(t)))
    torch.testing.assert_close(sde.drift(t, x), same.drift(t, x))
    assert float(sde.diffusion(t)) == pytest.approx(float(rising(t)) * 2)
    rows = ss.reverse_sde(GAUSS, [0.0, 0.5, 1.0])
    want = torch.cat([ss.reverse_sde(GAUSS, e).drift(t, x[:1]) for e in (0.0, 0.5, 1.0)])
    torch.testing.assert_close(rows.drift(t, x), want)
    own = ss.NonlinearProcess(lambda x, t: -x, torch.ones_like)
    score = ss.NetworkScore(lambda x, t: -x, own, "score", shape=(2,))
    flow = ss.reverse_sde(score, [0.0, 1.0, 2.0]).drift(t / 4, x)
    torch.testing.assert_close(flow[:, 0], -1 + (1 + torch.tensor([0.0, 1.0, 4.0]).double()) / 2)
    with pytest.raises(ValueError, match="eta is a function of the noise level, which"):
        ss.reverse_sde(score, rising)


@pytest.mark.parametrize(
    ("eta", "words"),
    [
        (-1.0, "eta must be a finite number >= 0"),
        (float("nan"), "eta must be a finite number"),
        ([0.1, -1.0], "each of eta must be a finite number >= 0"),
        ([0.1, float("nan")], "eta must be finite"),
        ([[1.0, 1.0]], "one number per sample with shape"),
        ([0.1, 0.2, 0.3], "eta must be one number or have 2 entries, one per sample, not 3"),
        ("much", "eta must be a number"),
        (lambda level: -level, "eta must be at least 0 at all noise levels"),
        (lambda level: level * float("nan"), "eta must be finite at all noise levels"),
        (lambda level: torch.ones(7), "eta must return numbers of the shape of the noise levels"),
    ],
)
def test_amounts_that_are_none_are_refused(eta: object, words: str) -> None:
    for solver in ("em", "ancestral"):
        with pytest.raises((ValueError, TypeError), match=words):
            ss.sample(GAUSS, 2, solver=solver, steps=3, eta=eta)  # type: ignore[arg-type]


def test_what_cannot_have_several_amounts_says_so() -> None:
    x = torch.zeros(2, 2)
    several: dict[str, Any] = {"eta": [1.0, 0.5]}
    with pytest.raises(ValueError, match="one amount of noise"):
        ss.sample(GAUSS, 2, solver="torchsde/euler", steps=3, **several)
    with pytest.raises(ValueError, match="a noise path needs one eta"):
        ss.encode_noise(GAUSS, x, **several)
    with pytest.raises(ValueError, match="a trajectory has one eta"):
        ss.geometry.follow(GAUSS, 2, solver="em", steps=3, **several)
    with pytest.raises(ValueError, match="eta of a plan must be one number"):
        ss.Plan({"solver": "em", "steps": 3, "eta": rising})
    with pytest.raises(ValueError, match="eta=rising has no effect on heun"):
        ss.sample(GAUSS, 2, solver="heun", steps=3, eta=rising)
    assert ss.sample(GAUSS, 2, solver="em", steps=3, eta=rising).provenance["eta"] == "rising"
    assert [bool(ByRow(values)) for values in ((0.0, 0.0), (0.0, 1.0))] == [False, True]


def test_a_noise_path_by_level_leads_to_the_data() -> None:
    x = torch.tensor([[0.5, -0.25], [1.0, 0.0]], dtype=torch.float64)
    path = ss.encode_noise(MIXTURE, x, eta=rising, steps=5)
    torch.testing.assert_close(path.replay(MIXTURE).x, x, rtol=1e-9, atol=1e-9)


WIDE = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 1.0, process=ss.VP())
RULES: dict[str, Callable[[Any], ss.ScoreModel]] = {
    "classifier_free": lambda w: ss.classifier_free(MIXTURE, w, label=torch.tensor([1])),
    "autoguidance": lambda w: guidance.autoguidance(MIXTURE, WIDE, w),
    "product": lambda w: guidance.product(WIDE, [MIXTURE, WIDE], [w, 0.5]),
    "adaptive_projected": lambda w: guidance.adaptive_projected(MIXTURE, WIDE, w, norm=1.0),
    "zero_star": lambda w: guidance.zero_star(MIXTURE, WIDE, w),
    "classifier": lambda w: guidance.classifier(WIDE, lambda x, t: -x.square().sum(1), w),
    "universal": lambda w: guidance.universal(WIDE, lambda D: D.square().sum(1), w),
}
ENDS: dict[str, dict[str, Any]] = {
    "steps": {"solver": "heun", "steps": 4},
    "tolerances": {"rtol": 0.05, "atol": 0.05},
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("name", RULES)
def test_scales_that_are_constant_or_per_sample_are_those_of_numbers(name: str, ends: str) -> None:
    rule, options = RULES[name], {**ENDS[ends], **OPTIONS}
    scales = [0.3, 1.7, 2.0]
    number = ss.sample(rule(1.7), 3, **options)
    constant = ss.sample(rule(lambda level: 1.7), 3, **options)
    assert torch.equal(number.x, constant.x)
    assert torch.equal(number.calls, constant.calls)
    rows = ss.sample(rule(torch.tensor(scales).double()), 3, **options).x
    single = [ss.sample(rule(w), 1, first_index=i, **options).x for i, w in enumerate(scales)]
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(rows[0], number.x[0], atol=1e-3)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("name", RULES)
def test_a_scale_that_jumps_is_guidance_within_an_interval(name: str, ends: str) -> None:
    rule, options = RULES[name], {**ENDS[ends], **OPTIONS}
    off = 0.0 if name in ("classifier", "universal") else 1.0

    def jumping(level: Tensor) -> Tensor:
        return torch.where((level >= 0.3) & (level < 3.0), 1.7, off)

    found = ss.sample(rule(jumping), 3, **options).x
    within = guidance.within(rule(1.7), rule(off), (0.3, 3.0))
    torch.testing.assert_close(found, ss.sample(within, 3, **options).x, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, ss.sample(rule(1.7), 3, **options).x, atol=1e-3)


def test_scales_by_level_cost_what_they_call_and_have_likelihoods() -> None:
    calls: list[float] = []

    def late(level: Tensor) -> Tensor:
        return torch.where(level < 1.0, 1.5, 1.0)

    strong, weak = (
        ss.NetworkScore(lambda x, t, f=f: calls.append(f) or f * x, ss.VP(), "data", shape=(2,))
        for f in (0.3, 0.2)
    )
    s = ss.sample(guidance.autoguidance(strong, weak, late), 2, solver="ddim", steps=8)
    levels = torch.exp(-ss.VP().log_snr(s.times))
    assert calls.count(0.3) == len(levels)
    assert calls.count(0.2) == int((levels < 1.0).sum())
    x = torch.tensor([[0.5, -0.25], [1.0, 0.0]], dtype=torch.float64)
    options: dict[str, Any] = {"solver": "heun", "steps": 8, "nodes": 16}
    for name in ("autoguidance", "adaptive_projected"):
        number, constant = (
            ss.log_likelihood(RULES[name](w), x, **options).nats for w in (1.7, lambda level: 1.7)
        )
        torch.testing.assert_close(number, constant, rtol=1e-12, atol=0)
        z = ss.encode(RULES[name](rising), x)
        torch.testing.assert_close(
            ss.decode(RULES[name](rising), z, denoise=False).x, x, rtol=0, atol=1e-3
        )


@pytest.mark.parametrize(
    "name", ["autoguidance", "product", "adaptive_projected", "zero_star", "universal"]
)
def test_scales_that_are_none_are_refused(name: str) -> None:
    for scale in (float("nan"), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="must be a finite number, or one per sample"):
            RULES[name](scale)
    with pytest.raises(ValueError, match="must be finite at all noise levels"):
        ss.sample(RULES[name](lambda level: level * float("nan")), 2, steps=2)


def test_a_condition_that_changes_at_a_level_is_that_of_experts() -> None:
    process = ss.VP()
    low, high = (MIXTURE.given(label=torch.tensor([i])) for i in (0, 1))
    both = guidance.experts([low, high], [1.0])
    x = torch.tensor([[0.5, -0.25]], dtype=torch.float64)
    for level, want in ((0.5, low), (2.0, high)):
        t = torch.tensor([process.at_noise_level(level)], dtype=torch.float64)
        assert torch.equal(both.denoise(x, t), want.denoise(x, t))


@pytest.mark.parametrize(
    "function",
    [lambda level: 2.0 if level > 1 else 0.0, lambda level: math.exp(-level)],
)
def test_a_function_of_single_numbers_says_that_it_gets_tensors(function: Any) -> None:
    says = r"with a tensor of noise levels, here \d+ of them, .*torch.where\(level > 1"
    with pytest.raises(ValueError, match=f"eta is called {says}"):
        ss.sample(GAUSS, 2, solver="ancestral", steps=4, eta=function)
    guided = ss.classifier_free(MIXTURE, function, label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=f"scale is called {says}"):
        ss.sample(guided, 2, steps=4)


@pytest.mark.parametrize("returned", ["two", None])
def test_a_function_that_returns_no_numbers_is_named(returned: object) -> None:
    with pytest.raises(TypeError, match="eta must return numbers, but its function returned"):
        ss.sample(GAUSS, 2, solver="ancestral", steps=4, eta=lambda level: returned)
