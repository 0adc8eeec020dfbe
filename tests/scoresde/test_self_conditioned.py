r"""Models that are given their own last estimate: runs that carry it, and functions of state and time."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers

from .cases import gaussian

FLOAT = {"dtype": torch.float64}
UNIT = 1e-5


class Recalls(nn.Module):
    r"""A network that returns :math:`c x + r \hat x + b`."""

    def __init__(self, c: float = 0.3, r: float = 0.6, b: float = 0.2) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([c, r, b], dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        c, r, b = self.numbers
        return c * x + r * estimate + b


def recalling(
    c: float = 0.02, r: float = 0.6, b: float = 0.2, process: ss.Process | None = None
) -> ss.NetworkScore:
    process = process or ss.EDM()
    return ss.NetworkScore(
        Recalls(c, r, b), process, "data", conditions=["estimate"], shape=(2,), data_scale=0.5
    )


def bent(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
    r"""A network whose rows need steps of different sizes."""

    return 0.25 * x / (0.25 + t[:, None] ** 2) + 0.3 * torch.sin(3 * estimate)


BENT = ss.SelfConditioned(
    ss.NetworkScore(bent, ss.EDM(), "data", conditions=["estimate"], shape=(2,))
)
COUNTS = ss.SelfConditioned(recalling(0.0, 1.0, UNIT))  # the estimate is the number of calls


# ---- by hand


class ByHand:
    r"""The network's calls, each of which is given the estimate of the one before."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.estimate = numbers, torch.zeros((), dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        c, r, b = self.numbers
        self.estimate = c * x + r * self.estimate + b
        return self.estimate


def ddim(D: ByHand, x: Tensor, times: list[float]) -> Tensor:
    for s, t in zip(times, times[1:], strict=False):
        found = D(x)
        x = found + t / s * (x - found)
    return D(x)


def dpmpp_2m(D: ByHand, x: Tensor, times: list[float]) -> Tensor:
    last, before = None, 0.0
    for s, t in zip(times, times[1:], strict=False):
        h, found = math.log(s / t), D(x)
        slope = 0.0 if last is None else (found - last) * h / (2 * before)
        x = t / s * x + (1 - t / s) * (found + slope)
        last, before = found, h
    return D(x)


def heun(D: ByHand, x: Tensor, times: list[float]) -> Tensor:
    for s, t in zip(times, times[1:], strict=False):
        first = (x - D(x)) / s
        second = (x + (t - s) * first - D(x + (t - s) * first)) / t
        x = x + (t - s) * (first + second) / 2
    return D(x)


HANDS = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}


@pytest.mark.parametrize("solver", HANDS)
def test_runs_carry_the_last_estimate(solver: str) -> None:
    inner = recalling()
    s = ss.sample(ss.SelfConditioned(inner), 3, solver=solver, steps=5, path=True, **FLOAT)
    want = HANDS[solver](ByHand(inner.network.numbers), s.path[0], s.times.tolist())
    assert torch.allclose(s.x, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grad", ["backprop", "checkpoint"])
@pytest.mark.parametrize("solver", HANDS)
def test_gradients_flow_through_the_estimates(solver: str, grad: str) -> None:
    inner = recalling()
    s = ss.sample(ss.SelfConditioned(inner), 3, solver=solver, steps=5, grad=grad, **FLOAT)
    numbers = inner.network.numbers
    [found] = torch.autograd.grad(s.x.square().sum(), numbers)
    start = inner.process.prior_sample((3, 2), **FLOAT)
    by_hand = HANDS[solver](ByHand(numbers), start, s.times.tolist())
    [want] = torch.autograd.grad(by_hand.square().sum(), numbers)
    assert torch.allclose(found, want, rtol=1e-10)


FIXED = [
    name
    for name in solvers.available()
    if (can := solvers.get(name).can).fixed and can.stepwise and not can.reversible
]


@pytest.mark.filterwarnings("ignore:in 4 noisy steps")
@pytest.mark.parametrize("solver", FIXED)
def test_each_call_is_given_the_estimate_of_the_call_before(solver: str) -> None:
    model = COUNTS
    if solvers.get(solver).can.form in ("moments", "measured"):
        model, ones = ss.SelfConditioned(recalling(0.0, 1.0, UNIT)), torch.ones(2, 2)
        known = ss.moments(torch.eye(3, 2, dtype=torch.float64))
        model.moments = replace(known, curves=ss.Curves(torch.tensor([80.0, 0.002]), ones, ones))
    s = ss.sample(model, 2, solver=solver, steps=4, **FLOAT)
    assert torch.allclose(s.x / UNIT, s.calls[:, None].double())


@pytest.mark.parametrize(("solver", "first", "each"), [("exponential", 1, 1), ("dopri5", 2, 6)])
def test_rejected_steps_leave_no_estimate(solver: str, first: int, each: int) -> None:
    options = {"rtol": 1e-4, "atol": 1e-4, "first_step": 5.0, "max_step": 5.0}
    s = ss.sample(COUNTS, 3, solver=solver, **options, **FLOAT)
    assert bool((s.rejected > 0).all())
    kept = first + each * s.accepted + 1  # the last denoising
    assert torch.allclose(s.x / UNIT, kept[:, None].double())


# ---- rows, batches, parts of runs


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "exponential", "rtol": 1e-3, "atol": 1e-3},
        {"solver": "dopri5", "rtol": 1e-3, "atol": 1e-3},
        {"solver": "exponential_sde", "rtol": 1e-2, "atol": 1e-2},
        {"solver": "ancestral", "steps": 6},
        {"solver": "dpmpp_2m", "steps": 6},
    ],
)
def test_each_sample_is_that_drawn_alone(options: dict) -> None:
    s = ss.sample(BENT, 5, **options, **FLOAT)
    assert len(s.accepted.unique()) > 1 or "steps" in options  # they end at different steps
    for i in range(5):
        alone = ss.sample(BENT, 1, first_index=i, **options, **FLOAT)
        assert torch.equal(alone.x[0], s.x[i])
        assert alone.calls[0] == s.calls[i]
    assert torch.equal(ss.sample(BENT, 5, batch_size=2, **options, **FLOAT).x, s.x)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "exponential", "rtol": 1e-3, "atol": 1e-3},
        {"solver": "unipc", "steps": 8},
        {"solver": "ancestral", "steps": 8},
    ],
)
@pytest.mark.parametrize("size", [None, 2])
def test_resumed_runs_go_on_with_the_estimate(
    options: dict, size: int | None, tmp_path: Path
) -> None:
    whole = ss.sample(BENT, 4, batch_size=size, **options, **FLOAT)
    seen: list[float] = []

    def stop(event: solvers.Event) -> bool:
        seen.append(event.fraction)
        return len(seen) == (12 if size else 5)

    options = {**options, "seed": 0, **FLOAT}
    part = ss.sample(BENT, 4, batch_size=size, callback=stop, **options)
    assert "stopped" in part.status
    ss.save_solution(tmp_path / "part.npz", part)
    for some in (part, ss.load_solution(tmp_path / "part.npz")):
        rest = ss.resume(BENT, some)
        assert torch.equal(rest.x, whole.x)
        assert torch.equal(rest.calls, whole.calls)


def test_rows_that_were_done_before_an_interruption_keep_their_estimate() -> None:
    options = {"solver": "exponential", "rtol": 1e-3, "atol": 1e-3, **FLOAT}
    whole = ss.sample(BENT, 5, **options)
    few, most = whole.calls.min(), whole.calls.max()
    assert few < most
    part = ss.sample(BENT, 5, max_calls=int(most) - 1, on_failure="partial", **options)
    assert {"ok", "max_calls"} == set(part.status)
    assert torch.equal(ss.resume(BENT, part, max_calls=1000).x, whole.x)


def test_an_unfinished_run_hands_on_its_estimate() -> None:
    inner = recalling()
    s = ss.sample(ss.SelfConditioned(inner), 3, solver="ddim", steps=4, denoise=False, **FLOAT)
    by_hand = ByHand(inner.network.numbers)
    ddim(by_hand, inner.process.prior_sample((3, 2), **FLOAT), s.times[:-1].tolist())
    assert torch.allclose(s.estimate, by_hand.estimate, rtol=0, atol=1e-12)
    assert torch.equal(s.rows([2]).estimate, s.estimate[2:])


def test_runs_share_a_model_but_no_estimate() -> None:
    want = [ss.sample(BENT, 2, steps=4, seed=seed).x for seed in (0, 1)]
    runs = [
        ss.StepByStep(lambda tell, k=k: ss.sample(BENT, 2, steps=4, seed=k, callback=tell))
        for k in (0, 1)
    ]
    for _ in range(5):
        for run in runs:
            next(run, None)
    for run, x in zip(runs, want, strict=True):
        assert torch.equal(run.solution.x, x)


def test_callbacks_see_the_estimate_that_is_carried() -> None:
    inner, seen = recalling(), []
    tell = lambda event: seen.append(event.denoised)
    s = ss.sample(ss.SelfConditioned(inner), 2, steps=3, callback=tell, **FLOAT)
    quiet = ss.sample(ss.SelfConditioned(inner), 2, steps=3, seed=0, **FLOAT)
    assert torch.equal(s.x, quiet.x)
    again = inner.denoise(s.x * 0, s.times[-1], estimate=seen[-1])
    assert torch.allclose(again, 0.6 * seen[-1] + 0.2)


# ---- conditions and guidance


def labelled(x: Tensor, t: Tensor, estimate: Tensor, label: Tensor | None = None) -> Tensor:
    shift = 0.2 if label is None else label[:, None].to(x)
    return 0.3 * x + 0.6 * estimate + shift


def test_a_guided_model_is_given_the_guided_estimate() -> None:
    inner = ss.NetworkScore(
        labelled, ss.EDM(), "data", conditions=["estimate", "label"], shape=(2,)
    )
    guided = ss.SelfConditioned(ss.classifier_free(inner, 3.0, label=1))
    s = ss.sample(guided, 3, solver="ddim", steps=4, **FLOAT)
    numbers = torch.tensor([0.3, 0.6, 0.2 + 3 * (1 - 0.2)], dtype=torch.float64)
    want = ddim(ByHand(numbers), inner.process.prior_sample((3, 2), **FLOAT), s.times.tolist())
    assert torch.allclose(s.x, want, rtol=0, atol=1e-10)
    assert s.calls.tolist() == [10] * 3
    bound = ss.sample(ss.SelfConditioned(inner), 2, solver="ddim", steps=4, label=[1, 2], **FLOAT)
    for row, shift in enumerate((1.0, 2.0)):
        numbers[2] = shift
        start = inner.process.prior_sample((2, 2), **FLOAT)
        want = ddim(ByHand(numbers), start, bound.times.tolist())
        assert torch.allclose(bound.x[row], want[row], rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="guide first, as in"):
        ss.classifier_free(ss.SelfConditioned(inner), 3.0, label=1)


# ---- twice


def twice(oracle: ss.GaussianOracle) -> ss.SelfConditioned:
    r"""The oracle, by a network of which neither call is right alone: 2/3 (1 + 1/2) = 1."""

    def network(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        return 2 / 3 * oracle.denoise(x, t) + estimate / 2

    inner = ss.NetworkScore(
        network, oracle.process, "data", conditions=["estimate"], shape=oracle.shape
    )
    inner.moments = oracle.moments
    return ss.SelfConditioned(inner, "twice")


def test_two_calls_a_denoising_count_in_budgets() -> None:
    r"""Three steps of one call each and the last denoising are four denoisings, of two calls."""

    model, options = ss.SelfConditioned(recalling(), "twice"), {"solver": "ddim", "steps": 3}
    assert ss.sample(model, 2, max_calls=8, **options, **FLOAT).calls.tolist() == [8, 8]
    kept = ss.sample(model, 2, max_calls=7, on_failure="partial", **options, **FLOAT)
    assert set(kept.status) != {"ok"}


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()])
def test_twice_is_a_function_of_state_and_time(process: ss.Process) -> None:
    oracle = gaussian(process)
    model, x = twice(oracle), oracle.data(3).double()
    t = torch.tensor([0.3, 0.5, 0.9]).double()
    assert torch.allclose(model.denoise(x, t), oracle.denoise(x, t), rtol=1e-12)
    assert torch.allclose(model.score(x, t), oracle.score(x, t), rtol=1e-9)
    found, want = (ss.log_likelihood(m, x, rtol=1e-6, atol=1e-6) for m in (model, oracle))
    assert torch.allclose(found.nats, want.nats, atol=1e-6)
    z = ss.encode(model, x, rtol=1e-6, atol=1e-6)
    assert torch.allclose(z.x, ss.encode(oracle, x, rtol=1e-6, atol=1e-6).x, rtol=1e-6)
    assert torch.allclose(ss.decode(model, z, denoise=False).x, process.signal(z.times[0]) * x)


def test_twice_costs_two_calls_and_is_asked_by_any_solver() -> None:
    model = ss.SelfConditioned(recalling(), "twice")
    s = ss.sample(model, 2, solver="torchdiffeq/rk4", steps=3)
    assert s.calls.tolist() == [2 * (3 * 4 + 1)] * 2


# ---- refusals


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: ss.encode(BENT, torch.ones(1, 2)), "encode needs a function of state and time"),
        (lambda: ss.log_likelihood(BENT, torch.ones(1, 2)), "a likelihood needs a function"),
        (lambda: BENT.denoise(torch.ones(1, 2), torch.tensor([1.0])), "a call outside of ss.sample"),
        (lambda: ss.sample(BENT, 2, steps=3, log_density=True), "log_density= needs a function"),
        (lambda: ss.sample(BENT, 2, solver="torchdiffeq/rk4"), "rk4 makes calls of its own"),
        (lambda: ss.sample(BENT, 2, solver="bdia"), "bdia is undone from states alone"),
        (lambda: ss.SelfConditioned(BENT, "carried"), "must take the condition 'estimate', but takes none"),
        (lambda: ss.SelfConditioned(recalling(), "once"), "mode must be 'carried' or 'twice', but is 'once'"),
        (
            lambda: ss.sample(
                ss.NetworkScore(lambda x, t: BENT.denoise(x, t), ss.EDM(), "data", shape=(2,)), 2, steps=3
            ),
            "a call outside of ss.sample",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(asked, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked()


# ---- the loss


def error(
    model: ss.ScoreModel, x: Tensor, log_snr: Tensor, z: Tensor, **condition: Tensor
) -> Tensor:
    t = model.process.time(log_snr.double())
    noisy = model.process.perturb(x, t, z)
    return (model.denoise(noisy, t, **condition) - x).square().mean(1)


def test_a_share_of_samples_is_given_the_first_estimate() -> None:
    c, r, b = 0.3, 0.6, 0.2
    inner = recalling(c, r, b)
    x, z = torch.randn(2, 400, 2, dtype=torch.float64)
    level = torch.linspace(0.1, 2, 400, dtype=torch.float64)
    noisy = x + level[:, None] * z
    plain, given = (
        (first * r + c * noisy + b - x).square().mean(1) for first in (0 * x, c * noisy + b)
    )
    for share, model in ((0.0, inner), (1.0, ss.SelfConditioned(inner)), (0.5, inner)):
        loss = ss.losses.self_conditioned(error, share)
        found = loss(model, x, -level.log(), z, seed=3)
        first = torch.isclose(found, given, rtol=1e-9)
        assert bool((first | torch.isclose(found, plain, rtol=1e-9)).all())
        assert abs(first.double().mean() - share) < 4 * (share * (1 - share) / 400) ** 0.5 + 1e-9
    again, other = (loss(inner, x, -level.log(), z, seed=seed) for seed in (3, 4))
    assert torch.equal(again, found)
    assert not torch.equal(other, found)


def test_each_sample_is_given_the_estimate_of_its_own_condition() -> None:
    def network(x: Tensor, t: Tensor, estimate: Tensor, shift: Tensor) -> Tensor:
        return 0.5 * estimate + shift[:, None]

    inner = ss.NetworkScore(network, ss.EDM(), "data", conditions=["estimate", "shift"])
    shift = torch.arange(1.0, 41.0, dtype=torch.float64)
    zero = torch.zeros(40, 1, dtype=torch.float64)
    loss = ss.losses.self_conditioned(error, 0.5)
    found = loss(inner, zero, zero[:, 0], zero, shift=shift).sqrt() / shift
    assert set(found.tolist()) == {
        1.0,
        1.5,
    }  # without and with the first estimate, which is `shift`


def test_no_gradient_flows_through_the_first_estimate() -> None:
    c, r, b = 0.3, 0.6, 0.2
    inner = recalling(c, r, b)
    x, z = torch.randn(2, 5, 2, dtype=torch.float64)
    found = ss.losses.self_conditioned(error, 1.0)(inner, x, torch.zeros(5), z).sum()
    [slope] = torch.autograd.grad(found, inner.network.numbers)
    noisy = x + z
    first = c * noisy + b
    gap = c * noisy + r * first + b - x
    want = torch.stack([(gap * part).sum() for part in (noisy, first, torch.ones_like(x))])
    assert torch.allclose(slope, want, rtol=1e-9)


def test_bad_shares_and_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], but is 1.5"):
        ss.losses.self_conditioned(error, 1.5)
    with pytest.raises(TypeError, match="loss must be a function, but is a Uncertainty, whose"):
        ss.losses.self_conditioned(ss.losses.Uncertainty())
    with pytest.raises(ValueError, match="must take the condition 'estimate' to be given"):
        ss.losses.self_conditioned(error)(gaussian(ss.EDM()), *torch.zeros(3, 2, 2))
