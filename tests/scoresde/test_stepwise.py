r"""Runs that ask for each network output, or show each step, equal those that nobody owns, bit for bit."""

import gc
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers.network_calls import uncounted

from ..families import family_first
from .cases import mixture

ORACLE = mixture(ss.EDM())
FIXED = [name for name in solvers.available() if solvers.get(name).fixed and "/" not in name]


def network(x: Tensor, t: Tensor) -> Tensor:
    with uncounted():  # oracles count their calls, and so would networks
        return ORACLE.denoise(x, t)


def own(verb: Any) -> Any:
    return ss.Stepwise(verb, ORACLE.process, "data", shape=(2,))


def answered(run: Any) -> tuple[Any, int]:
    asked = 0
    while run.question is not None:
        run.tell(network(run.question.x, run.question.t))
        asked += 1
    return run.result, asked


def known(model: ss.ScoreModel) -> ss.ScoreModel:
    model.moments = ORACLE.moments
    return model


@pytest.mark.parametrize("solver", family_first(FIXED))
def test_every_solver_asks_for_what_it_would_call(solver: str) -> None:
    options: dict[str, Any] = {"solver": solver, "steps": 5, "seed": 3, "dtype": torch.float64}
    model = known(ss.NetworkScore(network, ORACLE.process, "data", shape=(2,)))
    right = ss.sample(model, 3, **options)
    found, asked = answered(own(lambda model: ss.sample(known(model), 3, **options)))
    assert torch.equal(found.x, right.x)
    assert asked == int(right.calls.max())


def test_plans_encodings_and_guidance_too(tmp_path: Path) -> None:
    model = ss.NetworkScore(network, ORACLE.process, "data", shape=(2,))
    x = ORACLE.data(4)
    for solver in ("lattice_heun:block=4", "rex_midpoint", "exponential_3"):
        right = ss.encode(model, x, solver=solver, steps=6)
        found, _ = answered(own(lambda m: ss.encode(m, x, solver=solver, steps=6)))  # noqa: B023
        assert torch.equal(found.x, right.x)
        back, _ = answered(own(lambda m: ss.decode(m, found, denoise=False)))  # noqa: B023
        assert torch.equal(back.x, ss.decode(model, right, denoise=False).x)
    plan = ss.Plan({"solver": "unipc"}, (80.0, 3.0, 1.0, 0.2, 0.01))
    right = ss.sample(model, 4, plan=plan, seed=1)
    found, asked = answered(own(lambda m: ss.sample(m, 4, plan=plan, seed=1)))
    assert torch.equal(found.x, right.x)
    assert asked == 5


def test_steps_are_iterated() -> None:
    right = ss.sample(ORACLE, 4, steps=8, seed=2, path=True)
    steps = ss.StepByStep(lambda tell: ss.sample(ORACLE, 4, steps=8, seed=2, callback=tell))
    states = [event.x for event in steps]
    assert right.path is not None
    assert all(torch.equal(x, y) for x, y in zip(states, right.path[1:], strict=True))
    assert torch.equal(steps.solution.x, right.x)
    short = ss.StepByStep(
        lambda tell: ss.sample(ORACLE, 4, steps=8, seed=2, callback=tell, denoise=False)
    )
    for event in short:
        if event.fraction >= 0.5:
            short.stop()
    assert short.solution.status == ("stopped",) * 4
    assert torch.equal(short.solution.x, right.path[4])


def test_failures_reach_the_owner_and_no_thread_stays() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        own(lambda m: ss.sample(m, 2, steps=0))
    run = own(lambda m: ss.sample(m, 2, steps=5, seed=0))
    with pytest.raises(ValueError, match="the network must return the shape of its input"):
        run.tell("nothing")
    assert run.question is None
    before = threading.active_count()
    run = own(lambda m: ss.sample(m, 2, steps=5, seed=0))
    with pytest.raises(ValueError, match="not done"):
        _ = run.result
    waiting = run._run._thread
    run.close()
    waiting.join(5)
    with pytest.raises(ValueError, match="was closed before its end, so it has no result"):
        _ = run.result
    assert answered(own(lambda m: None))[0] is None  # which is what the verb returned
    run = own(lambda m: ss.sample(m, 2, steps=5, seed=0))
    waiting = run._run._thread
    del run
    gc.collect()
    waiting.join(5)
    assert threading.active_count() == before


@pytest.mark.parametrize("grad", ["checkpoint", "adjoint"])
def test_ways_of_gradients_that_ask_again_are_refused(grad: str) -> None:
    options = {"solver": "torchdiffeq/rk4", "steps": 3, "grad": grad}
    with pytest.raises(
        ValueError, match=f"grad='{grad}' asks the network again in the backward pass"
    ):
        own(lambda m: ss.sample(m, 2, **options))
    weight = torch.tensor(1.0, requires_grad=True)
    run = own(lambda m: ss.sample(m, 2, steps=3, seed=0, grad="backprop"))
    while run.question is not None:
        run.tell(weight * network(run.question.x, run.question.t))
    run.result.x.sum().backward()
    assert weight.grad is not None
    assert weight.grad != 0
