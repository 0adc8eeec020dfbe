r"""How a run ends: the last denoising is looked at like a step, and so is the size of what came out."""

import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.runs.ending import _ratio
from solvers import SolverError
from solvers.problem import StateField

from .cases import PROCESSES, gaussian

FIXED = {"steps": 6}
TOLERANCES = {"rtol": 1e-2, "atol": 1e-2}
RUNS = {
    "ddim": FIXED,
    "dpmpp_2m": FIXED,
    "heun": FIXED,
    "em": FIXED,
    "torchsde/srk": FIXED,
    "torchdiffeq/rk4": FIXED,
    "torchdiffeq/dopri5": TOLERANCES,
    "exponential": TOLERANCES,
    "dopri5": TOLERANCES,
    "lattice_heun": FIXED,
}


class Ending(ss.ScoreModel):
    r"""A model whose last denoising is another."""

    def __init__(self, model: ss.ScoreModel, factor: float, row: int | None = None) -> None:
        super().__init__()
        self.resemble(model)
        self.conditions, self.model, self.factor, self.row = (), model, factor, row

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        D = self.model.denoise(x, t)
        rows = torch.ones(len(x)) if self.row is None else torch.arange(len(x)) == self.row
        return torch.where(rows[:, None].bool(), self.factor * D, D)

    def combine(self, *arguments: Tensor, **condition: Tensor) -> Sequence[StateField]:
        return self.model.combine(
            *arguments, **condition
        )  # steps ask this, the last denoising does not


def noisy(process: ss.Process) -> ss.GaussianOracle:
    return ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 0.7, process)


def test_sizes_are_held_against_those_of_states_and_of_data_by_turns() -> None:
    process, size = ss.VP(), 0.5
    for t in torch.tensor([0.05, 0.7], dtype=torch.float64):  # the second time, alpha is 0.07
        alpha, sigma = process.scales(t)
        state = (alpha**2 * size**2 + sigma**2).sqrt()
        for _ in range(2):  # what is due is kept
            for clean, due in ((False, state), (True, state / alpha)):
                found = _ratio(process, torch.full((3, 4), 6.0), t, size, clean=clean)
                assert torch.allclose(found.double(), 6 / due.expand(3), rtol=1e-6)


@pytest.mark.parametrize("solver", RUNS)
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_a_last_denoising_that_is_not_finite_fails_like_a_step(solver: str, factor: float) -> None:
    model = Ending(noisy(ss.VP()), factor, row=1)
    options = {"solver": solver, **RUNS[solver], "seed": 1}
    with pytest.raises(
        SolverError, match=r"the last denoising, at t=0.0009164 .*samples \[1\]; raise t_min"
    ):
        ss.sample(model, 3, **options)
    s = ss.sample(model, 3, on_failure="partial", **options)
    assert s.status == ("ok", "nonfinite", "ok")
    before = ss.sample(model, 3, denoise=False, **options)
    whole = ss.sample(noisy(ss.VP()), 3, **options)
    assert torch.equal(s.x[1], before.x[1])  # the last finite state
    assert torch.equal(s.x[::2], whole.x[::2])
    assert torch.equal(s.calls, before.calls + 1)


def test_batches_name_the_samples_of_the_whole_run() -> None:
    model = Ending(noisy(ss.EDM()), torch.nan, row=0)
    s = ss.sample(model, 5, steps=4, batch_size=2, on_failure="partial")
    assert s.status == ("nonfinite", "ok") * 2 + ("nonfinite",)
    with pytest.raises(SolverError, match=r"samples \[0, 2, 4\]"):
        ss.sample(model, 5, steps=4, batch_size=2)


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant", "SubVP"])
def test_absurd_samples_fail_and_large_ones_warn(process: str) -> None:
    oracle = noisy(PROCESSES[process])
    with pytest.raises(SolverError, match=r"10,000 times as large .* for samples \[0, 1\]"):
        ss.sample(Ending(oracle, 1e7), 2, steps=20)
    s = ss.sample(Ending(oracle, 1e7, row=1), 2, steps=20, on_failure="partial")
    assert s.status == ("ok", "diverged")
    with pytest.warns(UserWarning, match="times as large as expected from the size 0.7"):
        assert ss.sample(Ending(oracle, 100.0), 50, steps=20).ok
    silent = ss.sample(Ending(oracle, 10.0), 50, steps=20)
    assert silent.ok


def test_a_network_of_which_nothing_is_known_is_held_against_the_noise() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return x

    right = ss.NetworkScore(network, ss.VP(), "noise", shape=(2,))  # data in 0
    assert ss.sample(right, 20, steps=10).ok
    wrong = ss.NetworkScore(lambda x, t: 300.0 * x, ss.VP(), "score", shape=(2,))  # runs away
    with pytest.raises(SolverError, match=r"times as large|NaN or infinite"):
        ss.sample(wrong, 20, steps=10)


def test_solvers_that_diverge_say_so() -> None:
    for solver, steps in (("torchsde/reversible_heun", 20), ("euler", 3)):
        with pytest.warns(UserWarning, match="times as large"):
            ss.sample(gaussian(ss.VE()), 20, solver=solver, steps=steps)
    with pytest.raises(SolverError, match="10,000 times as large"):
        ss.sample(gaussian(ss.EDM()), 20, solver="ipndm_4", eta=2.0, steps=50)


def silent() -> dict[str, tuple[ss.ScoreModel, dict[str, object]]]:
    tails = ss.MixtureOracle(
        torch.zeros(2, 1),
        torch.tensor([0.1, 300.0]),
        torch.tensor([0.9999, 0.0001]),
        ss.EDM(ss.Karras(0.002, 1e5)),
    )
    far = ss.GaussianOracle(torch.tensor([128.0]), 60.0, process=ss.Interpolant())
    plain = ss.NetworkScore(far.denoise, far.process, "data", shape=(1,))
    return {
        "heavy tails": (tails, {"rtol": 1e-3, "atol": 1e-3}),
        "churn": (noisy(ss.EDM()), {"solver": "edm_churn:amount=20", "steps": 20}),
        "much noise": (noisy(ss.EDM(ss.Karras(0.002, 1e6))), {"steps": 20}),
        "eta": (noisy(ss.VP()), {"solver": "ancestral", "eta": 4.0, "steps": 20}),
        "an unknown scale": (plain, {"steps": 20, "grid": "t"}),
    }


@pytest.mark.parametrize("name", silent())
def test_samples_that_are_right_are_left_alone(name: str) -> None:
    model, options = silent()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            assert ss.sample(model, 500, seed=seed, **options).ok


def test_latents_that_are_given_far_away_may_end_there() -> None:
    oracle = noisy(ss.VP())
    z = 1e5 * oracle.process.prior_sample((3, 2), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = ss.decode(oracle, z, solver="dopri5", rtol=1e-6, atol=1e-6)
        assert s.ok
        assert ss.encode(oracle, s.x, solver="heun", steps=30).ok
    assert s.x.abs().max() > 1e4


def test_a_row_fails_alone_as_it_fails_in_a_batch() -> None:
    model = Ending(noisy(ss.VP()), 1e4)
    options = {"steps": 8, "on_failure": "partial", "seed": 3}
    together = ss.sample(model, 30, **options)
    assert len(set(together.status)) == 2
    for i in range(0, 30, 7):
        alone = ss.sample(model, 1, first_index=i, **options)
        assert alone.status[0] == together.status[i]


def test_an_edit_by_the_difference_of_flows_that_breaks_says_when() -> None:
    oracle = noisy(ss.VP())

    def network(x: Tensor, t: Tensor) -> Tensor:
        bad = (t < 0.02) & (torch.arange(len(x)) == 1)
        return torch.where(bad[:, None], torch.nan, oracle.noise(x, t))

    model = ss.NetworkScore(network, ss.VP(), "noise", shape=(2,))
    x = oracle.data(3)
    with pytest.raises(
        SolverError, match=r"NaN or infinite at t=0.01.* for samples \[1\]"
    ) as caught:
        ss.edit(model, oracle, x, method="flow", noise_level=1.0)
    solution = caught.value.solution
    assert solution is not None
    assert solution.x.isfinite().all()
    assert solution.status == ("stopped", "nonfinite", "stopped")
