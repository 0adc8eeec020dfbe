r"""The loops: rows, counts, guards, and what is refused."""

import math
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from solvers import (
    ODE,
    SDE,
    Event,
    SemiLinear,
    SolverError,
    Tableau,
    count_call,
    solve,
)

from .problems import PROBLEMS, problem_for, start

ALL = solvers.available()
FIXED = [name for name in ALL if solvers.get(name).fixed]
PER_SAMPLE = ["bosh3", "dopri5"]
STIFFNESS = ODE(lambda t, x: -x * (1 + x[:, :1] ** 2) + torch.sin(5 * t))


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 9), seed=st.integers(0, 1000), backward=st.booleans())
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_row_of_a_batch_is_its_solo_solve(name: str, rows: int, seed: int, backward: bool) -> None:
    x = 3 * torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(seed))
    times = torch.tensor([1.0, 0.3] if backward else [0.3, 1.0])
    problem = ODE(
        lambda t, x: 3 * torch.cos(t + x.flatten(1).square().sum(1).reshape(-1, 1, 1)) * x
    )
    options = {"rtol": 1e-5, "atol": 1e-5}
    together = solve(problem, x, times, name, **options)
    for i in range(rows):
        alone = solve(problem, x[i : i + 1], times, name, **options)
        assert torch.equal(alone.x[0], together.x[i])
        for count in ("calls", "accepted", "rejected"):
            assert getattr(alone, count)[0] == getattr(together, count)[i]


def test_solved_rows_leave_the_batch() -> None:
    sizes = []

    def drift(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return -(x**3)

    x = torch.tensor([[0.01], [0.1], [30.0]])
    s = solve(ODE(drift), x, torch.tensor([0.0, 1.0]), "dopri5", rtol=1e-6, atol=1e-6)
    assert sizes[0] == 3
    assert sizes[-1] == 1
    assert s.calls.tolist() == sorted(s.calls.tolist())
    assert sum(sizes) == s.calls.sum()


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("steps", [1, 2, 5, 14])
def test_calls_are_those_of_the_catalogue(name: str, steps: int) -> None:
    calls, solver = [], solvers.get(name)
    problem = problem_for(solver)
    known = {"guess": lambda times, x: [torch.zeros_like] * len(times)}  # which costs no call
    counted = type(problem)(
        **{
            **vars(problem),
            **(known if solver.solves is SemiLinear else {}),
            "drift": lambda t, x: (calls.append(1), problem.drift(t, x))[1],
        }
    )
    s = solve(counted, start(0.3, rows=2), torch.linspace(0.3, 2.0, steps + 1), solver)
    assert s.calls.tolist() == [len(calls)] * 2
    assert len(calls) == solver.calls(steps)


def test_a_state_that_was_shown_is_freed_in_the_steps_that_follow() -> None:
    shown: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def drift(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        held.extend(state() is not None for state in shown)
        return -x

    def callback(event: Event) -> None:
        shown.append(weakref.ref(event.x))

    times = torch.linspace(0, 1, 11)
    solve(ODE(drift), torch.ones(1, 1), times, "euler", callback=callback, pause=60.0)
    assert len(shown) == 2  # at the first step and the last
    assert not any(held[2:])


def test_network_calls_count_where_they_happen() -> None:
    def drift(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        count_call(2)
        return -x

    s = solve(ODE(drift), torch.ones(2, 1), torch.linspace(0, 1, 4), "heun")
    assert s.calls.tolist() == [12, 12]


@pytest.mark.parametrize("name", [n for n in ALL if n != "edm_churn"])  # which goes back in time
def test_times_stay_inside_the_span(name: str) -> None:
    solver, seen = solvers.get(name), []
    problem = problem_for(solver)

    def drift(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        seen.extend(t.reshape(-1).tolist())
        return 300 * problem.drift(t, x) if not solver.fixed else problem.drift(t, x)

    options = {} if solver.fixed else {"rtol": 1e-2, "atol": 1e-2}
    for ends in ((0.1, 0.7), (0.7, 0.1)):
        times = torch.linspace(*ends, 8) if solver.fixed else torch.tensor(ends)
        if not solver.fixed and ends[0] > ends[1]:
            continue  # the stiff problem blows up backwards
        solve(
            type(problem)(**{**vars(problem), "drift": drift}),
            start(ends[0]),
            times,
            solver,
            **options,
        )
    assert 0.1 <= min(seen)
    assert max(seen) <= 0.7


@pytest.mark.parametrize(
    "name", [n for n in ALL if solvers.get(n).adaptive and solvers.get(n).solves is ODE]
)
def test_tolerance_holds_for_the_worst_sample(name: str) -> None:
    # one fast row among many slow ones, which a mean over the batch would hide
    rate = torch.cat([torch.full((63, 1), 0.01), torch.full((1, 1), 40.0)])
    kept = ODE(
        lambda t, x: -rate * (x - torch.cos(t)),
        rows=lambda index: ODE(lambda t, x: -rate[index] * (x - torch.cos(t))),
    )
    times, x = torch.tensor([0.0, 2.0]), torch.ones(64, 1)
    s = solve(kept, x, times, name, rtol=1e-6, atol=1e-6)
    r = 40.0  # of dx = -r (x - cos t), x(0) = 1
    t = torch.tensor(2.0)
    truth = (r**2 * t.cos() + r * t.sin() + torch.exp(-r * t)) / (1 + r**2)
    assert abs(s.x[-1, 0] - truth) < 3e-4


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype)
    s = solve(problem_for(solvers.get(name)), x, torch.linspace(1.0, 0.2, 7), name, path=True)
    assert s.x.dtype is dtype
    assert s.x.shape == shape
    assert s.path is not None
    assert s.path.shape == (7, *shape)
    assert torch.equal(s.path[-1], s.x)


def test_threads_share_solvers() -> None:
    results: dict[int, torch.Tensor] = {}

    def work(rows: int) -> None:
        x = torch.ones(rows, 1)
        results[rows] = solve(STIFFNESS, x, torch.linspace(0, 1, 200), "rk4").x
        assert solve(STIFFNESS, x, torch.linspace(0, 1, 200), "rk4").calls[0] == 199 * 4

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(x[0], results[1][0]) for x in results.values())
    assert len(results) == 4


def test_callback_is_told_each_step_once() -> None:
    events: list[Event] = []
    solve(STIFFNESS, torch.ones(2, 1), torch.linspace(0, 1, 20), "euler", callback=events.append)
    assert [e.fraction for e in events] == pytest.approx([i / 19 for i in range(1, 20)])
    events.clear()
    s = solve(
        STIFFNESS,
        torch.ones(2, 1),
        torch.tensor([0.0, 1.0]),
        "dopri5",
        rtol=1e-4,
        callback=events.append,
    )
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert len(events) == int((s.accepted + s.rejected).max())


# Failures: which samples, when, why, what to do, and what is kept.


def broken(after: float) -> ODE:
    def drift(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        bad = (t > after) & (x > 5)
        return torch.where(bad, math.nan, torch.ones_like(x))

    return ODE(drift)


@pytest.mark.parametrize("name", ["euler", "rk4", "dopri5"])
def test_nan_on_a_grid_names_samples_and_step(name: str) -> None:
    x = torch.tensor([[0.0], [10.0], [0.0], [20.0]])
    times = torch.linspace(0, 1, 41)
    with pytest.raises(
        SolverError,
        match=r"NaN or infinite at the step from t=0.5.* for samples \[1, 3\]; raise t_min",
    ) as error:
        solve(broken(0.51), x, times, name)
    kept = error.value.solution
    assert kept.status == ("ok", "nonfinite", "ok", "nonfinite")
    assert kept.x[1, 0] == pytest.approx(10.5, abs=0.03)
    s = solve(broken(0.51), x, times, name, on_failure="partial")
    assert s.status == ("ok", "nonfinite", "ok", "nonfinite")
    assert s.x[[0, 2], 0].tolist() == pytest.approx([1.0, 1.0])
    assert s.x[3, 0] == pytest.approx(20.5, abs=0.03)


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "torchdiffeq/dopri5", "torchdiffeq/bosh3"])
def test_nan_under_tolerances_ends_at_once(name: str) -> None:
    x = torch.tensor([[0.0], [10.0]])
    options = {"rtol": 1e-5, "atol": 1e-5}
    with pytest.raises(SolverError, match=r"samples \[1\]"):
        solve(broken(0.51), x, torch.tensor([0.0, 1.0]), name, **options)
    s = solve(broken(0.51), x, torch.tensor([0.0, 1.0]), name, on_failure="partial", **options)
    assert s.status[1] == "nonfinite"
    assert s.x.isfinite().all()
    assert s.calls.max() < 300


@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_blow_up_and_impossible_tolerances_end(name: str) -> None:
    blow_up = ODE(lambda t, x: x**2)  # x(t) = 1 / (1 - t)
    with pytest.raises(SolverError, match=r"t=1 for samples \[0\]"):
        solve(blow_up, torch.ones(1, 1), torch.tensor([0.0, 2.0]), name, rtol=1e-6, atol=1e-6)
    with pytest.raises(SolverError, match="limit on the number of steps"):
        solve(
            STIFFNESS,
            torch.ones(1, 1),
            torch.tensor([0.0, 1.0]),
            name,
            rtol=0.0,
            atol=1e-13,
            max_steps=50,
        )


@pytest.mark.parametrize(
    "name", ["euler", "rk4", "dopri5", "torchdiffeq/rk4", "torchdiffeq/dopri5"]
)
def test_budget_of_calls_is_kept(name: str) -> None:
    times = torch.linspace(0, 1, 100)
    options = {"rtol": 1e-12, "atol": 1e-12} if name.endswith("dopri5") else {}
    s = solve(
        STIFFNESS, torch.ones(2, 1), times, name, max_calls=30, on_failure="partial", **options
    )
    assert s.status == ("max_calls", "max_calls")
    assert 20 < s.calls.max() <= 30
    with pytest.raises(SolverError, match="budget of calls is spent"):
        solve(STIFFNESS, torch.ones(2, 1), times, name, max_calls=30, **options)


ODE1, X = PROBLEMS[ODE], torch.ones(1, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ODE1, X, torch.tensor([0.0, 1.0, 0.5]), "euler"), {}, "from 1 to 0.5"),
        ((ODE1, X, torch.tensor([0.0, math.nan]), "euler"), {}, r"times\[1\] is nan"),
        ((ODE1, X, torch.tensor([0.0, math.inf]), "euler"), {}, r"times\[1\] is inf"),
        ((ODE1, X, torch.tensor([0.0, -math.inf]), "euler"), {}, r"times\[1\] is -inf"),
        ((ODE1, X, torch.tensor([0.0]), "euler"), {}, r"\(1,\)"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "em"), {}, "type SDE, but got ODE"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "euler"), {"rtol": 1e-3}, "no effect; pass steps"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "dopri5"), {"rtol": -1.0}, "rtol must be .* is -1"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "dopri5"), {"rtol": 0.0}, "must not both be 0"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "torchdiffeq/dopri5"), {}, "pass rtol= and atol="),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "euler"), {"max_calls": 0}, "at least 1, but is 0"),
        (
            (ODE1, X, torch.tensor([0.0, 1.0]), "euler"),
            {"on_failure": "x"},
            "'raise' or 'partial'",
        ),
        ((ODE1, X, torch.tensor([0.0, 0.2, 1.0]), "torchdiffeq/explicit_adams"), {}, "equal size"),
        ((ODE1, X, torch.tensor([0.0, 1.0]), "dopri6"), {}, "did you mean 'dopri5'"),
        (
            (ODE1, X, torch.tensor([0.0, 1.0]), "torchsde/adjoint_reversible_heun"),
            {},
            "cannot be used: it",
        ),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_bad_input_gets_a_sentence(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(*arguments, **options)


def test_inconsistent_tableaus_are_refused() -> None:
    with pytest.raises(ValueError, match="weights of sum 1"):
        Tableau("bad", a=((), (1.0,)), b=(0.5, 0.6), order=2)
    with pytest.raises(ValueError, match="not explicit"):
        Tableau("bad", a=((1.0,), (1.0,)), b=(0.5, 0.5), order=2)


def test_every_method_of_both_libraries_is_in_the_catalogue_or_refused() -> None:
    from torchdiffeq._impl.odeint import SOLVERS
    from torchsde.settings import METHODS

    names = {*ALL, *solvers.catalogue.REFUSED}
    assert {f"torchdiffeq/{name}" for name in SOLVERS} <= names
    assert {f"torchsde/{name}" for name in METHODS.all()} <= names


def test_catalogue_is_true() -> None:
    for name in ALL:
        solver = solvers.get(name)
        assert str(solver) == name
        assert solvers.get(solver) is solver
        assert solver.solves in (ODE, SDE, SemiLinear)
        assert solver.fixed or solver.adaptive
    assert set(solvers.catalogue.NOTES) <= set(ALL)
    with pytest.raises(TypeError, match="solver must be a text or a Solver, but is 3"):
        solvers.get(3)  # type: ignore[arg-type]
