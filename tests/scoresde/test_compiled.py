r"""Compiled networks give the same samples, and a run on a grid does not wait for the device at its steps."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import scoresde as ss
from scoresde import networks

WAITS = (
    "_local_scalar_dense",
    "equal",
    "nonzero",
    "is_nonzero",
)  # which return to Python, or to the CPU


class Waits(TorchDispatchMode):
    r"""Counts operations that need the values of a network's output, or of what follows from it, in Python."""

    def __init__(self):
        super().__init__()
        self.count, self.on_device = 0, {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        given = tree_leaves((arguments, keywords))
        out = function(*arguments, **(keywords or {}))
        if any(id(one) in self.on_device for one in given):
            self.count += function.overloadpacket.__name__ in WAITS
            self.add(out)
        return out

    def add(self, out):
        self.on_device |= {
            id(one): one for one in tree_leaves(out) if isinstance(one, torch.Tensor)
        }


def counted(model, steps, **options):
    with Waits() as waits:
        model.network.told = waits
        ss.sample(model, 4, steps=steps, seed=0, **options)
    return waits.count


class OnDevice(torch.nn.Module):
    r"""A network whose output is said to be on a device, and which may wait for it itself."""

    def __init__(self, waits=False):
        super().__init__()
        self.waits = waits

    def forward(self, x, t):
        out = 0.3 * x
        self.told.add(out)
        return out * (2 if self.waits and float(out.sum()) > torch.inf else 1)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc", "moment_2", "edm_heun", "rk4", "ancestral", "em",
                                    "dpmpp_2m_sde", "edm_churn"])  # fmt: skip
@pytest.mark.parametrize("progress", [False, True])
def test_steps_of_a_grid_wait_once_in_eight(solver, progress):
    model = ss.NetworkScore(OnDevice(), ss.EDM(), "data", shape=(3,), data_scale=0.5)
    model.moments = ss.moments(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    options = {"solver": solver, "progress": progress}
    counted(model, 16, **options)  # the first calls of the network
    few, many = counted(model, 16, **options), counted(model, 96, **options)
    assert many - few <= (96 - 16) / 8 + 2


def test_a_network_that_waits_is_counted():
    model = ss.NetworkScore(OnDevice(waits=True), ss.EDM(), "data", shape=(3,))
    assert counted(model, 96, solver="ddim") - counted(model, 16, solver="ddim") >= 80


def small():
    torch.manual_seed(0)
    net = networks.MLP(3, width=16, depth=2)
    return net.eval()


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_a_compiled_network_gives_the_same_samples(backend, way):
    torch._dynamo.reset()
    plain = ss.NetworkScore(small(), ss.EDM(), "edm", shape=(3,))
    net = small()
    if way == "wrapped":
        net = torch.compile(net, backend=backend)
    else:
        net.compile(backend=backend)
    made = ss.NetworkScore(net, ss.EDM(), "edm", shape=(3,))
    for options in (
        {"solver": "dpmpp_2m", "steps": 6},
        {"solver": "dpmpp_2m_sde", "steps": 6, "batch_size": 3},
        {"rtol": 1e-3, "atol": 1e-3},
    ):
        x, y = (ss.sample(model, 5, seed=1, **options).x for model in (plain, made))
        assert torch.allclose(x, y, rtol=1e-5, atol=1e-5), options


@pytest.mark.parametrize("part", ["whole", "block"])
def test_a_compiled_network_is_saved_as_it_was_written(tmp_path, part):
    net = small()
    if part == "block":
        name, child = next(iter(net.named_children()))
        setattr(net, name, torch.compile(child, backend="eager"))
    else:
        net = torch.compile(net, backend="eager")
    made = ss.NetworkScore(net, ss.EDM(), "edm", shape=(3,))
    card = {"network": {"settings": {"size": 3, "width": 16, "depth": 2}}}
    file = ss.save(made, tmp_path / "model", card, dtype=torch.float32)
    again = ss.load(file)
    assert type(again.network) is networks.MLP
    x, y = (ss.sample(model, 4, steps=4, seed=0).x for model in (made, again))
    assert torch.allclose(x.double(), y.double(), rtol=1e-5, atol=1e-5)
