r"""Runs whose network another library calls: at states it may have changed, and as a sampler of k-diffusion."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.adapters.driven import Drive, calls_of
from scoresde.adapters.schedulers import Meaning
from solvers.network_calls import uncounted

from ..families import family_first
from .cases import mixture
from .test_parity import Calls, exact_digits, peer

ORACLE = mixture(ss.EDM())
MEANING = Meaning(ORACLE.process, "data")
TIMES = torch.tensor([80.0, 20.0, 6.0, 2.0, 0.7, 0.2, 0.05, 0.01])
FIXED = [name for name in solvers.available() if solvers.get(name).fixed and "/" not in name]
WHOLE = [
    name
    for name in FIXED
    if not solvers.get(name).can.block and not isinstance(solvers.get(name), solvers.Foresight)
]


def network(x: Tensor, t: float) -> Tensor:
    with uncounted():  # oracles count their calls, and so would networks
        return ORACLE.denoise(x, torch.full((len(x),), t))


def verb(solver: str, times: Tensor = TIMES) -> Any:
    def run(model: ss.ScoreModel, x: Tensor) -> Tensor:
        model.moments = ORACLE.moments
        return ss.decode(model, x, solver=solver, times=times, seed=3).x

    return run


def driven(solver: str, x: Tensor, change: Any = lambda x, i: x) -> Tensor:
    r"""The loop of a pipeline, which may change its state after each call."""

    calls = calls_of(verb(solver), MEANING, (2,))
    drive = Drive(verb(solver), MEANING, calls, x)
    for i, call in enumerate(calls):
        x = change(drive.tell(network(x, call.t), x), i)
    assert not drive.left
    return x


# ---- states


@pytest.mark.parametrize("solver", family_first(WHOLE))
def test_drives_equal_runs(solver: str) -> None:
    model = ss.NetworkScore(lambda x, t: network(x, float(t[0])), ORACLE.process, "data")
    x = 80 * torch.randn(3, 2)
    assert torch.allclose(driven(solver, x), verb(solver)(model, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", ["ddim", "ancestral", "edm_heun"])
def test_one_step_methods_go_on_from_the_changed_state(solver: str) -> None:
    calls, x = calls_of(verb(solver), MEANING, (2,)), 80 * torch.randn(3, 2)
    i = [k for k, call in enumerate(calls) if call.first][4]  # which belongs to TIMES[4]
    assert calls[i].t == TIMES[4]
    states: dict[int, Tensor] = {}

    def change(x: Tensor, k: int) -> Tensor:
        states[k] = x + 0.3 if k == i - 1 else x
        return states[k]

    found = driven(solver, x, change)
    model = ss.NetworkScore(lambda x, t: network(x, float(t[0])), ORACLE.process, "data")
    right = verb(solver, TIMES[4:])(model, states[i - 1])
    assert torch.allclose(found, right, rtol=1e-9, atol=1e-9)


def test_multistep_methods_remember_through_changes() -> None:
    r"""A step of dpmpp_2m between noise levels s and s' takes a change of the state to s'/s times it."""

    calls, x, k = calls_of(verb("dpmpp_2m"), MEANING, (2,)), 80 * torch.randn(3, 2), 4
    ends = []
    for shift in (0.0, 0.3):
        drive, y, given = Drive(verb("dpmpp_2m"), MEANING, calls, x), x, x
        for i, call in enumerate(calls[: k + 1]):
            given = y + shift if i == k else y
            y = drive.tell(network(y, call.t), given)  # of the state before the change
        ends.append(y)
        drive.close()
    assert torch.allclose(ends[1] - ends[0], 0.3 * TIMES[k + 1].double() / TIMES[k] + 0 * x)


def test_the_last_denoising_is_of_the_changed_state() -> None:
    x, end = 80 * torch.randn(3, 2), len(TIMES) - 1
    seen: list[Tensor] = []

    def change(x: Tensor, k: int) -> Tensor:
        seen.append(x + 0.01 if k == end - 1 else x)
        return seen[-1]

    found = driven("dpmpp_2m", x, change)
    assert torch.allclose(found, network(seen[end - 1], float(TIMES[-1])))


def test_states_within_a_step_belong_together() -> None:
    with pytest.raises(ValueError, match="was changed within a step of several network calls"):
        driven("edm_heun", torch.randn(3, 2), lambda x, k: x + 1 if k == 0 else x)
    with pytest.raises(ValueError, match="changes the state before its first network call"):
        calls_of(verb("edm_churn:amount=10:low=0:high=100", TIMES[1:]), MEANING, (2,))
    with pytest.raises(ValueError, match="use a solver that calls it at the start of a step"):
        calls_of(verb("foresight_1"), MEANING, (2,))


def test_outputs_that_are_not_finite_end_in_an_error() -> None:
    calls, x = calls_of(verb("ddim"), MEANING, (2,)), torch.randn(3, 2)
    drive = Drive(verb("ddim"), MEANING, calls, x)
    with pytest.raises(ValueError, match="an output of the network was not finite"):
        for call in calls:
            x = drive.tell(network(x, call.t) * (torch.nan if abs(call.t - 0.7) < 0.1 else 1), x)


def test_states_of_few_digits_are_kept_in_float32() -> None:
    x = (80 * torch.randn(3, 2)).to(torch.bfloat16)
    calls = calls_of(verb("ddim"), MEANING, (2,))
    drive, y = Drive(verb("ddim"), MEANING, calls, x), x
    for call in calls:
        y = drive.tell(network(y.double(), call.t).to(torch.bfloat16), y)
        assert y.dtype == torch.bfloat16
    model = ss.NetworkScore(
        lambda x, t: network(x.to(torch.bfloat16).double(), float(t[0])).to(torch.bfloat16).to(x),
        ORACLE.process,
        "data",
    )
    assert torch.equal(y, verb("ddim")(model, x.float()).to(torch.bfloat16))


# ---- k-diffusion


def sampled(solver: str, sigmas: Tensor, **options: Any) -> Tensor:
    oracle = exact_digits(ss.EDM())
    sampler = ss.adapters.KDiffusionSampler(solver, **options)
    return sampler(lambda x, sigma: oracle.denoise(x, sigma), peer("start"), sigmas)


@pytest.mark.parametrize(
    ("solver", "theirs"),
    [
        ("ddim", "euler"),
        ("edm_heun", "heun"),
        ("dpm_2", "dpm_2"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("lms", "lms"),
    ],
)
def test_samplers_equal_those_of_k_diffusion(solver: str, theirs: str) -> None:
    sigmas = peer("sigmas")
    assert torch.allclose(sampled(solver, sigmas[:-1]), peer(f"kd/{theirs}/nozero"), atol=1e-10)
    if solver != "lms":  # whose last step is of order 4 there, and a denoising here
        assert torch.allclose(sampled(solver, sigmas), peer(f"kd/{theirs}"), atol=1e-10)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noisy_samplers_equal_those_of_k_diffusion(eta: float) -> None:
    for solver, theirs, convention in (
        ("ancestral", "euler_ancestral", "ddim"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", "k_diffusion"),
    ):
        found = sampled(solver, peer("sigmas"), eta=eta, eta_convention=convention, noise=Calls())
        assert torch.allclose(found, peer(f"kd/{theirs}/eta{eta}"), atol=1e-10)


@pytest.mark.parametrize("solver", ["ddim", "edm_heun", "ancestral", "dpmpp_2m"])
def test_samplers_tell_what_those_of_k_diffusion_tell(solver: str) -> None:
    sigmas, x = torch.tensor([10.0, 3.0, 1.0, 0.1, 0.0]), 10 * torch.randn(3, 2)
    told: list[dict[str, Any]] = []

    def denoiser(x: Tensor, sigma: Tensor, factor: Tensor) -> Tensor:
        return factor * ORACLE.denoise(x, sigma)

    sampler = ss.adapters.KDiffusionSampler(solver)
    extra = {"factor": torch.full((3, 1), 0.9)}
    found = sampler(denoiser, x, sigmas, extra, told.append)
    assert [one["i"] for one in told] == [0, 1, 2, 3]
    assert [float(one["sigma"]) for one in told] == [10.0, 3.0, 1.0, 0.1]
    assert torch.equal(told[0]["x"], x)
    for one in told:
        assert torch.isclose(one["sigma_hat"], one["sigma"])
        right = denoiser(one["x"], one["sigma"].expand(3), **extra)
        assert torch.allclose(one["denoised"], right, rtol=1e-6)
    assert torch.equal(told[-1]["denoised"], found)


def test_samplers_draw_by_the_generator_of_torch() -> None:
    sampler, x = ss.adapters.KDiffusionSampler("ancestral"), 10 * torch.randn(3, 2)
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.1, 0.0])
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sampler(lambda x, sigma: ORACLE.denoise(x, sigma), x, sigmas))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    one = sampler(lambda x, sigma: ORACLE.denoise(x, sigma), x, torch.tensor([0.5, 0.0]))
    assert torch.equal(one, ORACLE.denoise(x, torch.full((3,), 0.5)))


def test_samplers_refuse_what_they_cannot_follow() -> None:
    with pytest.raises(ValueError, match="exponential_sde chooses its own steps"):
        ss.adapters.KDiffusionSampler("exponential_sde")
    with pytest.raises(ValueError, match="takes samples apart"):
        ss.adapters.KDiffusionSampler("lattice_heun:block=2")
    with pytest.raises(ValueError, match="sigmas must be positive noise levels"):
        ss.adapters.KDiffusionSampler("ddim")(lambda x, s: x, torch.ones(1, 2), torch.zeros(2))


# ---- without diffusers


def test_the_scheduler_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "import scoresde\n"
        "try:\n    import scoresde.adapters.diffusers_scheduler\n"
        "except ImportError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.strip().endswith("which is missing: pip install diffusers.")
