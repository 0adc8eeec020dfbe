r"""The held-out results of plans."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..comparing.bench import Bench, spread
from ..comparing.reference import rms
from ..files import Json
from ..runs.options import Options
from ..runs.plan import Plan


class Reached(TypedDict):
    r"""The results of a plan."""

    plan: str
    options: Options
    calls: float
    error: dict[str, float]
    distances: dict[str, tuple[float, float]]


def judge_all(
    benches: Mapping[str, Bench],
    best: Plan,
    others: Sequence[Sequence[Plan]],
    alone: Plan | None,
) -> Json:
    r"""Returns the results of a plan and others with held-out noise, on one model or several."""

    found = {}
    for (name, bench), plans in zip(benches.items(), others, strict=True):
        found[name] = _judge(bench, best, plans)
        if alone is not None:
            found[name]["alone"] = _reach(bench, alone)
    names = list(found)
    return found[names[0]] if alone is None else _of_all(found, names[0])


def _reach(bench: Bench, plan: Plan) -> Reached:
    r"""The results of a plan; samples with noise have no error, since they are not those of the flow."""

    s = bench.run(plan=plan)
    error = rms(s.x, bench.reference().x)
    return {"plan": str(plan), "options": plan.plain, "calls": s.calls.double().mean().item(),
            "error": {} if plan.noisy else {"mean": error.mean().item(), **spread(error)},
            "distances": bench.distances_of(s.x)}  # fmt: skip


def _judge(bench: Bench, best: Plan, others: Sequence[Plan]) -> Json:
    r"""The results of a plan and others with held-out noise."""

    mine = _reach(bench, best)
    return {
        "calls": mine["calls"],
        "error": mine["error"],
        "distances": mine["distances"],
        "samples": bench.shape[0],
        "seed": bench.seed,
        "of the exact flow": bench.distances_of(bench.reference().x),
        "best before": [_reach(bench, plan) for plan in others],
    }


def _of_all(by_model: Mapping[str, Json], alone: str) -> Json:
    r"""The figures of a plan for several models.

    Arguments:
        by_model: The held-out figures for each model, where "best before" begins with the catalogue's best, and
            "alone" are the results of the plan that was made for one of the models alone.
        alone: The name of that model.
    """

    rows = list(by_model.values())
    first = rows[0]
    found = {
        "calls": max(row["calls"] for row in rows),
        "error": {name: _mean([row["error"][name] for row in rows]) for name in ("mean",) if first["error"]},
        "distances": {name: tuple(_mean([row["distances"][name][i] for row in rows]) for i in (0, 1))
                      for name in first["distances"]},
        "samples": first["samples"],
        "seed": first["seed"],
    }  # fmt: skip
    if first["error"]:
        found["relative error"] = _mean([_relative(row, row) for row in rows])
        found[f"relative error of the plan for {alone} alone"] = _mean(
            [_relative(row["alone"], row) for row in rows]
        )
    return {**found, "by model": dict(by_model)}


def _relative(reached: Json, row: Json) -> float:
    r"""The mean error of a plan, over that of the best plan of the catalogue unless that is 0."""

    least = row["best before"][0]["error"]["mean"]
    return float(reached["error"]["mean"] / (least or 1.0))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
