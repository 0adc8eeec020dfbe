r"""Noise in plans: one eta per step, and a search that adds noise where it brings samples closer to data."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde.adapters.recipe import Recipe, plain_plan
from scoresde.reverse.amounts import ByStep, amount_over
from scoresde.tuning import noisy as decides
from scoresde.tuning.noisy import _search as moves

from .cases import PROCESSES, gaussian, mixture

NOISY = ("ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "er_sde", "em", "sra1")


def levels_of(process: ss.Process) -> tuple[float, ...]:
    top = process.noise_level(process.t_max)
    return (top, 2.0, 1.0, 0.5, 0.2)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of too few steps
@pytest.mark.parametrize("name", NOISY)
def test_equal_amounts_are_one_and_none_are_the_flow(name: str) -> None:
    for process in (ss.VP(), ss.EDM(), ss.Interpolant()):
        oracle, levels = mixture(process), levels_of(process)
        for amount in (0.0, 0.7, 1.0):
            one, several = (
                ss.sample(oracle, 3, plan=ss.Plan({"solver": name, "eta": eta}, levels)).x
                for eta in (amount, [amount] * 4)
            )
            assert torch.equal(one, several)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_each_step_has_its_own_amount(process: ss.Process) -> None:
    oracle, levels, eta = gaussian(process), levels_of(process), (0.5, 0.0, 1.2, 0.3)
    options = {"solver": "ancestral", "seed": 3, "denoise": False, "dtype": torch.float64}
    plan = ss.Plan({"solver": "ancestral", "eta": list(eta), "denoise": False}, levels)
    whole = ss.sample(oracle, 3, plan=plan, seed=3, dtype=torch.float64)
    times = whole.times
    x = oracle.process.prior_sample((3, 2), seed=3, dtype=torch.float64)
    for i, amount in enumerate(eta):
        part = {"times": times[i : i + 2], "t_max": float(times[i]), "eta": amount}
        x = ss.decode(oracle, x, **options, **part).x
    torch.testing.assert_close(whole.x, x, rtol=1e-10, atol=1e-10)
    assert whole.provenance["eta"] == list(eta)


def test_amounts_of_steps_change_where_the_steps_meet() -> None:
    amounts = ByStep((10.0, 3.0, 1.0, 0.1), (0.1, 0.2, 0.3))
    found = amounts(torch.tensor([20.0, 10.0, 3.1, 3.0, 1.5, 1.0, 0.2, 0.1, 0.01]))
    want = torch.tensor([0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3], dtype=torch.float64)
    assert torch.equal(found, want)
    for off in (-1e-9, 1e-9):  # of a level that went through a clock and back
        assert amounts(torch.tensor([3.0, 1.0]).double() * (1 + off)).tolist() == [0.2, 0.3]
    ends = -torch.tensor([10.0, 3.0, 1.0, 0.1], dtype=torch.float64).log()
    assert amount_over(amounts, ends[:-1], ends[1:]).tolist() == [0.1, 0.2, 0.3]


def test_a_file_holds_one_amount_per_step(tmp_path: Path) -> None:
    plan = ss.Plan({"solver": "ancestral", "eta": [1.0, 0.0, 0.5]}, (10.0, 3.0, 1.0, 0.1))
    loaded = ss.Plan.load(plan.save(tmp_path / "plan.json"))
    assert (loaded.options, loaded.noise_levels) == (plan.options, plan.noise_levels)
    assert str(plan) == "ancestral (3 steps of its own, one eta per step)"
    for options, noisy in (
        ({"solver": "ancestral"}, True),
        ({"solver": "ancestral", "eta": [0.0, 0.0]}, False),
        ({"solver": "ddim", "eta": [0.0, 0.1]}, True),
        ({"solver": "ddim"}, False),
        ({"solver": "edm_churn"}, True),
    ):
        assert ss.Plan(options, (10.0, 1.0, 0.1)).noisy == noisy


def test_a_scheduler_takes_amounts_of_steps_for_steps_not_samples() -> None:
    plan = ss.Plan({"solver": "ancestral", "eta": [1.0, 0.5]}, (10.0, 1.0, 0.1))
    recipe = Recipe(plan=plain_plan(plan))
    assert recipe._options["eta"] == ByStep((10.0, 1.0, 0.1), (1.0, 0.5))


def test_amounts_that_fit_no_steps_get_a_sentence() -> None:
    levels = (10.0, 3.0, 1.0, 0.1)
    bad = [(None, [1.0, 0.5], "eta of a plan has 2 entries, one per step, which need the steps"),
           (levels, [1.0, 0.5], "one for each of the 3 steps between its noise_levels, but has 2"),
           (levels, [1.0, -0.5, 0.0], "each of eta must be a finite number >= 0"),
           (levels, [1.0, "a", 0.0], "each of eta of a plan must be a number, but is 'a'"),
           (levels, [1.0, math.nan, 0.0], "each of eta of a plan must be a number, but is nan"),
           (levels, [1.0, None, 0.0], "each of eta of a plan must be a number, but is None"),
           (levels, torch.ones(3), "eta of a plan must be one number, or a list with one per step")]  # fmt: skip
    for where, eta, words in bad:
        with pytest.raises((ValueError, TypeError), match=words):
            ss.Plan({"solver": "ancestral", "eta": eta}, where)


class Biased(ss.ScoreModel):
    r"""Exact data of unit variance, with an error of its mean at noise levels above 2."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 1.0, ss.EDM())
        self.resemble(self.exact)

    def denoise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.exact.denoise(x, t) + 2 * (t > 2).to(x)[:, None]


SEARCH = {"metric": "energy", "samples": 200, "held_out": 400, "reference_tolerance": 1e-2,
          "grids": ["log_snr"], "stochastic": True, "progress": False}  # fmt: skip


def test_noise_corrects_a_bias_as_it_should() -> None:
    r"""Below the noise level s, an offset shrinks by (l / (l + s^2))^((1 + eta^2) / 2)."""

    model, levels = Biased(), torch.logspace(1.903, -2, 400, dtype=torch.float64)
    shifts = []
    for eta in (0.0, 0.5, 1.0):
        etas = [eta if level <= 2 else 0.0 for level in levels[:-1].tolist()]
        plan = ss.Plan({"solver": "dpmpp_2m", "eta": etas}, tuple(levels.tolist()))
        exact, rough = (ss.sample(m, 4, plan=plan).x for m in (model.exact, model))
        shifts.append((rough - exact).mean().item())
    for shift, eta in zip(shifts[1:], (0.5, 1.0), strict=True):
        assert shift / shifts[0] == pytest.approx((1 / 5) ** (eta**2 / 2), rel=0.05)


def test_a_search_adds_noise_where_a_score_is_rough() -> None:
    model = Biased()
    data = model.exact.data(600, seed=7)
    plan = ss.tune(model, 8, data=data, solvers=["dpmpp_2m"], **SEARCH)
    (mine, stderr), before = (entry["distances"]["energy"] for entry in (
        plan.figures, plan.figures["best before"][0]))  # fmt: skip
    assert plan.noisy
    assert plan.figures["calls"] == 8
    assert not plan.figures["error"]
    assert mine + 3 * stderr < before[0]
    found = ss.sample(model, 400, plan=plan, seed=1, dtype=torch.float64).x
    held_out = data[torch.randperm(600, generator=torch.Generator().manual_seed(0))[1::2]]
    assert ss.metrics.energy_distance(found, held_out) == pytest.approx(mine, rel=1e-6)


def best_of(plan: ss.Plan, value: Callable[[ss.Plan], float]) -> ss.Plan:
    r"""The last plan of a search for the least value."""

    search = moves(plan)
    asked = next(search)
    try:
        while True:
            asked = search.send(value(asked))
    except StopIteration as end:
        return end.value[-1]


def test_a_search_moves_each_amount_to_its_best() -> None:
    want = torch.tensor([0.0, 0.5, 1.0, 0.0])
    for solver in ("ddim", "ancestral"):

        def value(plan: ss.Plan) -> float:
            eta = plan.options.get("eta", float(plan.solver.stochastic))
            return (torch.as_tensor(eta) - want).square().sum().item()

        found = best_of(ss.Plan({"solver": solver}, (80.0, 10.0, 1.0, 0.1, 0.01)), value)
        eta = torch.tensor(found.options["eta"])
        assert torch.allclose(eta, want, atol=0.01, rtol=0.2)  # moves are by factors of 1.4
        assert found.options["noise"] == "path"  # the same at every try


@pytest.mark.parametrize(("solver", "amount"), [("ddim", 0.7), ("ancestral", 0.3)])
def test_a_search_starts_from_one_amount_for_all_steps(solver: str, amount: float) -> None:
    def value(plan: ss.Plan) -> float:  # no step gains by its own amount alone
        eta = torch.as_tensor(plan.options.get("eta", float(plan.solver.stochastic)))
        return 0.0 if bool((eta == amount).all()) else 1.0

    found = best_of(ss.Plan({"solver": solver}, (80.0, 10.0, 1.0, 0.1, 0.01)), value)
    assert found.options["eta"] == [amount] * 4


def test_a_search_moves_the_window_of_churn() -> None:
    want = {"amount": 10.0, "low": 0.2, "high": 5.0}

    def value(plan: ss.Plan) -> float:
        now = {name: max(getattr(plan.solver, name), 1e-3) for name in want}
        return sum(math.log(now[name] / wanted) ** 2 for name, wanted in want.items())

    found = best_of(ss.Plan({"solver": "edm_churn"}, (80.0, 10.0, 0.1)), value)
    for name, wanted in want.items():
        assert abs(math.log(getattr(found.solver, name) / wanted)) < math.log(1.5)
    assert isinstance(found.options["solver"], str)  # which a file can hold


def test_noise_is_judged_by_distances_alone() -> None:
    oracle = mixture(ss.VP())
    data = oracle.data(50)
    with pytest.raises(ValueError, match="stochastic=True is for a distance to data"):
        ss.tune(oracle, 5, stochastic=True)
    with pytest.raises(ValueError, match="cannot be combined with stochastic=True"):
        ss.tune(oracle, 5, metric="energy", data=data, stochastic=True, learned=True)
    with pytest.raises(ValueError, match="or search by a distance with stochastic=True"):
        ss.tune(oracle, 5, metric="energy", data=data, solvers=["ancestral"])
    with pytest.raises(ValueError, match="that take any steps, but exponential_sde is not one"):
        ss.tune(
            oracle, 5, metric="energy", data=data, solvers=["exponential_sde"], stochastic=True
        )


def test_the_noise_that_decides_is_neither_that_of_the_search_nor_that_of_the_figures() -> None:
    assert not {0, 1} & set(decides.AGAIN)  # added to the seed of the search
    seen: list[int] = []

    class Part:
        def __init__(self) -> None:
            self.bench, self.measure, self.seed, self.shape = self, self, 5, (4, 2)
            self.metric = "energy"

        def resized(self, count: int, seed: int) -> "Part":
            seen.append(seed)
            return self

    one = Part()
    one.parts = [one]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decides, "Measure", lambda *_: lambda _: 1.0)
        decides._again(one, ss.Plan({"solver": "ddim", "steps": 2}))
    assert seen == [5 + more for more in decides.AGAIN]
