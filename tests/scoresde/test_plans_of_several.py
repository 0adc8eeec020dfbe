r"""One plan for several models: what its value is, that it is the best for all of them, and what it reports."""

from dataclasses import replace

import pytest
import torch

import scoresde as ss
from scoresde.comparing.bench import Bench
from scoresde.tuning.objective import Measure, Objective
from scoresde.tuning.ranges import Together

from .cases import mixture

LABEL = torch.arange(16) % 3
FEW = {"samples": 16, "held_out": 32, "reference_tolerance": 1e-2, "progress": False}


def guided(*scales: float) -> dict[float, ss.ScoreModel]:
    oracle = mixture(ss.VP())
    return {w: ss.classifier_free(oracle, w, label=LABEL) for w in scales}


def error(model: ss.ScoreModel, plan: ss.Plan, count: int = 16, seed: int = 0) -> float:
    rows = model.rows(torch.arange(count) % 16)
    exact = ss.sample(rows, count, rtol=1e-2, atol=1e-2, seed=seed, dtype=torch.float64).x
    plan = replace(plan, model="")  # which may be another
    x = ss.sample(rows, count, plan=plan, seed=seed, dtype=torch.float64).x
    return (x - exact).square().mean(1).sqrt().mean().item()


def test_the_value_of_a_plan_is_its_mean_error_in_units_of_the_best_of_the_catalogue() -> None:
    models = guided(2.0, 8.0)
    names = ("ddim", "dpmpp_2m", "ipndm_2")
    plans = [ss.Plan({"solver": name, "steps": 3}) for name in names]
    parts = []
    for model in models.values():
        bench = Bench(model, (16, 2), 0, 1e-2, options={"dtype": torch.float64})
        parts.append(Objective(Measure(bench, "error"), None, {}, lambda done: None))
    found = Together(parts)(plans)
    errors = [[error(model, plan) for plan in plans] for model in models.values()]
    wants = [(errors[0][i] / min(errors[0]) + errors[1][i] / min(errors[1])) / 2 for i in range(3)]
    assert found == pytest.approx(wants, rel=1e-6)


def test_one_plan_is_no_worse_for_all_than_that_for_one() -> None:
    models = guided(1.0, 4.0)
    options = {"solvers": ["ddim", "dpmpp_2m"], "grids": ["rho"], **FEW}
    plan = ss.tune(models, 6, **options)
    alone = ss.tune(models[1.0], 3, **options)  # whose calls are half as many
    catalogue = [
        ss.Plan({"solver": name, "steps": 2, "grid": "rho"}) for name in options["solvers"]
    ]
    units = [min(error(model, entry) for entry in catalogue) for model in models.values()]

    def value(some: ss.Plan) -> float:
        return sum(error(m, some) / u for m, u in zip(models.values(), units, strict=True)) / 2

    assert value(plan) <= value(alone)
    assert value(plan) < 1
    f = plan.figures
    assert plan.model == ""
    assert f["calls"] == 6
    assert list(f["by model"]) == ["1.0", "4.0"]
    for scale, model in models.items():
        row = f["by model"][str(scale)]
        assert row["error"]["mean"] == pytest.approx(error(model, plan, 32, 1), rel=1e-6)
        assert row["alone"]["error"]["mean"] == pytest.approx(error(model, alone, 32, 1), rel=1e-6)
    relative = [row["error"]["mean"] / row["best before"][0]["error"]["mean"]
                for row in f["by model"].values()]  # fmt: skip
    assert f["relative error"] == pytest.approx(sum(relative) / 2)
    assert f["relative error of the plan for 1.0 alone"] > 0


def curved(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return label[:, None] * torch.tanh(x)  # the flow is a line where the label is 0


def test_each_row_is_judged_with_its_own_label() -> None:
    model = ss.NetworkScore(curved, ss.EDM(), "data", conditions=("label",), shape=(2,))
    options = {"solvers": ["ddim"], "grids": ["rho"], **FEW, "reference_tolerance": 1e-3}
    each = ss.tune({str(k): model.given(label=float(k)) for k in (0, 1)}, 3, **options)
    rows = each.figures["by model"]
    assert rows["0"]["error"]["mean"] < 1e-3 < 0.01 < rows["1"]["error"]["mean"]
    label = torch.arange(16) % 2
    both = ss.tune(model, 3, label=label.double(), **options).figures["error"]
    assert both["median"] < 0.6 * both["q90"]  # half of the rows have no error


def test_models_that_share_no_plan_get_a_sentence() -> None:
    models = guided(2.0, 4.0)
    bad = [({}, "model must hold at least one model, but is empty"),
           ({"a": mixture(ss.VP()), "b": mixture(ss.EDM())}, "model must have the same process"),
           ({1: models[2.0], "1": models[4.0]}, "names of models must differ as text"),
           ({"a": models[2.0], "b": 3}, "model must be a ScoreModel, but is a int")]  # fmt: skip
    for several, words in bad:
        with pytest.raises((ValueError, TypeError), match=words):
            ss.tune(several, 6, progress=False)
    with pytest.raises(ValueError, match="cannot be combined with 2 models"):
        ss.tune(models, 6, learned=True, progress=False)
