r"""How networks are called: in which dtypes, with what, and what is said when they fail."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss

F64 = torch.float64
X = torch.tensor([[0.5, -0.2], [0.1, 0.4], [-0.7, 0.9], [0.2, 0.2]])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.seen = nn.Linear(3, 2), []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((x.dtype, t.dtype, t.clone()))
        return self.layer(torch.cat([x, t[:, None].to(x)], 1))


class Holder:
    def __init__(self, network: nn.Module) -> None:
        self.inner = {"network": network}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner["network"](x, t)

    def method(self, x: Tensor, t: Tensor) -> Tensor:
        return self(x, t)


def model_of(network: object, **options: object) -> ss.NetworkScore:
    return ss.NetworkScore(network, ss.VP(), "noise", shape=(2,), **options)


WRAPPED = {
    "lambda": lambda n: lambda x, t: n(x, t),
    "default": lambda n: lambda x, t, n=n: n(x, t),
    "partial": lambda n: functools.partial(lambda net, x, t: net(x, t), n),
    "object": lambda n: Holder(n),
    "method": lambda n: Holder(n).method,
    "decorated": lambda n: torch.no_grad()(lambda x, t: n(x, t)),
    "twice": lambda n: (lambda f: lambda x, t: f(x, t))(lambda x, t: n(x, t)),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_functions_do_what_their_modules_do(way: str) -> None:
    module = Small()
    known, model = model_of(module), model_of(WRAPPED[way](module))
    a, b = (ss.sample(m, 3, steps=3, dtype=F64).x for m in (known, model))
    assert torch.equal(a, b)


COARSE = {"solver": "heun", "steps": 4}
LEVELS = torch.zeros(2, 2, dtype=torch.int64)


@pytest.mark.filterwarnings("ignore:without the noise at t_min", "ignore:the latents are")
@pytest.mark.parametrize(
    "call",
    [
        lambda m: ss.log_likelihood(m, X, nodes=8, **COARSE).nats,
        lambda m: ss.elbo(m, X).nats,
        lambda m: ss.likelihood.path_density(m, X, steps=4).nats,
        lambda m: ss.discrete_log_likelihood(m, LEVELS, levels=4, nodes=8, **COARSE).nats,
        lambda m: ss.reconstruct(m, X, solver="lattice_heun", steps=5).x,
        lambda m: ss.encode(m, X.double(), rtol=1e-2, atol=1e-2).x,
        lambda m: ss.decode(m, X.double(), steps=3, grad="checkpoint").x,
    ],
)
def test_functions_work_in_float64_runs(call: Callable[[ss.ScoreModel], Tensor]) -> None:
    module = Small()
    assert torch.equal(call(model_of(module)), call(model_of(lambda x, t: module(x, t))))


@pytest.mark.parametrize("way", WRAPPED)
def test_functions_tell_the_training_mode_and_weights_of_their_modules(way: str) -> None:
    module = nn.Sequential()
    module.add_module("small", Small())
    module.forward = lambda x, t: module.small(x, t)  # type: ignore[method-assign]
    model = model_of(WRAPPED[way](module))
    assert {id(p) for p in model.parameters()} == {id(p) for p in module.parameters()}
    module.add_module("drop", nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="training mode, so its Dropout makes results random"):
        ss.sample(model, 2, steps=2)
    model.eval()
    assert not module.drop.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrapped", [False, True])
def test_times_reach_half_networks_in_float32(dtype: torch.dtype, wrapped: bool) -> None:
    module = Small().to(dtype)
    model = model_of((lambda x, t: module(x, t)) if wrapped else module)
    times = torch.tensor([0.999, 0.77777, 0.33333, 0.1], dtype=F64)
    ss.sample(model, 2, times=times)
    good = [(state, time, t) for state, time, t in module.seen if state == dtype]
    assert len(good) == 4
    for (_, time, t), want in zip(good, times, strict=True):
        assert time == torch.float32
        assert (t.double() - want).abs().max() < 1e-7


class Narrow(nn.Module):
    r"""It joins state and time as they come, and so takes no others than its own dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([x, t[:, None]], 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_that_cannot_take_finer_times_get_their_own(dtype: torch.dtype) -> None:
    model = model_of(Narrow().to(dtype))
    assert ss.sample(model, 2, steps=2).ok
    assert ss.log_likelihood(model, X).nats.isfinite().all()
    inner = Narrow().to(dtype)
    assert ss.sample(model_of(lambda x, t: inner(x, t)), 2, steps=2).ok


def test_the_small_unet_takes_finer_times() -> None:
    model = ss.load("digits")
    right = ss.sample(model, 2, steps=3, label=3).x
    model.network.bfloat16()
    s = ss.sample(model, 2, steps=3, label=3)
    assert (s.x - right).square().mean().sqrt() < 0.1


def test_exact_functions_keep_float64() -> None:
    oracle = ss.GaussianOracle(torch.zeros(2, dtype=F64), 0.5, process=ss.VP())
    model = model_of(lambda x, t: oracle.noise(x, t))
    a, b = (ss.encode(m, X.double(), solver="heun", steps=5).x for m in (model, oracle))
    assert (a - b).abs().max() < 1e-12


def _halve(x: Tensor, t: Tensor) -> Tensor:
    return x.mul_(0.5)


def _by_numpy(x: Tensor, t: Tensor) -> Tensor:
    x.numpy()[:] *= 0.5
    return x


def _time(x: Tensor, t: Tensor) -> Tensor:
    t *= 1000.0
    return 0.5 * x + 0 * t[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("network", [_halve, _by_numpy, _time])
@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m", "em", "torchdiffeq/rk4", "lattice_heun"])
@pytest.mark.parametrize("process", [ss.VP(), ss.EDM()])
@pytest.mark.parametrize("inference", [False, True])
def test_networks_may_change_what_they_get(
    network: object, solver: str, process: ss.Process, inference: bool
) -> None:
    models = [
        ss.NetworkScore(n, process, "noise", shape=(2,)) for n in (network, lambda x, t: 0.5 * x)
    ]
    with torch.inference_mode(inference):
        for count in (1, 3):
            options = {"solver": solver, "steps": 3, "dtype": F64, "on_failure": "partial"}
            x, right = (ss.sample(m, count, **options).x for m in models)
            assert torch.equal(x, right)


def test_networks_may_change_their_conditions() -> None:
    def network(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        return 0.5 * x + shift.mul_(0.5)

    shift = torch.ones(3, 2)
    a = ss.sample(model_of(network, conditions=["shift"]), 3, steps=4, shift=shift).x
    pure = model_of(lambda x, t, shift: 0.5 * x + 0.5 * shift, conditions=["shift"])
    assert torch.equal(a, ss.sample(pure, 3, steps=4, shift=torch.ones(3, 2)).x)
    assert torch.equal(shift, torch.ones(3, 2))


class Needy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor, ctx: Tensor) -> Tensor:
        return self.layer(x) + ctx


def test_a_missing_condition_is_named() -> None:
    module = Needy()
    ctx = torch.ones(1, 2)
    for network in (module, lambda x, t, **more: module(x, t, **more)):
        model = model_of(network, conditions=["ctx"])
        with pytest.raises(TypeError, match="needs ctx=, which is not bound: pass ctx="):
            ss.sample(model, 2, steps=2)
        with pytest.raises(TypeError, match="negative={'ctx': ...}"):
            ss.sample(ss.classifier_free(model, 2.0, ctx=ctx), 2, steps=2)
        with pytest.raises(
            TypeError, match=r"declare it by NetworkScore\(..., conditions=\['ctx'\]\)"
        ):
            ss.sample(model_of(network), 2, steps=2)
        guided = ss.classifier_free(model, 2.0, negative={"ctx": 0 * ctx}, ctx=ctx)
        assert ss.sample(guided, 2, steps=2).ok


def test_a_batch_in_a_closure_is_named() -> None:
    shift = torch.randn(4, 2)
    model = model_of(lambda x, t: 0.5 * x + shift)
    assert ss.decode(model, X, steps=2).ok
    assert ss.decode(model, X.clone().requires_grad_(), steps=2, grad="backprop").ok
    for options in ({"batch_size": 3}, {"batch_size": 1}):
        with pytest.raises(ValueError, match="holds tensors that belong to samples"):
            ss.decode(model, X, steps=2, **options)
    with pytest.raises(ValueError, match="may hold a fixed batch"):
        ss.decode(model_of(lambda x, t: 0.5 * x + shift), X[:3], steps=2)
    weight = torch.randn(2, 2)
    with pytest.raises(RuntimeError, match="^boom$"):  # what says enough stays as it is

        def network(x: Tensor, t: Tensor) -> Tensor:
            raise RuntimeError("boom") if weight is not None else None

        ss.decode(model_of(network), X, steps=2)


def test_offloaded_weights_are_named() -> None:
    model = model_of(Small().to("meta"))
    with pytest.raises(ValueError, match="on the device 'meta', which holds no numbers"):
        ss.sample(model, 2, steps=2)
    with pytest.raises(ValueError, match="on the device 'meta', which holds no numbers"):
        ss.log_likelihood(model, X)


class Offloaded(nn.Module):
    r"""Its weights are brought back for each call, as accelerate's hooks do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.small = Small(), Small().to("meta")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        weights = dict(self.kept.named_parameters())
        return torch.func.functional_call(self.small, weights, (x, t))


def test_offloaded_weights_that_come_back_serve() -> None:
    module = Offloaded()
    plain, kept = model_of(module.kept), module.kept
    del module.kept
    object.__setattr__(module, "kept", kept)
    assert torch.equal(ss.sample(model_of(module), 2, steps=3).x, ss.sample(plain, 2, steps=3).x)


def test_numpy_networks_serve_without_derivatives() -> None:
    model = model_of(lambda x, t: torch.from_numpy(0.5 * x.numpy()))
    assert ss.sample(model, 2, steps=3).ok
    assert ss.elbo(model, X).nats.isfinite().all()
    with pytest.raises(ValueError, match="leaves torch, as those of numpy or ONNX do"):
        ss.log_likelihood(model, X)
    with pytest.raises(ValueError, match="returned ndarray; wrap it by torch.from_numpy"):
        ss.sample(model_of(lambda x, t: 0.5 * x.numpy()), 2, steps=3)
