r"""What runs keep is not used once the model has changed, and no network spoils the state of a run."""

import numpy as np
import pytest
import torch

import scoresde as ss
from scoresde.models.predictions import PREDICTIONS
from solvers.kept import _made

OPTIONS = {"solver": "dpmpp_2m", "steps": 4, "seed": 3}


def pull(x, t):
    return -0.1 * x / (1 + t.reshape(-1, *[1] * (x.ndim - 1)).abs()) ** 2


def model(process=None, predicts="edm", **options):
    process = ss.EDM() if process is None else process
    return ss.NetworkScore(pull, process, predicts, shape=(3,), **options)


def drawn(made):
    return ss.sample(made, 5, **OPTIONS).x


LOW = ss.VE(ss.Geometric(0.01, 4.0))


@pytest.mark.parametrize(
    "change",
    [{"data_std": 0.7}, {"process": LOW}, *({"process": LOW, "predicts": name} for name in PREDICTIONS)],
)  # fmt: skip
def test_a_changed_model_samples_as_a_new_one(change):
    changed = model()
    drawn(changed)
    for name, value in change.items():
        setattr(changed, name, value)
    x = drawn(changed)
    _made.cache_clear()  # so that the new one computes everything
    assert torch.equal(x, drawn(model(**{"data_std": 0.5, **change})))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("predicts", ["noise", "data", "velocity", "edm"])
def test_fields_that_differ_in_one_coefficient_share_nothing(predicts, place):
    def fields(made, numbers, x):
        return torch.stack([f(x) for f in made.combine(*numbers, x)])

    process, x = ss.VP(), torch.linspace(-1, 1, 6).reshape(2, 3)
    made, numbers = model(process, predicts), [torch.tensor([0.5, 0.2]).double() for _ in "tabs"]
    fields(made, numbers, x)
    numbers[place] = numbers[place] + 0.1
    for y in (x, x.double(), x[:1], x[..., None]):
        found = fields(made, numbers, y)
        _made.cache_clear()
        assert torch.equal(found, fields(model(process, predicts), numbers, y))


class Told(torch.nn.Module):
    r"""Says which times it is told."""

    def __init__(self, dtype):
        super().__init__()
        self.weight, self.times = torch.nn.Parameter(torch.ones(1, dtype=dtype)), []

    def forward(self, x, t):
        self.times.append(t)
        return self.weight * x


def test_weights_of_another_dtype_are_told_times_of_their_own():
    found = []
    for dtype in (torch.float32, torch.float64):
        network = Told(dtype)
        made = ss.NetworkScore(network, ss.VP(), "data", shape=(3,))
        ss.sample(made, 5, dtype=torch.float32, **OPTIONS)
        found.append(torch.stack(network.times))
    exact = ss.sample(ss.NetworkScore(network, ss.VP(), "data", shape=(3,)), 5, **OPTIONS).times
    assert found[1].dtype == torch.float64
    assert torch.allclose(found[1][: len(exact), 0], exact, rtol=1e-13, atol=0)
    assert torch.equal(found[0], found[1].float())


def test_a_process_of_ones_own_is_asked_again():
    level = [1.0]
    process = ss.CustomProcess(torch.ones_like, lambda t: level[0] * t, t_min=0.01, t_max=8.0)
    before = drawn(model(process, "data"))
    level[0] = 2.0
    assert not torch.equal(drawn(model(process, "data")), before)


def test_times_of_a_solution_may_be_changed():
    first = ss.sample(model(), 2, **OPTIONS)
    first.times.zero_()
    assert ss.sample(model(), 2, **OPTIONS).times[0] == ss.EDM().t_max


def writes(x, t):
    x.mul_(0.5)
    return x / (1 + t[:, None])


def writes_by_numpy(x, t):
    array = x.numpy()
    np.multiply(array, 0.5, out=array)
    return x / (1 + t[:, None])


def keeps(x, t):
    return x * 0.5 / (1 + t[:, None])


@pytest.mark.parametrize("network", [writes, writes_by_numpy])
def test_a_network_that_writes_into_its_input_spoils_no_state(network):
    one, other = (ss.NetworkScore(f, ss.EDM(), "data", shape=(3,)) for f in (network, keeps))
    for _ in range(2):
        assert torch.equal(drawn(one), drawn(other))


def test_a_network_that_begins_to_write_is_refused():
    def late(x, t):
        return writes(x, t) if float(t[0]) < 1 else keeps(x, t)

    made = ss.NetworkScore(late, ss.EDM(), "data", shape=(3,))
    with pytest.raises(RuntimeError, match=r"changed its input in place.*x = x.clone\(\)"):
        drawn(made)


def test_input_in_the_state_itself_changes_no_gradient():
    weight = torch.tensor(0.5, requires_grad=True)
    made = ss.NetworkScore(lambda x, t: weight * x, ss.EDM(), "data", shape=(3,))
    drawn(made)
    x = ss.sample(made, 5, grad="backprop", **OPTIONS).x
    slope = torch.autograd.grad(x.sum(), weight)[0]
    with torch.no_grad():
        ends = []
        for shift in (-1e-3, 1e-3):
            weight += shift
            ends.append(ss.sample(made, 5, dtype=torch.float64, **OPTIONS).x.sum())
            weight -= shift
    assert torch.isclose(slope.double(), (ends[1] - ends[0]) / 2e-3, rtol=1e-3)


class Replayed(torch.nn.Module):
    r"""Returns a buffer of its own, as a replayed CUDA graph does."""

    def __init__(self, view):
        super().__init__()
        self.out, self.view = torch.empty(64, 3), view

    def forward(self, x, t):
        out = self.out[: len(x)]
        torch.mul(x, 0.5 / (1 + t[:, None]), out=out)
        return out.view(-1, 3) if self.view else out


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("solver", ["exponential_3", "unipc", "rk4", "exponential"])
def test_a_network_that_returns_one_buffer_spoils_no_earlier_output(view, solver):
    one, other = (
        ss.NetworkScore(f, ss.EDM(), "data", shape=(3,)) for f in (Replayed(view), keeps)
    )
    steps = {"rtol": 1e-3} if solver == "exponential" else {"steps": 6}
    for count in (4, 5, 5):
        x, y = (ss.sample(m, count, solver=solver, seed=1, **steps).x for m in (one, other))
        assert torch.allclose(x, y, rtol=1e-6)
