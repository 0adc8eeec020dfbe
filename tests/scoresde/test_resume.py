r"""A run that ended early, however it did, goes on to the bits of the run in one piece."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers import Event, Solution, SolverError

from ..families import FAMILIES
from .cases import MEANS, mixture

NATIVE = [name for name in FAMILIES if solvers.get(name).stepwise]
TENSORS = ("x", "path", "times", "reached", "calls", "accepted", "rejected", "companion")
ROOT = Path(__file__).parent.parent.parent
Verb = Callable[..., Solution]


def assert_same(one: Solution, other: Solution) -> None:
    for name in TENSORS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)), name
    assert one.status == other.status
    assert one.provenance == other.provenance
    assert one.solver == other.solver


def options_of(solver: str) -> dict[str, Any]:
    able, loose = solvers.get(solver), {"exponential_sde": 0.1}.get(solver, 1e-3)
    kept = able.fixed or not able.stochastic
    return {"solver": solver, "path": kept, "seed": 3,
            **({"steps": 6} if able.fixed and not able.adaptive else {"rtol": loose, "atol": loose})}  # fmt: skip


class Stop:
    r"""A callback that ends a run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, event: Event) -> bool:
        self.left -= 1
        return self.left <= 0


class Breaks:
    r"""A network that raises an error or interrupt at one of its calls, and is one of the table otherwise."""

    def __init__(self, call: int = 0, error: BaseException | None = None) -> None:
        self.left, self.error = call, error or KeyboardInterrupt()
        self.oracle = mixture(ss.EDM())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.oracle.denoise(x, t)


def network(call: int = 0, error: BaseException | None = None) -> ss.NetworkScore:
    return ss.NetworkScore(Breaks(call, error), ss.EDM(), "data", shape=(2,), data_scale=1.0)


def interrupted(verb: Verb, call: int, *arguments: Any, **options: Any) -> Solution | None:
    r"""What a run carries that is interrupted at a network call: nothing before its first step."""

    try:
        verb(network(call), *arguments, **options)
    except KeyboardInterrupt as stop:
        return getattr(stop, "solution", None)
    pytest.fail("the run has fewer calls")


@pytest.mark.parametrize("solver", NATIVE)
def test_a_stopped_run_goes_on_to_the_same_bits(solver: str, tmp_path: Path) -> None:
    oracle, options = mixture(ss.VP()), options_of(solver)
    whole = ss.sample(oracle, 3, **options)
    for steps in (1, 3, 6):
        part = ss.sample(oracle, 3, callback=Stop(steps), **options)
        assert_same(ss.resume(oracle, part), whole) if not part.ok else None
        if steps == 3:
            assert not part.ok
            ss.save_solution(tmp_path / "s.npz", part)
            again = ss.load_solution(tmp_path / "s.npz")
            assert_same(again, part)
            assert_same(ss.resume(oracle, again), whole)
            later = ss.resume(oracle, again, callback=Stop(2))
            assert not later.ok
            assert_same(ss.resume(oracle, later), whole)
    assert whole.memory is None


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "sa", "exponential", "dopri5", "o_belm"])
def test_an_interrupt_at_any_network_call_loses_no_step(solver: str) -> None:
    options, model = {**options_of(solver), "batch_size": 2}, network()
    whole, known = ss.sample(model, 3, **options), set()
    calls = -model.network.left  # those that check the network included
    for call in range(1, calls + 1, max(1, calls // 12)):
        part = interrupted(ss.sample, call, 3, **options)
        if part is None:  # before the first step
            continue
        assert len(part) == 3
        assert "stopped" in part.status
        known.add(tuple(part.accepted.tolist()))
        assert_same(ss.resume(network(), part), whole)
    assert len(known) > 5
    last = interrupted(ss.sample, calls, 3, **options)  # in the last denoising
    assert last is not None
    assert last.status == ("stopped",) * 3
    assert torch.equal(last.accepted, whole.accepted)


@pytest.mark.parametrize(
    "solver", ["exponential", "exponential_fitted", "lattice_heun", "deis_time_3", "edict"]
)
def test_encoding_goes_on_and_leads_back(solver: str) -> None:
    options = {k: v for k, v in options_of(solver).items() if k != "seed"}
    whole = ss.encode(network(), MEANS, **options)
    part = ss.encode(network(), MEANS, callback=Stop(3), **options)
    z = ss.resume(network(), part)
    assert_same(z, whole)
    back = [ss.decode(network(), latents, denoise=False).x for latents in (z, whole)]
    assert torch.equal(*back)
    half = ss.decode(network(), z, denoise=False, callback=Stop(2))
    assert torch.equal(ss.resume(network(), half).x, back[0])


@pytest.mark.parametrize("solver", ["unipc", "dopri5"])
def test_the_budget_of_calls_may_grow(solver: str) -> None:
    oracle, options = mixture(ss.VP()), options_of(solver)
    whole = ss.sample(oracle, 3, **options)
    with pytest.raises(SolverError) as e:
        ss.sample(oracle, 3, max_calls=4, **options)
    assert e.value.solution is not None
    assert_same(ss.resume(oracle, e.value.solution), whole)
    part = ss.sample(oracle, 3, max_calls=1 + 1, on_failure="partial", **options)
    for limit in (2, 4, 6):
        part = ss.resume(oracle, part, max_calls=limit)
        assert int(part.calls.max()) <= limit
        assert not part.ok
    assert_same(ss.resume(oracle, part), whole)
    with pytest.raises(SolverError, match="budget of calls is spent"):
        ss.resume(oracle, part, max_calls=3, on_failure="raise")


def test_batches_go_on_in_any_size() -> None:
    oracle, options = mixture(ss.VP()), options_of("dpmpp_2m_sde")
    whole = ss.sample(oracle, 7, batch_size=2, **options)
    part = ss.sample(oracle, 7, batch_size=2, callback=Stop(9), **options)
    assert part.status == ("ok", "ok", *("stopped",) * 5)
    assert part.path is not None
    assert part.path.shape == (7, 7, 2)
    for size in (None, 2, 3, 5):
        found = ss.resume(oracle, part, **({} if size is None else {"batch_size": size}))
        assert torch.allclose(found.x, whole.x, rtol=0, atol=1e-12)
        assert torch.equal(found.calls, whole.calls)
        assert_same(found, whole) if size in (None, 2) else None
    with pytest.raises(SolverError) as e:
        ss.sample(oracle, 7, batch_size=2, max_calls=3, **options)
    assert len(e.value.solution or ()) == 2
    assert_same(ss.resume(oracle, e.value.solution), whole)


def test_samples_have_times_seeds_and_noise_of_their_own(tmp_path: Path) -> None:
    oracle = mixture(ss.EDM())
    times = torch.tensor([[5.0, 9.0], [2.0, 3.0], [1.0, 1.1], [0.5, 0.1], [0.1, 0.05]])
    for options in (
        {"times": times, "solver": "exponential_3", "seed": 1},
        {"times": times, "solver": "sa", "seeds": [4, 9]},
        {"times": times, "solver": "dpm_adaptive", "rtol": 1e-2},
        {"steps": 4, "solver": "em", "noise": torch.randn(4, 2, 2)},
        {"steps": 4, "solver": "em", "noise": "path", "first_index": 5, "eta": 0.5},
        {"steps": 4, "solver": "ancestral", "eta": 0.5, "eta_convention": "ddim"},
        {"steps": 4, "solver": "sa", "eta": torch.tensor([0.5, 1.0])},
        {"levels": [9.0, 2.0, 0.5, 0.1, 0.0], "solver": "dpmpp_2m"},
    ):
        whole = ss.sample(oracle, 2, **options)
        part = ss.sample(oracle, 2, callback=Stop(2), **options)
        ss.save_solution(tmp_path / "s.npz", part)
        assert_same(ss.resume(oracle, ss.load_solution(tmp_path / "s.npz")), whole)
    motion = solvers.Path(0, torch.arange(2), torch.zeros(2, 2))
    part = ss.sample(oracle, 2, solver="em", steps=4, noise=motion, callback=Stop(2))
    assert_same(ss.resume(oracle, part), ss.sample(oracle, 2, solver="em", steps=4, noise=motion))
    with pytest.raises(ValueError, match="depends on a Path, such as a noise= or eta= of its own"):
        ss.save_solution(tmp_path / "s.npz", part)


def burnt(x: Tensor, t: Tensor) -> Tensor:
    r"""A network that fails for the second of its rows at small noise."""

    fails = (t < 0.3) & (x[:, 0] > 0)
    return torch.where(fails[:, None], torch.nan, 0.3 * x)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "exponential"])
def test_failed_samples_stay_failed_and_others_go_on(solver: str) -> None:
    model = ss.NetworkScore(burnt, ss.EDM(), "data", shape=(2,), data_scale=0.5)
    options = options_of(solver) | ({"steps": 12} if "steps" in options_of(solver) else {})
    whole = ss.sample(model, 8, on_failure="partial", **options)
    assert {"ok", "nonfinite"} == set(whole.status)
    most = int((whole.accepted + whole.rejected).max())
    for steps in range(1, most, 1 if most < 13 else 4):
        part = ss.sample(model, 8, on_failure="partial", callback=Stop(steps), **options)
        assert_same(ss.resume(model, part) if "stopped" in part.status else part, whole)
    with pytest.raises(SolverError) as e:
        ss.sample(model, 8, **options)
    failed = e.value.solution
    assert failed is not None
    with pytest.raises(SolverError) as again:
        ss.resume(model, failed)
    assert str(again.value) == str(e.value)
    assert_same(ss.resume(model, failed, on_failure="partial"), whole)


@pytest.mark.parametrize("solver", ["ddim", "dopri5", "lattice_heun_isotropic"])
def test_errors_of_networks_and_callbacks_carry_the_solution(solver: str) -> None:
    options = options_of(solver)
    whole, told = ss.sample(network(), 3, **options), []

    def broken(event: Event) -> None:
        told.append(event)
        if len(told) == 3:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full") as e:
        ss.sample(network(), 3, callback=broken, **options)
    part: Solution = e.value.solution  # type: ignore[attr-defined]
    assert set(part.status) == {"stopped"}
    assert torch.equal(part.x, told[1].x)
    assert_same(ss.resume(network(), part), whole)
    with pytest.raises(MemoryError) as full:
        ss.sample(network(30 if solver == "dopri5" else 4, MemoryError()), 3, **options)
    assert_same(ss.resume(network(), full.value.solution), whole)  # type: ignore[attr-defined]


def test_a_run_goes_on_in_the_form_of_the_user() -> None:
    plain, model = mixture(ss.VP()), mixture(ss.VP())
    model.transform = ss.Standardized(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 5.0]))
    options = {"steps": 6, "seed": 2, "path": True}
    whole = ss.sample(model, 3, **options)
    part = ss.sample(model, 3, callback=Stop(2), **options)
    assert_same(ss.resume(model, part), whole)
    with pytest.raises(SolverError) as e:
        ss.sample(model, 3, max_calls=3, **options)
    assert_same(ss.resume(model, e.value.solution), whole)
    z = ss.encode(model, whole.x, solver="ddim", steps=4)
    half = ss.encode(model, whole.x, solver="ddim", steps=4, callback=Stop(2))
    assert_same(ss.resume(model, half), z)
    x = ss.sample(plain, 3, **options).x
    torch.testing.assert_close(whole.x, torch.tensor([3.0, -1.0]) + torch.tensor([2.0, 5.0]) * x)


def test_conditions_are_passed_again() -> None:
    table, label = mixture(ss.VP()), torch.tensor([0, 2, 1])
    whole = ss.sample(table, 3, steps=5, seed=1, label=label)
    part = ss.sample(table, 3, steps=5, seed=1, label=label, callback=Stop(2))
    assert_same(ss.resume(table, part, label=label), whole)
    assert_same(ss.resume(table.given(label=label), part), whole)
    with pytest.raises(ValueError, match="was begun with label=, which is missing here"):
        ss.resume(table, part)
    with pytest.raises(ValueError, match="values of the conditions differ"):
        ss.resume(table, part, label=label.flip(0))
    with pytest.raises(ValueError, match="was begun without label=.*leave it out"):
        ss.resume(table, ss.sample(table, 3, steps=5, callback=Stop(2)), label=label)


def test_what_cannot_go_on_says_why(tmp_path: Path) -> None:
    oracle = mixture(ss.VP())
    part = ss.sample(oracle, 3, steps=5, callback=Stop(2))
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: ss.resume(oracle, ss.sample(oracle, 3, steps=5)), "has reached its end"),
        (lambda: ss.resume(mixture(ss.EDM()), part), "begun with the process VP.*but here it is EDM"),
        (lambda: ss.resume(network(), ss.sample(mixture(ss.EDM()), 3, steps=5, callback=Stop(2))),
         "begun with the model Mixture.*but here it is Network"),
        (lambda: ss.resume(oracle, part[:2]), "does not hold the memory of its run"),
        (lambda: ss.resume(oracle, part, steps=3), "steps= has no effect on a run that goes on"),
        (lambda: ss.resume(oracle, part, max_calls=1), "max_calls must be more than the 1"),
    ]  # fmt: skip
    looped = ss.sample(oracle, 3, steps=5, solver="torchdiffeq/rk4", callback=Stop(2))
    tracked = ss.sample(oracle, 3, steps=5, grad="backprop", callback=Stop(2))
    edited = ss.edit(oracle, oracle, MEANS, strength=0.5, steps=8, solver="ddim", callback=Stop(2))
    refused += [
        (
            lambda: ss.resume(oracle, looped),
            "torchdiffeq/rk4 takes its steps in a loop of its own",
        ),
        (lambda: ss.resume(oracle, tracked), r"the run kept gradients \(grad=\)"),
        (lambda: ss.resume(oracle, edited), "is a part of edit.*call edit again"),
    ]
    for call, words in refused:
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    assert part.memory is not None
    part.memory["options"]["seed"] = 4  # a memory is of its own run
    with pytest.raises(ValueError, match="needs an npz file"):
        ss.save_solution(tmp_path / "s.pt", part)


SCRIPT = """
import sys, torch, scoresde as ss
torch.set_default_dtype(torch.float64)
means = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]])
model = ss.MixtureOracle(means, 0.3, process=ss.VP())
for file in sys.argv[1:]:
    ss.save_solution(file, ss.resume(model, ss.load_solution(file)))
"""


def test_a_run_goes_on_in_another_process(tmp_path: Path) -> None:
    oracle, made = mixture(ss.VP()), {}
    for number, solver in enumerate(("unipc", "ancestral", "dopri5", "torchsde/srk")):
        options, file = options_of(solver), tmp_path / f"{number}.npz"
        made[file] = ss.sample(oracle, 3, **options)
        ss.save_solution(file, ss.sample(oracle, 3, callback=Stop(3), **options))
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *made],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    for file, whole in made.items():
        assert_same(ss.load_solution(file), whole)


def test_any_solution_comes_back_from_a_file(tmp_path: Path) -> None:
    model = network()
    runs = (
        ss.sample(model, 3, steps=3, path=True),
        ss.encode(model, MEANS, solver="reversible_heun", steps=3),
        ss.decode(model, MEANS, solver="dopri5", t_max=2.0),
        ss.sample(ss.GaussianOracle(torch.zeros(2), 1.0), 2, steps=2, dtype=torch.float32),
    )
    for s in runs:
        ss.save_solution(tmp_path / "s.npz", s)
        back = ss.load_solution(tmp_path / "s.npz")
        back.provenance["seeds"] = s.provenance["seeds"]
        assert_same(back, s)


@pytest.mark.parametrize(("change", "words"), [
    (lambda a: a.update(x=a["x"].astype(int)), "'x' must hold finite"),
    (lambda a: a.update(path=a["path"][:2]), "'path' must have shape"),
    (lambda a: a.update(reached=a["reached"][:2]), "'reached' must have shape"),
    (lambda a: a.update(memory=np.array("{")), "Expecting property name"),
    (lambda a: a.update(memory=np.array("3")), "it must hold named entries"),
    (lambda a: a.pop(next(name for name in a if name.startswith("memory "))), "memory"),
    (lambda a: a.update(memory=np.array(json.dumps({"entries": {"verb": "sample"}}))), "it lacks 'start'"),
])  # fmt: skip
def test_a_damaged_file_gets_one_sentence(tmp_path: Path, change: Any, words: str) -> None:
    file = tmp_path / "s.npz"
    part = ss.sample(mixture(ss.VP()), 3, steps=5, path=True, callback=Stop(2))
    ss.save_solution(file, part)
    with np.load(file) as loaded:
        arrays = dict(loaded)
    change(arrays)
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=r"s\.npz holds no solution, or is damaged: ") as e:
        ss.load_solution(file)
    assert words in str(e.value)
    assert str(e.value).endswith(".")
    assert "\n" not in str(e.value)
