r"""The search: each part does what it says, and the whole beats the catalogue on noise that chose nothing."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import scoresde as ss
import solvers
from scoresde.comparing.bench import Bench
from scoresde.tuning import teacher as teaching
from scoresde.tuning.refine import refine
from scoresde.tuning.teacher import Teacher

from .cases import mixture

QUIET = {"samples": 32, "held_out": 128, "reference_tolerance": 1e-6, "progress": False}
SOME = ["ddim", "dpmpp_2m", "ipndm_2", "dpm_2"]


def bench(process: ss.Process, count: int = 4) -> Bench:
    return Bench(mixture(process), (count, 2), 0, 1e-6, {}, None, {"dtype": torch.float64})


def test_the_cheapest_path_is_that_of_all_paths() -> None:
    costs = torch.rand(6, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    costs[:, torch.ones(7, 7).tril().bool()] = torch.inf  # no step back, and no path from there
    for h in range(5):
        costs[h + 1, : h + 1] = torch.inf
    for steps in (1, 2, 3, 5, 6):
        total = {}
        for inner in itertools.combinations(range(1, 6), steps - 1):
            nodes = [0, *inner, 6]
            before = [0, *(h + 1 for h in nodes[:-2])]
            total[tuple(nodes)] = sum(
                costs[h, i, j].item()
                for h, i, j in zip(before, nodes[:-1], nodes[1:], strict=True)
            )
        assert tuple(teaching._cheapest(costs, steps)) == min(total, key=total.__getitem__)


@pytest.mark.parametrize("solver", ["ddim", "deis_2", "dpmpp_2m"])
def test_costs_are_the_local_errors_of_the_solver(solver: str) -> None:
    teacher = Teacher.of(bench(ss.VP()))
    costs = teacher._costs(solvers.get(solver))
    oracle, alpha = teacher.bench.model, teacher.bench.model.process.scales(teacher.times)[0]
    i, j = 12, 17
    if solver == "ddim":  # which knows one value: any node before gives the same
        times = teacher.times[[i, j]]
        x = ss.decode(oracle, teacher.path[i], solver=solver, times=times, denoise=False).x
        want = ((x - teacher.path[j]) / alpha[j]).square().mean(1).sqrt().mean()
        assert costs[4, i, j].item() == pytest.approx(want.item(), rel=1e-6)
    if solver == "dpmpp_2m":  # its formula, with the exact history
        h, level = 7, torch.exp(-oracle.process.log_snr(teacher.times))
        X = teacher.path / alpha[:, None, None]
        D = [oracle.denoise(teacher.path[k], teacher.times[k]) for k in (h, i)]
        step, before = (level[i] / level[j]).log(), (level[h] / level[i]).log()
        mixed = (1 + step / (2 * before)) * D[1] - step / (2 * before) * D[0]
        end = level[j] / level[i] * X[i] - torch.expm1(-step) * mixed
        want = (end - X[j]).square().mean(1).sqrt().mean()
        assert costs[h + 1, i, j].item() == pytest.approx(want.item(), rel=1e-6)
    near, far = costs[i, i, i + 1].item(), costs[i - 3, i, j].item()
    assert 0 < near < far


def test_costs_of_a_corrector_hold_no_error_of_the_step_before() -> None:
    teacher = Teacher.of(bench(ss.VP()))
    short = teacher._costs(solvers.get("unipc"))[6, 20, 21].item()
    assert short < 3 * teacher._costs(solvers.get("dpmpp_2m"))[6, 20, 21].item()


def test_grids_of_the_teacher_are_better_than_even_ones() -> None:
    b = bench(ss.VP(), 32)
    teacher = Teacher.of(b)
    exact = b.reference().x
    errors = {"named": [], "taught": []}
    for times in teacher.grids(solvers.get("dpmpp_2m"), 8):
        assert times[0] == b.model.process.t_max
        x = b.run(solver="dpmpp_2m", times=times).x
        errors["taught"].append((x - exact).square().mean().sqrt().item())
    for grid in ("rho", "log_snr"):
        x = b.run(solver="dpmpp_2m", steps=8, grid=grid).x
        errors["named"].append((x - exact).square().mean().sqrt().item())
    assert min(errors["taught"]) < min(errors["named"])
    assert not teacher.grids(solvers.get("dpm_2"), 4)  # which is not multistep


def test_refining_finds_the_minimum_of_each() -> None:
    wants = [
        torch.tensor(levels, dtype=torch.float64)
        for levels in ([10.0, 3.0, 0.5, 0.1], [5.0, 1.0, 0.2])
    ]
    starts = [
        torch.tensor(levels, dtype=torch.float64)
        for levels in ([10.0, 8.0, 5.0, 0.1], [5.0, 0.3, 0.2])
    ]

    def objective(asked: list[tuple[int, torch.Tensor]]) -> list[float]:
        return [(some.log() - wants[k].log()).square().sum().item() for k, some in asked]

    both = refine(objective, starts, sweeps=30)
    for k, (found, value) in enumerate(both):
        assert torch.allclose(found, wants[k], rtol=0.01)
        assert [value] == objective([(k, found)]) < objective([(k, starts[k])])
        assert (found.diff() < 0).all()
        assert torch.equal(found[[0, -1]], starts[k][[0, -1]])
        ((alone, least),) = refine(
            lambda asked, k=k: objective([(k, some) for _, some in asked]), [starts[k]], sweeps=30
        )
        assert torch.equal(alone, found)
        assert least == value


def test_a_searched_plan_beats_the_catalogue_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    oracle, file = mixture(ss.VP()), tmp_path / "search.json"
    plan = ss.tune(oracle, 7, solvers=SOME, file=file, **QUIET)
    f = plan.figures
    assert f["calls"] <= 7
    assert f["seed"] == 1
    assert f["error"]["mean"] < 0.9 * min(o["error"]["mean"] for o in f["best before"])
    x = ss.sample(oracle, 128, plan=plan.save(tmp_path / "plan.json"), seed=1).x
    exact = ss.sample(oracle, 128, solver="dopri5", rtol=1e-9, atol=1e-9, seed=1).x
    found = (x - exact).square().mean(1).sqrt().mean().item()
    assert f["error"]["mean"] == pytest.approx(found, rel=1e-2)
    again = ss.tune(oracle, 7, solvers=SOME, file=file, **QUIET)
    assert again.figures["plans measured"] == 0
    assert again.noise_levels == plan.noise_levels
    for other in ({"budget": 8}, {"data": oracle.data(50)}):
        with pytest.raises(ValueError, match="holds another search"):
            ss.tune(oracle, **{"budget": 7, "solvers": SOME, "file": file, **QUIET, **other})


@pytest.mark.slow
def test_workers_find_what_one_process_does(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    options = {**QUIET, "solvers": SOME[:3], "grids": ["rho"], "reference_tolerance": 1e-4}
    files, found = [tmp_path / "a.json", tmp_path / "b.json"], []
    for file, workers in zip(files, (None, 2), strict=True):
        found.append(ss.tune(oracle, 4, file=file, workers=workers, **options))
    alone, both = (
        replace(plan, figures={**plan.figures, "seconds of the search": 0}) for plan in found
    )
    assert both == alone
    a, b = (json.loads(file.read_text())["known"] for file in files)
    assert a == b
    assert len(a) == alone.figures["plans measured"]


def test_a_search_is_of_one_model_with_all_that_is_in_it(tmp_path: Path) -> None:
    class Scaled(ss.ScoreModel):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.model, self.scale = mixture(ss.VP()), scale
            self.resemble(self.model)

        def denoise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.scale * self.model.denoise(x, t)

    options = {**QUIET, "solvers": ["ddim"], "grids": ["rho"], "file": tmp_path / "s.json"}
    options |= {"reference_tolerance": 1e-3}
    ss.tune(Scaled(1.0), 3, **options)
    assert ss.tune(Scaled(1.0), 3, **options).figures["plans measured"] == 0
    with pytest.raises(ValueError, match="another search, of a model of the same name with other"):
        ss.tune(Scaled(0.9), 3, **options)


def test_a_search_may_make_a_distance_small() -> None:
    oracle = mixture(ss.VP())
    data = oracle.data(300, seed=5)
    options = {"metric": "energy", "data": data, "solvers": ["ddim"], "grids": ["rho"]}
    plan = ss.tune(oracle, 4, **options, **{**QUIET, "samples": 200, "held_out": 400})
    before = plan.figures["best before"][0]
    assert plan.figures["distances"]["energy"][0] < before["distances"]["energy"][0]


def test_learned_weights_make_the_error_smaller(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    options = {"solvers": ["dpmpp_2m"], "grids": ["log_snr"], **QUIET}
    with torch.no_grad():  # which is nothing to a search
        plan = ss.tune(oracle, 5, learned=True, **options)
    assert [len(row) for row in plan.additions] == [
        2,
        3,
        4,
        5,
        6,
        7,
    ]  # of six steps, the first without a call
    assert plan.figures["calls"] == 5
    assert plan.figures["error"]["mean"] < 0.1 * plan.figures["best before"][0]["error"]["mean"]
    loaded = ss.Plan.load(plan.save(tmp_path / "plan.json"))
    assert (loaded.additions, loaded.noise_levels) == (plan.additions, plan.noise_levels)
    wrong = replace(plan, noise_levels=plan.noise_levels[::2])
    with pytest.raises(ValueError, match="learned weights for 6 steps, but 3 steps"):
        ss.sample(oracle, 3, plan=wrong)


def test_conditions_per_sample_follow_their_samples() -> None:
    def network(x: torch.Tensor, t: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + shift)

    model = ss.NetworkScore(network, ss.EDM(), "data", conditions=("shift",), shape=(2,))
    shift = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))
    options = {"solvers": ["ddim"], "grids": ["rho"], "shift": shift, **QUIET}
    plan = ss.tune(model, 4, **{**options, "held_out": 64, "reference_tolerance": 1e-3})
    x = ss.sample(model, 64, plan=plan, seed=1, shift=shift.repeat(2, 1), dtype=torch.float64).x
    tight = {"solver": "exponential", "rtol": 1e-5, "atol": 1e-5, "dtype": torch.float64}
    exact = ss.sample(model, 64, seed=1, shift=shift.repeat(2, 1), **tight).x
    found = (x - exact).square().mean(1).sqrt().mean().item()
    assert plan.figures["error"]["mean"] == pytest.approx(found, rel=0.05)


def test_suggestions_fit_and_say_where_they_are_from() -> None:
    oracle = ss.NetworkScore(lambda x, t: 0.1 * x, ss.VP(), "data", shape=(2,))
    for budget in (5, 9, 30):
        for s in ss.suggest(oracle, budget):
            assert s.calls <= budget
            assert "benchmarks.distance" in s.source
            assert solvers.get(s.options["solver"]).form != "moments"  # which it does not know
            assert int(ss.sample(oracle, 2, **s.options).calls[0]) == s.calls
    oracle.moments = ss.moments(torch.randn(100, 2))
    names = [s.options["solver"] for s in ss.suggest(oracle, 5)]
    assert any(name.startswith("moment") for name in names)
    with pytest.raises(ValueError, match="budget must be at least 5 calls, but is 2"):
        ss.suggest(oracle, 2)


def test_learning_leaves_the_gradients_of_the_network_alone() -> None:
    layer = torch.nn.Linear(2, 2).double()
    model = ss.NetworkScore(lambda x, t: torch.tanh(layer(x)), ss.EDM(), "data", shape=(2,))
    model.layer = layer
    options = {"solvers": ["dpmpp_2m"], "grids": ["tan"], **QUIET, "reference_tolerance": 1e-3}
    ss.tune(model, 4, learned=True, **options)
    assert layer.weight.grad is None


def test_bad_searches_get_a_sentence() -> None:
    oracle = mixture(ss.VP())
    for name in ("ancestral", "torchdiffeq/explicit_adams", "exponential"):
        with pytest.raises(ValueError, match=f"take any steps, but {name} is not one"):
            ss.tune(oracle, 8, solvers=[name], progress=False)
    bad = [({"budget": 1}, "budget must be at least 2, but is 1"),
           ({"budget": 2, "solvers": ["dpm_3"]}, "no solver fits into budget=2"),
           ({"solvers": []}, "solvers must not be empty"),
           ({"grids": ["roh"]}, "grid 'roh' is unknown"),
           ({"metric": "enrgy"}, "metric 'enrgy' is unknown"),
           ({"held_out": 0}, "held_out must be at least 4, but is 0"),
           ({"data": torch.ones(9, 3)}, "for this model, but its samples have shape"),
           ({"reference_tolerance": -1.0}, "must lie in \\(0, 0.1\\], but is -1.0")]  # fmt: skip
    for options, words in bad:
        with pytest.raises(ValueError, match=words):
            ss.tune(oracle, **{"budget": 5, "progress": False, **options})
    with pytest.raises(ValueError, match="is a distance to data; pass data="):
        ss.tune(oracle, 5, metric="energy")
