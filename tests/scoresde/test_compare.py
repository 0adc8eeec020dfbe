r"""Comparisons: what rows say is what happened, failures are rows, files go on where they stopped."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers
from scoresde import metrics
from scoresde.comparing.bench import Bench
from scoresde.comparing.cells import steps_within
from scoresde.comparing.reference import flow_reference, noisy_reference
from scoresde.runs.plan import fingerprint
from solvers.methods.torchdiffeq import Torchdiffeq

from .cases import gaussian, mixture

QUIET = {"samples": 16, "progress": False, "reference_tolerance": 1e-7}


class Fails(ss.ScoreModel):
    r"""A model that is NaN at the budget at which it is called five times."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__()
        self.resemble(model)
        self.model = model

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        bad = (t > 0.4) & (t < 0.5)
        return torch.where(bad.any(), torch.nan, self.model.denoise(x, t))


@pytest.mark.parametrize("solver", ["ddim", "dpm_2", "unipc", "heun", "dopri5"])
def test_budgets_are_kept_and_spent(solver: str) -> None:
    method = solvers.get(solver)
    for budget in (9, 20):
        steps = steps_within(method, budget)
        assert method.calls(steps) + 1 <= budget < method.calls(steps + 1) + 1


def test_rows_say_what_runs_do() -> None:
    oracle = mixture(ss.VP())
    c = ss.compare(oracle, ["dpmpp_2m", "exponential"], [6, 12], tolerances=[1e-2], **QUIET)
    assert [row.key for row in c.rows] == [
        ("dpmpp_2m", "rho", 6.0),
        ("dpmpp_2m", "rho", 12.0),
        ("exponential", "tolerance", 0.01),
    ]
    exact = ss.sample(oracle, 16, solver="dopri5", rtol=1e-10, atol=1e-10).x
    for row in c.rows:
        s = ss.sample(oracle, 16, **row.options)
        error = (s.x - exact).square().mean(1).sqrt()
        assert row.error["median"] == pytest.approx(error.quantile(0.5).item(), rel=1e-3)
        assert row.error["q90"] == pytest.approx(error.quantile(0.9).item(), rel=1e-3)
        assert row.error["max"] == pytest.approx(error.max().item(), rel=1e-3)
        assert row.calls == s.calls.double().mean()
    assert c.rows[0].calls == 6
    assert c.rows[2].rejected is not None


def test_guided_calls_count_twice_within_a_budget() -> None:
    model = ss.NetworkScore(
        lambda x, t, label: x * 0.1, ss.EDM(), "data", conditions=("label",), shape=(2,)
    )

    class Free(ss.NetworkScore):
        def _call(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
            return super()._call(x, t, {"label": torch.zeros(1), **condition})

    free = Free(model.network, ss.EDM(), "data", conditions=("label",), shape=(2,))
    guided = ss.classifier_free(free, 2.0, label=torch.tensor(1))
    c = ss.compare(guided, ["ddim"], [10], **QUIET)
    assert c.rows[0].calls == 10
    assert c.rows[0].options["steps"] == 4


class Pulled(ss.ScoreModel):
    r"""Guided towards small samples, by a gradient through the network."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__()
        self.model = model
        self.resemble(model)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            clean = self.model.denoise(leaf, t)
            (pull,) = torch.autograd.grad(clean.square().sum(), leaf)
        return clean.detach() - 0.01 * pull


@pytest.mark.parametrize("size", [None, 2])
def test_backward_calls_are_counted(size: int | None) -> None:
    net = ss.NetworkScore(lambda x, t: -0.5 * x, ss.VP(), predicts="score", shape=(2,))
    model, options = Pulled(net), {"samples": 4, "progress": False, "batch_size": size}
    c = ss.compare(model, ["dpmpp_2m", "heun"], [6], **options)
    assert [row.backward for row in c.rows] == [row.calls for row in c.rows]
    assert "backward" in c.markdown()
    c = ss.compare(net, ["dpmpp_2m"], [6], **options)
    assert c.rows[0].backward == 0
    assert "backward" not in c.markdown()


def test_stochastic_solvers_are_held_against_the_sde_on_their_path() -> None:
    oracle = gaussian(ss.VP())
    c = ss.compare(oracle, ["sra1", "er_sde", "edm_churn"], [20, 80], grids=["log_snr"], **QUIET)
    few, many = (row for row in c.rows if row.solver == "sra1")
    assert many.error["median"] < 0.3 * few.error["median"]  # strong convergence on one path
    assert all(row.error is None for row in c.rows if row.solver != "sra1")
    assert set(c.references) == {"sde"}


def test_noise_without_a_limit_has_no_error() -> None:
    oracle = gaussian(ss.VP())
    plans = [
        ss.Plan({"solver": "dpmpp_2m", "steps": 100, "eta": 1.0}),
        ss.Plan({"solver": "dpmpp_2m", "steps": 100, "eta": 0.5, "noise": "path"}),
        ss.Plan({"solver": "ancestral", "steps": 100}),
        ss.Plan({"solver": "dpmpp_2m_sde", "steps": 100, "eta": 1.0, "noise": "path"}),
    ]
    c = ss.compare(oracle, ["langevin_corrector", *plans], [20], **QUIET)
    assert [row.error is None for row in c.rows] == [True, True, True, True, False]
    assert c.rows[-1].error["median"] < 0.1


def test_plans_and_solvers_are_told_apart(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    plans = [ss.Plan({"solver": "ddim", "steps": steps}) for steps in (4, 9)]
    c = ss.compare(oracle, plans, **QUIET, file=tmp_path / "c.json")
    assert [row.calls for row in c.rows] == [5, 10]
    again = ss.compare(oracle, plans[1:], **QUIET, file=tmp_path / "c.json")
    assert [row.calls for row in again.rows] == [10]
    changed = dataclasses.replace(solvers.get("dpmpp_2m"), values=1)
    rows = ss.compare(oracle, [changed, "dpmpp_2m"], [5], **QUIET).rows
    assert [row.solver for row in rows] == ["dpmpp_2m (own)", "dpmpp_2m"]
    with pytest.raises(ValueError, match="dpmpp_2m differs from the solver of that name"):
        ss.compare(oracle, [changed], [5], **QUIET, file=tmp_path / "d.json")


def test_models_are_told_apart() -> None:
    networks = [lambda x, t: 0.1 * x, lambda x, t: 0.2 * x]
    models = [ss.NetworkScore(n, ss.VP(), "data", shape=(2,)) for n in networks]
    models.append(ss.NetworkScore(networks[0], ss.VP(), "noise", shape=(2,)))
    layer = nn.Linear(50, 7)
    models.append(ss.NetworkScore(layer, ss.VP(), "data"))
    with torch.no_grad():
        other = nn.Linear(50, 7)
        other.load_state_dict(layer.state_dict())
        other.weight[6, 31] += 0.1
    models.append(ss.NetworkScore(other, ss.VP(), "data"))
    assert len({fingerprint(model) for model in models}) == 5
    assert fingerprint(models[0]) == fingerprint(models[0].given())


def test_a_budget_that_is_not_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    adams = ["torchdiffeq/explicit_adams"]  # which starts with steps of rk4
    c = ss.compare(mixture(ss.VP()), adams, [16], **QUIET)
    assert (c.rows[0].status, c.rows[0].calls) == ("ok", 16)
    monkeypatch.setattr(Torchdiffeq, "calls", lambda self, steps: steps)
    c = ss.compare(mixture(ss.VP()), adams, [16], **QUIET)
    assert c.rows[0].status == "took 22 calls, more than 16"


def test_references_say_how_exact_they_are() -> None:
    oracle = mixture(ss.VP())
    exact = ss.sample(oracle, 8, solver="dopri5", rtol=1e-11, atol=1e-11, dtype=torch.float64).x
    for tolerance in (1e-4, 1e-7):
        r = flow_reference(oracle, (8, 2), 0, tolerance, {})
        true = (r.x - exact).square().mean(1).sqrt()
        assert true.median() < r.gap.median()
    noisy = noisy_reference(oracle, (8, 2), 0, {})
    assert 1e-5 < noisy.gap.median() < 0.02


@pytest.mark.slow
def test_distances_come_with_floors_and_errors() -> None:
    oracle = mixture(ss.VP())
    data = oracle.data(400, seed=3)
    names = ["error", "energy", "sliced_wasserstein", "c2st"]
    c = ss.compare(
        oracle, ["ddim"], [4, 40], metrics=names, data=data, **{**QUIET, "samples": 200}
    )
    bad, good = c.rows
    for name in names[1:]:
        value, error = good.distances[name]
        assert abs(value - c.exact[name][0]) < 3 * error + 0.02
        assert bad.distances[name][0] > value
    assert c.floors["energy"][0] == pytest.approx(0, abs=0.02)


def test_features_and_functions_of_ones_own() -> None:
    oracle = mixture(ss.VP())
    data = oracle.data(300, seed=3)
    network = nn.Linear(2, 4).double()
    options = {"features": network, "data": data, **QUIET}
    named = ss.compare(oracle, ["ddim"], [10], metrics=["fid", "kid"], **options)
    assert set(named.rows[0].distances) == {"fid", "kid"}
    own = {"mean": lambda x, y: float((x.mean() - y.mean()).abs())}
    mine = ss.compare(oracle, ["ddim"], [10], metrics=own, data=data, **QUIET)
    x = ss.sample(oracle, 16, **mine.rows[0].options).x
    assert mine.rows[0].distances["mean"][0] == pytest.approx(own["mean"](x, data))


def test_the_frechet_distance_is_that_of_its_formula() -> None:
    x, y = torch.randn(500, 3).double(), torch.randn(500, 3).double() * 2 + 1
    found = metrics.fid(nn.Identity())(x, y)
    a, b = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(a @ b).sqrt().real.sum()
    want = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert found == pytest.approx(want.item(), rel=1e-6)


def test_the_jackknife_is_the_spread_over_seeds() -> None:
    oracle = gaussian(ss.VP())
    data = oracle.data(500, seed=99)
    found = [
        metrics.with_error(metrics.energy_distance, oracle.data(100, seed=s), data)
        for s in range(40)
    ]
    values, errors = torch.tensor(found).T
    assert 0.6 < errors.mean() / values.std() < 1.6


def test_the_energy_distance_has_no_bias() -> None:
    oracle = gaussian(ss.VP())
    x = oracle.data(4000, seed=1).reshape(1000, 4, 2)
    found = [metrics.energy_distance(a, b) for a, b in zip(x[::2], x[1::2], strict=True)]
    values = torch.tensor(found)
    assert abs(values.mean()) < 4 * values.std() / 500**0.5


def test_floors_are_of_parts_that_share_nothing() -> None:
    data = torch.arange(40.0)[:, None]
    shared = lambda x, y: float(len(set(x[:, 0].tolist()) & set(y[:, 0].tolist())))
    assert metrics.floor(data, 15, distance=shared) == (0.0, 0.0)


def test_the_error_of_the_classifier_is_its_spread() -> None:
    oracle = gaussian(ss.VP())
    x = oracle.data(24 * 80, seed=1).reshape(24, 80, 2)
    found = [metrics.c2st(a, b, trees=20) for a, b in zip(x[::2], x[1::2], strict=True)]
    values, errors = torch.tensor(found).T
    assert 0.6 < errors.mean() / values.std() < 1.7


def test_the_classifier_does_not_mind_sorted_data() -> None:
    oracle = gaussian(ss.VP())
    x, y = oracle.data(100, seed=1), oracle.data(400, seed=2)
    found, error = metrics.c2st(x, y[y[:, 0].argsort()])
    assert abs(found) < 4 * error


def test_the_classifier_tells_what_differs() -> None:
    oracle = gaussian(ss.VP())
    x, y = oracle.data(300, seed=1), oracle.data(300, seed=2)
    same, error = metrics.c2st(x, y)
    assert abs(same) < 4 * error
    for other in (x + 5, x * 50, -3 * x):
        assert metrics.c2st(other, y)[0] > 0.2


def test_a_failure_is_a_row_and_the_rest_goes_on() -> None:
    model = Fails(mixture(ss.VP()))
    times = torch.tensor([1.0, 0.6, 0.3, 0.1, 0.01])
    assert ss.sample(model, 2, solver="ddim", times=times).ok
    bench = Bench(model, (4, 2), 0, 1e-4)
    bench.references[False] = flow_reference(mixture(ss.VP()), (4, 2), 0, 1e-4, {})
    from scoresde.comparing.cells import Cell

    failed = bench.row(Cell("ddim", "t", 12, {"solver": "ddim", "steps": 11, "grid": "t"}))
    assert "samples failed" in failed.status or "not finite" in failed.status
    assert failed.error is None
    oracle = mixture(ss.VP())
    c = ss.compare(oracle, ["dpm_3", "ddim"], [3, 8], **QUIET)
    assert [row.status == "ok" for row in c.rows] == [False, True, True, True]
    assert "no step fits into 3 calls" in c.markdown()


def test_a_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    oracle, file = mixture(ss.VP()), tmp_path / "c.json"
    first = ss.compare(oracle, ["ddim"], [5], file=file, **QUIET)
    content = json.loads(file.read_text())
    content["rows"][0]["calls"] = 4.5  # what is there is not measured again
    file.write_text(json.dumps(content))
    both = ss.compare(oracle, ["ddim", "unipc"], [5], file=file, **QUIET)
    assert [row.calls for row in both.rows] == [4.5, 5.0]
    assert both.rows[0].error == first.rows[0].error
    assert ss.Comparison.load(file) == both
    with pytest.raises(ValueError, match="holds another comparison, with samples=16, not 8"):
        ss.compare(oracle, ["ddim"], [5], file=file, **{**QUIET, "samples": 8})
    with pytest.raises(ValueError, match="holds another comparison, with model="):
        ss.compare(gaussian(ss.VP()), ["ddim"], [5], file=file, **QUIET)
    data = oracle.data(50)
    kept = {"file": tmp_path / "d.json", "metrics": ["energy"], **QUIET}
    ss.compare(oracle, ["ddim"], [5], data=data, **kept)
    with pytest.raises(ValueError, match="holds another comparison, with data="):
        ss.compare(oracle, ["ddim"], [5], data=data + 1, **kept)


class Stopped:
    r"""Interrupts a comparison after its file was written a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
        save = ss.Comparison.save

        def stopping(c: ss.Comparison, file: Path) -> None:
            save(c, file)
            if len(c.rows) == saves:
                raise KeyboardInterrupt

        self.patch, self.save = monkeypatch, stopping

    def __call__(self, *arguments: object, **options: object) -> None:
        with self.patch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ss.Comparison, "save", self.save)
            ss.compare(*arguments, **options)


def timeless(c: ss.Comparison) -> str:
    r"""A comparison as its file has it, without what its runs cost."""

    rows = (dataclasses.replace(row, seconds=None, mebibytes=None) for row in c.rows)
    return json.dumps(dataclasses.asdict(dataclasses.replace(c, rows=tuple(rows))))


def test_workers_measure_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, shift = mixture(ss.VP()), 0.5
    own = {"mean": lambda x, y: float((x - y.mean(0) - shift).abs().mean())}
    some = ["ddim", "sra1", "exponential", "dpm_3"]
    options = {"tolerances": [1e-2], "metrics": own, "data": oracle.data(50), **QUIET}
    alone = ss.compare(oracle, some, [2, 40], file=tmp_path / "a.json", **options)
    assert {row.status == "ok" for row in alone.rows} == {True, False}
    both = {"file": tmp_path / "b.json", **options}
    Stopped(monkeypatch, 6)(oracle, some, [2, 40], workers=2, **both)
    assert len(ss.Comparison.load(tmp_path / "b.json").rows) == 6
    assert timeless(ss.compare(oracle, some, [2, 40], **both)) == timeless(alone)
    a, b = (timeless(ss.Comparison.load(tmp_path / name)) for name in ("a.json", "b.json"))
    assert a == b


def test_a_reference_is_computed_once_before_cells_are_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, rows = [], []
    monkeypatch.setattr(
        "scoresde.comparing.bench.flow_reference",
        lambda *given: made.append(len(rows)) or flow_reference(*given),
    )
    measure = Bench.row
    monkeypatch.setattr(Bench, "row", lambda *given: rows.append(0) or measure(*given))
    ss.compare(mixture(ss.VP()), ["dpm_3", "ddim", "er_sde"], [3, 8], **QUIET)
    assert (made, len(rows)) == ([0], 6)


def test_an_interrupted_comparison_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (mixture(ss.VP()), ["ddim", "unipc"], [5, 8])
    Stopped(monkeypatch, 3)(*given, file=tmp_path / "c.json", **QUIET)
    kept = ss.Comparison.load(tmp_path / "c.json").rows
    assert len(kept) == 3
    assert ss.compare(*given, file=tmp_path / "c.json", **QUIET).rows[:3] == kept


def test_what_cannot_be_shipped_is_named() -> None:
    lock, oracle = threading.Lock(), mixture(ss.VP())
    options = {"workers": 2, **QUIET}
    locked = {"mean": lambda x, y: 0.0, "own": lambda x, y: float(lock.locked())}
    words = "cannot be shipped to workers \\(cannot pickle .*lock.*; make it of .* or leave out"
    with pytest.raises(ValueError, match=f"metric 'own' {words}"):
        ss.compare(oracle, ["ddim"], [5], metrics=locked, data=oracle.data(50), **options)
    held = ss.NetworkScore(lambda x, t: x if lock.locked() else 0 * x, ss.VP(), "data", shape=(2,))
    with pytest.raises(ValueError, match=f"the model {words}"):
        ss.compare(held, ["ddim"], [5], **options)
    for workers, kind in (({"workers": 0}, ValueError), ({"workers": 2.5}, TypeError)):
        with pytest.raises(kind, match="workers must be"):
            ss.compare(oracle, ["ddim"], [5], **{**QUIET, **workers})


class Scaled(ss.ScoreModel):
    r"""Another model, times a number that its fingerprint does not know."""

    def __init__(self, model: ss.ScoreModel, scale: float) -> None:
        super().__init__()
        self.resemble(model)
        self.model, self.scale = model, scale

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scale * self.model.denoise(x, t)


def test_a_file_is_of_one_model_with_all_that_is_in_it(tmp_path: Path) -> None:
    oracle, file = mixture(ss.VP()), tmp_path / "c.json"
    one, other = Scaled(oracle, 1.0), Scaled(oracle, 0.9)
    assert fingerprint(one) == fingerprint(other)
    options = {"file": file, **QUIET}
    rows = ss.compare(one, ["ddim"], [5], **options).rows
    assert ss.compare(Scaled(mixture(ss.VP()), 1.0), ["ddim"], [5], **options).rows == rows
    with pytest.raises(ValueError, match="of a model of the same name with other settings or"):
        ss.compare(other, ["ddim"], [5], **options)


def test_a_file_of_an_earlier_version_goes_on_where_its_name_says_all(tmp_path: Path) -> None:
    oracle, file = mixture(ss.VP()), tmp_path / "c.json"
    for model, told in ((oracle, True), (Scaled(oracle, 1.0), False)):
        file.unlink(missing_ok=True)
        rows = ss.compare(model, ["ddim"], [5], file=file, **QUIET).rows
        content = json.loads(file.read_text())
        del content["setup"]["identity"]
        file.write_text(json.dumps(content))
        assert ss.Comparison.load(file).rows == rows
        if told:
            assert ss.compare(model, ["ddim"], [5], file=file, **QUIET).rows == rows
            continue
        with pytest.raises(ValueError, match="is of an earlier version, which kept no more of a"):
            ss.compare(model, ["ddim"], [5], file=file, **QUIET)


def test_the_best_is_a_plan_that_samples(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    c = ss.compare(oracle, ["ddim", "unipc", "exponential"], [5, 10], **QUIET)
    plan = c.best(budget=10)
    assert plan.options["solver"] == "unipc"
    assert c.best(error=1e-3).options["solver"] == "exponential"
    x = ss.sample(oracle, 16, plan=plan.save(tmp_path / "plan.json"))
    assert (x.calls == 10).all()
    assert torch.equal(x.x, ss.sample(oracle, 16, solver="unipc", steps=9, grid="rho").x)
    values = [point.value for point in c.front()]
    assert values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="nothing that was compared meets budget=3: the least"):
        c.best(budget=3)
    with pytest.raises(ValueError, match="exactly one of budget=, error= and distance="):
        c.best()
    assert c.plot(tmp_path / "c.png").stat().st_size > 10_000
    assert "unipc" in c.markdown()


def test_plans_are_for_one_model(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    plan = ss.compare(oracle, ["ddim"], [5], **QUIET).best(budget=5)
    with pytest.warns(UserWarning, match="the plan was measured on the model"):
        ss.sample(gaussian(ss.VP()), 2, plan=plan)
    with pytest.raises(ValueError, match="steps= is already set by plan="):
        ss.sample(oracle, 2, plan=plan, steps=3)
    with pytest.raises(TypeError, match="plan must be a Plan or a path, but is 3"):
        ss.sample(oracle, 2, plan=3)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a plan"):
        ss.sample(oracle, 2, plan=tmp_path / "no.json")
    loud = ss.Plan({"solver": "ddim"}, (1e6, 1.0, 0.01))
    with pytest.raises(ValueError, match="noise level 1e\\+06 to 0.01, but VP"):
        ss.sample(oracle, 2, plan=loud)


def test_levels_of_a_plan_are_levels_of_any_process() -> None:
    plan = ss.Plan({"solver": "dpmpp_2m", "denoise": False}, (20.0, 5.0, 1.0, 0.1))
    ends = []
    for process in (ss.EDM(), ss.VP()):
        oracle = mixture(process)
        s = ss.sample(oracle, 4, plan=plan)
        ends.append(s.x / process.scales(s.times[-1])[0])
    assert torch.allclose(*ends, atol=1e-6)


def test_errors_below_the_reference_do_not_count() -> None:
    oracle = mixture(ss.VP())
    options = {"tolerances": [1e-2, 1e-3, 1e-4], "samples": 8, "progress": False}
    c = ss.compare(oracle, ["exponential"], reference_tolerance=1e-3, **options)
    gap = c.references["flow"]["median"]
    assert c.rows[1].error["median"] < 1e-6  # it is the reference
    assert c.best(budget=1000).options["rtol"] == 1e-2
    assert c.markdown().count("≤") == 2
    with pytest.raises(ValueError, match="nothing that was compared meets error="):
        c.best(error=gap / 2)


def test_metrics_that_fail_are_named(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())

    def fails(x: Tensor, y: Tensor) -> float:
        raise KeyError("broken")

    own = {"pair": lambda x, y: ((x.std() - y.std()).abs(), 0.01), "fails": fails}
    options = {"data": oracle.data(50), "file": tmp_path / "c.json", **QUIET}
    c = ss.compare(oracle, ["ddim"], [5], metrics={"pair": own["pair"]}, **options)
    assert c.rows[0].status == "ok"
    options["file"] = tmp_path / "d.json"
    with pytest.raises(ValueError, match="metric 'fails' failed: 'broken'"):
        ss.compare(oracle, ["ddim"], [5], metrics={"fails": own["fails"]}, **options)
    with pytest.raises(ValueError, match="metric 'w' is nan"):
        ss.compare(oracle, ["ddim"], [5], metrics={"w": lambda x, y: float("nan")}, **options)


def test_a_reference_that_fails_leaves_the_rest() -> None:
    model = Fails(mixture(ss.VP()))
    data = model.model.data(50)
    times = [t for t in torch.linspace(1, 0.01, 9).tolist() if not 0.4 < t < 0.5]
    assert ss.sample(model, 4, solver="ddim", times=torch.tensor(times)).ok
    levels = torch.exp(-model.process.log_snr(torch.tensor(times).double()))
    plan = ss.Plan({"solver": "ddim"}, tuple(levels.tolist()))
    c = ss.compare(model, [plan], [5], data=data, **QUIET)
    assert c.rows[0].status == "ok"
    assert c.rows[0].error is None
    assert c.rows[0].distances["energy"][0] > -1
    assert "no errors against the flow, which failed" in c.markdown()


def test_networks_that_are_functions_are_compared() -> None:
    layer = nn.Linear(2, 2)
    model = ss.NetworkScore(lambda x, t: torch.tanh(layer(x)), ss.VP(), "data", shape=(2,))
    with torch.no_grad():
        c = ss.compare(model, ["ddim"], [8], **{**QUIET, "reference_tolerance": 1e-3})
    assert c.rows[0].status == "ok"
    assert c.rows[0].error is not None


def test_bad_questions_get_a_sentence() -> None:
    oracle = mixture(ss.VP())
    with pytest.raises(ValueError, match="steps= cannot be passed here, where it is measured"):
        ss.compare(oracle, ["ddim"], [5], steps=3)
    with pytest.raises(ValueError, match="each of budgets must be at least 2, but is 1"):
        ss.compare(oracle, ["ddim"], [1])
    bad = [({"solvers": []}, ValueError, "solvers must not be empty"),
           ({"solvers": "ddim"}, TypeError, "solvers must be a list, but is 'ddim'"),
           ({"budgets": 5}, TypeError, "budgets must be a list, but is 5"),
           ({"budgets": [5.5]}, TypeError, "each of budgets must be a whole number"),
           ({"grids": ["rhoo"]}, ValueError, "grid 'rhoo' is unknown"),
           ({"tolerances": [0]}, ValueError, "each of tolerances must lie in \\(0, 1\\]"),
           ({"reference_tolerance": -1e-3}, ValueError, "reference_tolerance must lie in"),
           ({"samples": "8"}, TypeError, "samples must be a whole number"),
           ({"seed": 2**70}, ValueError, "seed must fit into 64 bits"),
           ({"t_min": 100.0}, ValueError, "t_min must lie in"),
           ({"metrics": "energy"}, TypeError, "metrics must be a list"),
           ({"metrics": {"a": 3}, "data": oracle.data(9)}, TypeError, "metric 'a' must be a function"),
           ({"file": Path()}, ValueError, "is a folder")]  # fmt: skip
    for options, kind, words in bad:
        with pytest.raises(kind, match=words):
            ss.compare(oracle, **{"solvers": ["ddim"], "progress": False, **options})
    blind = ss.NetworkScore(lambda x, t: x, ss.VP(), "data", shape=(2,))
    with pytest.raises(ValueError, match="moment_2 needs the mean and covariance"):
        ss.compare(blind, ["moment_2"])
    with pytest.raises(ValueError, match="are distances to data; pass data="):
        ss.compare(oracle, ["ddim"], [5], metrics=["energy"])
    with pytest.raises(ValueError, match="metric 'fod' is unknown"):
        ss.compare(oracle, ["ddim"], [5], metrics=["fod"], data=oracle.data(10))
    with pytest.raises(ValueError, match="needs features="):
        ss.compare(oracle, ["ddim"], [5], metrics=["fid"], data=oracle.data(10))
    with pytest.raises(ValueError, match="solver 'dim' is unknown"):
        ss.compare(oracle, ["dim"], [5])
