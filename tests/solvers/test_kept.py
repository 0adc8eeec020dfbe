r"""Coefficients are kept from run to run, and never where they could differ."""

import pytest
import torch

import solvers
from solvers.kept import LARGEST, kept, told
from solvers.methods import exponential

TIMES = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Known(solvers.ConstantRate):
    r"""A linear part that says by what its numbers are known."""

    @property
    def key(self) -> tuple[str, float]:
        return "known", self.rate


def problem(linear: solvers.Linear) -> solvers.SemiLinear:
    return solvers.SemiLinear(lambda t, x: torch.sin(x + t), linear)


def runs(
    linear: solvers.Linear, times: torch.Tensor, solver: str = "exponential_3"
) -> torch.Tensor:
    return solvers.solve(problem(linear), torch.ones(2, 3, dtype=torch.float64), times, solver).x


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    r"""The number of values of each set of weights that is computed."""

    found: list[int] = []

    def weights(linear, s, t, decay, nodes, *rest):
        found.append(nodes.shape[-1])
        return whole(linear, s, t, decay, nodes, *rest)

    whole = exponential.weights
    monkeypatch.setattr(exponential, "weights", weights)
    return found


def test_second_run_on_a_grid_computes_no_weights(made):
    times = TIMES * 1.1
    first, count = runs(Known(-1.3), times), len(made)
    assert count == 3  # of one value, two and three
    assert torch.equal(runs(Known(-1.3), times.clone()), first)
    assert len(made) == count


@pytest.mark.parametrize(
    "change", [(Known(-1.4), TIMES, "exponential_3"), (Known(-1.3), TIMES**2, "exponential_3"),
               (Known(-1.3), TIMES, "exponential_3:lower_order_final=True")],
)  # fmt: skip
def test_another_linear_part_grid_or_solver_has_its_own(change):
    linear, times, solver = change
    runs(Known(-1.3), TIMES)
    unkept = runs(solvers.ConstantRate(linear.rate), times, solver)
    assert torch.equal(runs(linear, times, solver), unkept)


@pytest.mark.parametrize("solver", ["exponential_3", "foresight_2", "unipc"])
def test_grids_that_differ_in_one_time_share_nothing(solver):
    for place in range(5):
        times = TIMES.clone()
        times[place] -= 0.1
        for grid in (TIMES, times):
            found = runs(Known(-1.7), grid, solver)
            assert torch.equal(found, runs(solvers.ConstantRate(-1.7), grid, solver))


def test_nothing_is_kept_of_a_linear_part_without_key(made):
    for _ in range(2):
        runs(solvers.ConstantRate(-1.3), TIMES)
    assert len(made) == 6


def test_rows_with_grids_of_their_own_are_told_apart():
    two = torch.stack([TIMES, TIMES**2], 1)
    for times in (two, two.flip(1)):
        assert torch.equal(runs(Known(-1.3), times), runs(solvers.ConstantRate(-1.3), times))


@pytest.mark.parametrize("solver", ["exponential_3", "foresight_2"])
def test_states_of_another_dtype_or_rank_share_nothing(solver):
    times = torch.stack([TIMES, TIMES**2], 1)  # so that factors are tensors like the state
    for shape in ((2,), (2, 3), (2, 3, 1)):
        for dtype in (torch.float32, torch.float64):
            x = torch.ones(shape, dtype=dtype)
            kept_run, whole = (
                solvers.solve(problem(linear(-1.3)), x, times, solver).x
                for linear in (Known, solvers.ConstantRate)
            )
            assert kept_run.dtype == dtype
            assert torch.equal(kept_run, whole)


def test_content_is_the_key():
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [2.0]])
    assert told(one) == told(one.clone()) != told(other)
    assert told(torch.zeros(LARGEST + 1)) is None
    assert told(torch.zeros(2, device="meta")) is None  # whose content would have to be fetched


def test_what_inference_mode_makes_stays_there():
    weight = torch.ones(1, requires_grad=True)
    with torch.inference_mode():
        kept(lambda: torch.ones(1), "a key of this test")
    value = kept(lambda: torch.ones(1), "a key of this test")
    (weight * value).backward()
    assert weight.grad == 1
