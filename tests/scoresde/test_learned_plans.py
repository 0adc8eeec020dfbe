r"""Learned plans: exact where their weights span the flow, and never worse than what they start from."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.comparing.bench import Bench
from scoresde.metrics import energy_distance
from scoresde.reverse.reverse import Reverse
from scoresde.runs.progress import bar
from scoresde.tuning import closing, student
from scoresde.tuning.closing import closing as close
from scoresde.tuning.exact_path import Exact, ExactPath
from scoresde.tuning.learn import initial, learn
from scoresde.tuning.student import Student

from .cases import gaussian, mixture

DOUBLE = {"dtype": torch.float64}


def exact_run(model: ss.GaussianOracle, bench: Bench, count: int = 30) -> Exact:
    r"""The exact run of a Gaussian, in closed form."""

    process = model.process
    ends = process.log_snr(torch.tensor([process.t_max, 0.01], dtype=torch.float64))
    times = process.time(torch.linspace(*ends.tolist(), count, dtype=torch.float64))
    z = bench.start()
    path = torch.stack([model.flow(z, process.t_max, float(t)) for t in times])
    return Exact(times, path, model.denoise(path[-1], times[-1]))


def bench_of(model: ss.ScoreModel, count: int, **options: object) -> Bench:
    return Bench(model, (count, *model.shape), 0, 1e-6, {}, None, {**DOUBLE, **options})


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()])
def test_a_form_that_is_not_exact_on_gaussian_data_becomes_so(
    process: ss.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "NOTHING", 1e-12)  # so that all directions count
    model = gaussian(process)
    bench = bench_of(model, 16)
    exact = exact_run(model, bench)
    first, last = torch.exp(-process.log_snr(exact.times[[0, -1]])).tolist()
    for calls in (3, 4, 6):  # two variances and a mean are three numbers per step
        levels = initial(first, last, model.data_scale, calls)[0]
        fitted = Student(bench, exact, "data")
        assert fitted(levels) < 1e-10
        s = ss.sample(model, 16, plan=fitted.plan(levels), seed=0, **DOUBLE)
        assert torch.allclose(s.x, exact.end, atol=1e-9)
        assert s.calls.tolist() == [calls] * 16 == [fitted.asked] * 16
        plain = ss.sample(model, 16, solver="ddim", steps=calls, seed=0, **DOUBLE).x
        assert (plain - exact.end).abs().max() > 1e-2


def test_exact_moments_leave_nothing_to_learn() -> None:
    model = gaussian(ss.EDM())
    model.moments = ss.Moments(*_moments(model))
    bench = bench_of(model, 8)
    exact = exact_run(model, bench)
    fitted = Student(bench, replace(exact, end=exact.path[-1]), "moments")  # before its denoising
    levels = torch.tensor([80.0, 3.0, 0.5, fitted.exact.times[-1]], dtype=torch.float64)
    s = ss.sample(model, 8, plan=fitted.plan(levels), seed=0, **DOUBLE)
    assert torch.allclose(s.x, fitted.exact.end, atol=1e-10)
    assert max(abs(number) for row in fitted.plan(levels).additions for number in row) < 1e-10


def _moments(model: ss.GaussianOracle) -> tuple[Tensor, Tensor, Tensor]:
    covariance = torch.tensor([[0.30, 0.10], [0.10, 0.20]], dtype=torch.float64)
    variances, axes = torch.linalg.eigh(covariance)
    return torch.tensor([0.5, -0.3], dtype=torch.float64), axes, variances


def test_the_first_call_is_saved_where_the_data_is_gaussian() -> None:
    model = gaussian(ss.VP())
    model.moments = ss.Moments(*_moments(model))
    options = {"steps": 4, "seed": 0, "denoise": False, **DOUBLE}
    saved = ss.sample(model, 5, solver="moment_1:analytic_first=True", **options)
    whole = ss.sample(model, 5, solver="moment_1", **options)
    assert torch.allclose(saved.x, whole.x, atol=1e-12)
    assert (saved.calls[0], whole.calls[0]) == (3, 4)


def test_the_exact_path_is_exact_at_nodes_and_for_gaussian_data_between_them() -> None:
    model = gaussian(ss.VP())
    model.moments = ss.Moments(*_moments(model))
    exact = exact_run(model, bench_of(model, 4), count=8)
    reverse = Reverse(model, solvers.SemiLinear, 0.0, "log_snr", "moments")
    path = ExactPath(reverse, exact)
    for level in (9.7, 1.3, 0.2):
        time = model.process.at_noise_level(level)
        clock = -torch.tensor(level, dtype=torch.float64).log()
        state = reverse.leave(path(clock), torch.tensor(time, dtype=torch.float64))
        start = exact.path[0]
        assert torch.allclose(state, model.flow(start, model.process.t_max, time), atol=1e-10)
    oracle = mixture(ss.EDM())
    found = Exact.of(bench_of(oracle, 4, t_min=0.01))
    path = ExactPath(Reverse(oracle, solvers.SemiLinear, 0.0, "log_snr", "data"), found)
    for i in (0, 17, 60):
        there = path(oracle.process.log_snr(found.times[i]))
        assert torch.allclose(there, found.path[i], rtol=1e-12, atol=1e-12)
    between = path(torch.tensor(0.123, dtype=torch.float64))
    s = ss.sample(oracle, 4, solver="exponential", seed=0, rtol=1e-7, atol=1e-7, denoise=False,
                  t_min=math.exp(-0.123), **DOUBLE)  # fmt: skip
    assert torch.allclose(between, s.x, atol=1e-4)


def test_weights_exist_for_which_the_last_step_is_the_last_denoising() -> None:
    model = mixture(ss.EDM())
    levels = (80.0, 2.0, 0.5, 0.01)
    plain = ss.Plan({"solver": "ddim"}, levels[:-1])
    whole = 1 - levels[-1] / levels[-2]  # the weight W of one value
    rows = ((0.0, 0.0), (0.0, 0.0, 0.0), (-1.0, 1 / whole - 1, 0.0, 0.0))
    learned = ss.Plan({"solver": "ddim", "denoise": False}, levels, rows)
    with pytest.warns(UserWarning, match="leaves 51% of the smallest"):
        x, y = (ss.sample(model, 6, plan=plan, seed=0, **DOUBLE) for plan in (plain, learned))
    assert torch.allclose(x.x, y.x, atol=1e-12)
    assert torch.equal(x.calls, y.calls)


def test_learning_returns_its_start_if_that_is_better() -> None:
    model, bench = mixture(ss.VP()), bench_of(mixture(ss.VP()), 8)
    start = ss.Plan({"solver": "exponential_3", "steps": 60, "grid": "log_snr"})
    with bar(total=0, desc="", shown=False) as quiet:
        assert learn(bench, "error", ["data"], 2, start, quiet) is start
        worse = ss.Plan({"solver": "ddim", "steps": 2, "grid": "log_snr"})
        assert learn(bench, "error", ["data"], 3, worse, quiet) is not worse
    assert model.shape == (2,)


def test_the_last_step_makes_up_for_a_model_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "SAMPLES", 400)
    model = ss.GaussianOracle(torch.zeros(3, dtype=torch.float64), 1.0)
    data = 2 * model.data(600, seed=3)  # twice as wide as the model believes
    bench = replace(bench_of(model, 8), data=data)
    rows = tuple((0.0,) * (i + 2) for i in range(3))
    start = ss.Plan({"solver": "ddim", "denoise": False}, (80.0, 2.0, 0.5, 0.01), rows)
    plan, distance = close(bench, start)
    x, y = (ss.sample(model, 4000, plan=p, seed=9, **DOUBLE).x for p in (plan, start))
    assert x.std().item() == pytest.approx(2.0, rel=0.06)
    assert y.std() < 1.1
    other = 2 * model.data(4000, seed=4)
    assert distance < 0.02
    assert energy_distance(x, other) < 0.02 < energy_distance(y, other)
    assert plan.additions[:-1] == start.additions[:-1]


def test_a_plan_learned_for_a_distance_beats_the_catalogue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closing, "SAMPLES", 200)
    model = mixture(ss.VP())
    options = {"solvers": ["ddim"], "grids": ["rho"], "samples": 16, "held_out": 200}
    options |= {"reference_tolerance": 1e-3, "progress": False, "data": model.data(200, seed=5)}
    plan = ss.tune(model, 3, metric="energy", learned=True, **options)
    before = plan.figures["best before"][0]["distances"]["energy"]
    assert plan.figures["distances"]["energy"][0] < 0.5 * before[0]
    assert plan.figures["calls"] == 3
    assert plan.additions


def test_levels_share_their_runs_as_far_as_they_agree() -> None:
    bench = bench_of(mixture(ss.EDM()), 8, t_min=0.01)
    fitted = Student(bench, Exact.of(bench), "data")
    levels = torch.tensor([80.0, 5.0, 1.0, 0.3, 0.01], dtype=torch.float64)
    value = fitted(levels)
    assert fitted.asked == 3
    moved = levels.clone()
    moved[3] = 0.2
    assert fitted(moved) != value
    assert fitted.asked == 4
    assert fitted(levels) == value == Student(bench, fitted.exact, "data")(levels)
    assert fitted.asked == 4


def test_additions_may_differ_between_coordinates() -> None:
    model = gaussian(ss.EDM())
    model.moments = ss.Moments(*_moments(model))
    levels, rows = (80.0, 0.5, 0.01), ((0.0, 0.0), (0.0, 0.0, 0.0, 0.3, 0.0, 0.0))
    plain, other = (
        ss.sample(model, 5, plan=ss.Plan({"solver": "moment_1", "denoise": False}, levels, some))
        for some in (((0.0, 0.0), (0.0, 0.0, 0.0)), rows)
    )
    mean, axes, variances = _moments(model)
    before, after = (
        (s.x - mean) @ axes for s in (plain, other)
    )  # where N = 0, the state alone counts
    assert torch.allclose(after, (1 + 0.3 * variances / (variances + 0.25)) * before)


def test_weights_are_fitted_to_even_samples_and_judged_by_odd_ones() -> None:
    bench = bench_of(mixture(ss.EDM()), 8, t_min=0.01)
    exact = Exact.of(bench)
    levels = torch.tensor([80.0, 2.0, 0.3, 0.01], dtype=torch.float64)
    plan = Student(bench, exact, "data").plan(levels)
    path, end = exact.path.clone(), exact.end.clone()
    path[1:, 1::2], end[1::2] = 0, 7.0
    other = Student(bench, Exact(exact.times, path, end), "data")
    assert other.plan(levels).additions == plan.additions
    assert other(levels) > 1


def test_fitting_is_least_squares_that_outliers_do_not_rule() -> None:
    draw = torch.Generator().manual_seed(0)
    columns = torch.randn(40, 5, 3, dtype=torch.float64, generator=draw)
    numbers = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    wanted = columns @ numbers
    assert torch.allclose(torch.tensor(student.fit(columns, wanted)).double(), numbers)
    wanted[0] += 50  # of a sample that takes another way
    plain = torch.linalg.lstsq(columns.flatten(0, 1), wanted.reshape(-1, 1)).solution[:, 0]
    found = torch.tensor(student.fit(columns, wanted), dtype=torch.float64)
    assert (found - numbers).norm() < 0.2 * (plain - numbers).norm()
    twin = torch.cat([columns, columns[..., :1]], -1)  # of which no more than the sum is known
    assert sum(student.fit(twin, columns[..., 0])[::3]) == pytest.approx(1.0)


def test_fitting_gives_each_sample_the_weight_of_its_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scoresde.tuning.student.ROUNDS", 300)
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(40, 3, 2, generator=draw, dtype=torch.float64)
    b = torch.randn(40, 3, generator=draw, dtype=torch.float64) ** 3
    rest = A @ torch.tensor(student.fit(A, b), dtype=torch.float64) - b
    gap = rest.square().mean(1).sqrt()
    slope = torch.einsum("bd,bdk->k", rest / (gap + gap.median())[:, None], A)
    assert slope.abs().max() < 1e-5  # of the sum of distances, smoothed at their median


def test_files_of_learned_plans(tmp_path: Path) -> None:
    rows = ((0.1, 0.2), (0.0, -0.3, 0.4))
    plan = ss.Plan({"solver": "dpmpp_2m", "denoise": False}, (80.0, 1.0, 0.01), rows)
    file = plan.save(tmp_path / "plan.json")
    assert ss.Plan.load(file) == plan
    content = json.loads(file.read_text())
    bad = [({"additions": [[0.1, 0.2]]}, "weights for 1 steps, but 2 steps"),
           ({"additions": [[0.1], [0.0, 0.3, 0.4]]}, "additions of step 0 must be 2 numbers, one"),
           ({"additions": [[0.1, None], []]}, "lists of finite numbers"),
           ({"additions": [[10**400, 0.2], [0.0, 0.3, 0.4]]}, "lists of finite numbers"),
           ({"noise_levels": [10**400, 1.0, 0.01]}, "noise levels that are positive and fall"),
           ({"additions": [[1e300, 0.2], [0.0, 0.3, 0.4]]}, r"additions of step 0 must be .*1e\+300"),
           ({"scales": [[1.0]], "additions": []}, "in the form of earlier versions; search it again")]  # fmt: skip
    for change, words in bad:
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=words):
            ss.Plan.load(file)
    del content["additions"]
    file.write_text(json.dumps({**content, "scales": []}))  # of earlier versions
    assert ss.Plan.load(file) == replace(plan, additions=())


def test_what_cannot_be_learned_gets_a_sentence() -> None:
    model, data = mixture(ss.VP()), mixture(ss.VP()).data(20)
    options = {"learned": True, "progress": False}
    with pytest.raises(ValueError, match="learned=True is for multistep solvers, but dpm_2"):
        ss.tune(model, 5, solvers=["dpm_2"], **options)
    with pytest.raises(
        ValueError, match="data must be at least 4 samples, one half .*, but has 3"
    ):
        ss.tune(model, 5, metric="energy", data=data[:3], **options)
    guided = ss.classifier_free(model, 2.0, label=0)
    with pytest.raises(ValueError, match="no solver fits into budget=3 calls; pass at least 4"):
        ss.tune(guided, 3, **options)
    with pytest.raises(
        ValueError, match="learned=True is for error and energy, but metric is 'c2"
    ):
        ss.tune(model, 5, metric="c2st", data=data, **options)


def test_the_exact_path_of_data_of_one_scale_needs_no_moments() -> None:
    model = ss.GaussianOracle(torch.zeros(2), torch.full((2,), 9.0).diag(), process=ss.EDM())
    model.moments, model.data_scale = None, 3.0
    exact = exact_run(model, bench_of(model, 4), count=8)
    path = ExactPath(Reverse(model, solvers.SemiLinear, 0.0, "log_snr", "data"), exact)
    for level in (9.7, 1.3, 0.2):
        clock = -torch.tensor(level, dtype=torch.float64).log()
        assert torch.allclose(path(clock), model.flow(exact.path[0], 80.0, level), atol=1e-10)
