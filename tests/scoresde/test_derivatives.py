r"""Derivatives that a network does not have are noticed, and ways without a derivative are refused."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers
from scoresde import guidance
from scoresde.models.derivative import check_derivative
from solvers.methods.reversible import ReversibleHeun

from .cases import gaussian

F64 = torch.float64
ORACLE = gaussian(ss.VP())
X = torch.tensor([[0.5, -0.2], [0.1, 0.4], [-0.7, 0.9]], dtype=F64)


def model_of(network: Callable[..., Tensor]) -> ss.NetworkScore:
    return ss.NetworkScore(network, ss.VP(), "noise", shape=(2,))


def noise(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x + 0.5 * x.flip(1))


CUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "detached": lambda x, t: noise(x, t).detach(),
    "inference mode": torch.inference_mode()(noise),
    "numpy": lambda x, t: torch.from_numpy(noise(x, t).numpy()),
    "one branch of two": lambda x, t: 0.8 * noise(x, t) + 0.2 * noise(x, t).detach(),
    "one factor of two": lambda x, t: noise(x, t) * (1 + noise(x, t)).detach(),
    "input rounded": lambda x, t: noise(x.round(), t),
    "output rounded": lambda x, t: (4 * noise(x, t)).round() / 4,
    "only one column": lambda x, t: torch.stack(
        [noise(x, t)[:, 0], noise(x, t)[:, 1].detach()], 1
    ),
}


@pytest.mark.parametrize("kind", CUT)
def test_cut_derivatives_are_refused(kind: str) -> None:
    model = model_of(CUT[kind])
    with pytest.raises(ValueError, match="leaves torch"):
        ss.log_likelihood(model, X)
    with pytest.raises(ValueError, match="leaves torch"):
        ss.decode(model, X, steps=3, grad="backprop")
    assert ss.sample(model, 2, steps=2).ok


def _loss(D: Tensor) -> Tensor:
    return D.square().sum(1)


def _twist(D: Tensor, level: float) -> Tensor:
    return -D.square().sum(1)


@pytest.mark.parametrize(
    "need",
    [
        lambda m: ss.log_likelihood(m, X, probes=2, label=1),
        lambda m: ss.log_likelihood(ss.classifier_free(m, 2.0, label=1), X),
        lambda m: ss.discrete_log_likelihood(m, torch.zeros(2, 2, dtype=torch.int64), levels=4),
        lambda m: ss.classify(m, X, range(2)),
        lambda m: ss.views(m, X),
        lambda m: ss.decode(ss.classifier_free(m, 2.0, label=1), X, steps=3, grad="checkpoint"),
        lambda m: ss.decode(m, X, solver="torchdiffeq/rk4", steps=3, grad="adjoint"),
        lambda m: ss.encode(m, X, steps=3, grad="backprop", batch_size=2, label=torch.arange(3)),
        lambda m: ss.elbo(m, X, grad="backprop"),
        lambda m: ss.sample(guidance.universal(m, _loss, 0.1), 2, steps=2),
        lambda m: ss.sample(guidance.universal(m, _loss, 0.1), 2, steps=2, label=1),
        lambda m: ss.twisted_sample(m, _twist, 4, steps=2),
    ],
)
def test_cut_derivatives_are_refused_wherever_they_are_needed(
    need: Callable[[ss.ScoreModel], object],
) -> None:
    def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return CUT["one branch of two"](x, t)

    model = ss.NetworkScore(network, ss.VP(), "noise", conditions=["label"], shape=(2,))
    with pytest.raises(ValueError, match="derivative is off by"):
        need(model)


def test_no_grad_is_refused_for_gradients_alone() -> None:
    model = model_of(torch.no_grad()(noise))
    with pytest.raises(ValueError, match=r"runs under torch\.no_grad"):
        ss.decode(model, X, steps=2, grad="backprop")
    options = {"solver": "heun", "steps": 8}
    a, b = (ss.log_likelihood(m, X, **options).nats for m in (model, model_of(noise)))
    assert torch.equal(a, b)  # forward-mode derivatives do not mind


class Own(ss.ScoreModel):
    r"""A model that is no network, and detaches."""

    process, shape = ss.VP(), (2,)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return ORACLE.denoise(x.detach(), t)


def test_models_that_are_no_networks_are_seen_too() -> None:
    with pytest.raises(ValueError, match="derivative is off by"):
        ss.log_likelihood(Own(), X)


class Layers(nn.Module):
    def __init__(self, kind: type[nn.Module], size: int, seed: int, cut: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Sequential(nn.Linear(size, 48), kind(), nn.Linear(48, 48), kind())
        self.last, self.cut = nn.Linear(48, size), cut
        for part in (self.first[0], self.first[2], self.last):
            nn.init.normal_(part.weight, std=(2 / part.in_features) ** 0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h.detach() if self.cut else h) + x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, F64])
@pytest.mark.parametrize("kind", [nn.ReLU, nn.SiLU, nn.Hardtanh])
@pytest.mark.parametrize("size", [1, 2, 32])
def test_rough_and_coarse_networks_pass_and_their_cuts_do_not(
    dtype: torch.dtype, kind: type[nn.Module], size: int
) -> None:
    x = torch.zeros(2, size)
    for seed in range(2):
        for cut in (False, True):
            network = Layers(kind, size, seed, cut).to(dtype)
            model = ss.NetworkScore(network, ss.VP(), "data", shape=(size,))
            for mode in ("forward", "reverse"):
                if cut and size > 1:  # one number may be where all units are dead
                    with pytest.raises(ValueError, match="derivative is off by"):
                        check_derivative(model, x, mode, "this")
                elif not cut:
                    check_derivative(model, x, mode, "this")


@pytest.mark.filterwarnings("ignore:without the noise at t_min")
@pytest.mark.parametrize(
    "network",
    [
        lambda x, t: torch.zeros_like(x),
        lambda x, t: torch.ones_like(x) * t[:, None].cos(),
        lambda x, t: x.abs(),
        lambda x, t: x.clamp(-0.3, 0.3),
        lambda x, t: x.sign().detach() * 0 + 1.0,
    ],
)
def test_constant_and_kinked_networks_are_right(network: Callable[..., Tensor]) -> None:
    model = model_of(network)
    assert ss.log_likelihood(model, X, steps=8, solver="heun").nats.isfinite().all()
    assert ss.decode(model, X.clone().requires_grad_(), steps=2, grad="backprop").x.requires_grad


def test_the_check_is_made_once_and_not_counted() -> None:
    made = []

    def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        made.append(len(x))
        return torch.tanh(x)

    model = ss.NetworkScore(network, ss.VP(), "noise", conditions=["label"], shape=(2,))
    with solvers.counting() as counter:
        first = ss.decode(model, X, steps=4, grad="backprop")
    extra, before = len(made) - 5, len(made)
    assert first.calls.tolist() == [5, 5, 5]
    assert counter.total == 0
    assert counter.backward == 0
    assert 0 < extra <= 8 * 8  # for so few numbers
    ss.decode(model, X[:1], steps=4, grad="checkpoint")
    assert len(made) == before + 5
    ss.decode(model, X, steps=4, grad="backprop", label=1)  # which other parts of it may answer
    assert len(made) > before + 5 + 5
    many = len(made)
    ss.decode(model, torch.randn(64, 2, dtype=F64), steps=4, grad="backprop", label=2)
    assert len(made) == many + 5


@pytest.mark.parametrize("grad", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("solver", ["lattice_heun", "lattice_heun_isotropic"])
def test_lattices_have_no_gradients(solver: str, grad: str) -> None:
    with pytest.raises(ValueError, match="rounds each step|has no adjoint"):
        ss.decode(ORACLE, X, solver=solver, steps=3, grad=grad)
    with pytest.raises(ValueError, match="rounds each step|has no adjoint"):
        ss.log_likelihood(ORACLE, X, solver=solver, steps=20, grad=grad)


@pytest.mark.slow
def test_scipy_has_an_adjoint_alone() -> None:
    options = {"solver": "torchdiffeq/scipy_solver", "rtol": 1e-6, "atol": 1e-6, "denoise": False}
    for grad in ("backprop", "checkpoint"):
        with pytest.raises(ValueError, match="leaves torch for scipy; use grad='adjoint'"):
            ss.decode(ORACLE, X, grad=grad, **options)
    z = X[:1].clone().requires_grad_()
    s = ss.decode(ORACLE, z, grad="adjoint", **options)
    found = torch.autograd.grad(s.x.sum(), z)[0]
    ends = float(s.times[0]), float(s.times[-1])
    y = X[:1].clone().requires_grad_()
    want = torch.autograd.grad(ORACLE.flow(y, *ends).sum(), y)[0]
    assert torch.allclose(found, want, rtol=1e-4)


def test_solve_refuses_as_the_verbs_do() -> None:
    problem = solvers.ODE(lambda t, x: -x)
    ends, x = torch.tensor([0.0, 1.0]), torch.ones(1, 2)
    rounding = ReversibleHeun("lattice", 20)
    with pytest.raises(ValueError, match="rounds each step"):
        solvers.solve(problem, x, ends, rounding, grad="backprop")
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        solvers.solve(problem, x, ends, "heun", grad="checkpoint")


def test_inference_mode_has_no_gradients() -> None:
    with torch.inference_mode():
        with pytest.raises(ValueError, match="no effect inside torch.inference_mode"):
            ss.decode(ORACLE, X, steps=2, grad="backprop")
        with pytest.raises(ValueError, match="no effect inside torch.inference_mode"):
            ss.log_likelihood(ORACLE, X, grad="backprop")
        z = torch.randn(2, 2, dtype=F64)
        inside = ss.log_likelihood(ORACLE, z, solver="heun", steps=8).nats
    outside = ss.log_likelihood(ORACLE, z.clone(), solver="heun", steps=8).nats
    assert torch.allclose(
        inside, outside, rtol=1e-12
    )  # traces in another mode, rounded differently
    with torch.no_grad():  # which grad= overrules
        assert ss.decode(
            ORACLE, X.clone().requires_grad_(), steps=2, grad="backprop"
        ).x.requires_grad


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(lambda z: f(z).sum())(X),
    "jvp": lambda f: torch.func.jvp(f, (X,), (X,)),
    "vjp": lambda f: torch.func.vjp(f, X),
    "vmap": lambda f: torch.func.vmap(lambda z: f(z[None])[0])(X),
    "jacrev": lambda f: torch.func.jacrev(f)(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_verbs_are_refused(name: str) -> None:
    verbs = (
        lambda z: ss.decode(ORACLE, z, steps=2).x,
        lambda z: ss.decode(ORACLE, z, steps=2, grad="backprop").x,
        lambda z: ss.encode(ORACLE, z, solver="heun", steps=2).x,
        lambda z: ss.log_likelihood(ORACLE, z).nats,
        lambda z: ss.sample(ORACLE, 2, steps=2).x + z[:1],
    )
    for verb in verbs:
        with pytest.raises(ValueError, match="cannot be called inside torch.func"):
            TRANSFORMS[name](verb)


def test_dual_numbers_are_refused() -> None:
    ad = torch.autograd.forward_ad
    with ad.dual_level(), pytest.raises(ValueError, match="dual_level"):
        ss.log_likelihood(ORACLE, ad.make_dual(X, X))


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("solver", ["torchdiffeq/rk4", "torchdiffeq/dopri5"])
def test_the_adjoint_keeps_no_memory(solver: str, back: bool) -> None:
    options = {"steps": 3} if solver.endswith("rk4") else {"rtol": 1e-2, "atol": 1e-2}
    model = model_of(Layers(nn.SiLU, 2, 0).double())
    z = X.clone().requires_grad_()
    for path in (False, True):
        s = ss.decode(model, z, solver=solver, grad="adjoint", path=path, **options)
        if back:
            s.x.sum().backward()
        nodes = [s.x.grad_fn]
        for node in nodes:
            nodes += [one for one, _ in node.next_functions if one is not None]
        [run] = {node for node in nodes if node.name() == "OdeintAdjointMethodBackward"}
        kept = weakref.ref(run)
        del s, nodes, node, run
        gc.collect()
        assert kept() is None


@pytest.mark.slow
def test_second_derivatives_of_the_adjoint_are_a_sentence() -> None:
    z = X.clone().requires_grad_()
    y = ss.decode(ORACLE, z, solver="torchdiffeq/rk4", steps=3, grad="adjoint").x.sum()
    with pytest.raises(ValueError, match="grad='adjoint' has first derivatives only"):
        torch.autograd.grad(y, z, create_graph=True)
    x = ss.decode(ORACLE, z, solver="torchdiffeq/rk4", steps=3, grad="backprop").x.square().sum()
    (first,) = torch.autograd.grad(x, z, create_graph=True)
    assert torch.autograd.grad(first[0, 0], z)[0].abs().sum() > 0


@pytest.mark.slow
def test_the_adjoint_finds_the_weights_of_a_function() -> None:
    layers = Layers(nn.SiLU, 2, 0).double()
    options = {"solver": "torchdiffeq/dopri5", "rtol": 1e-6, "atol": 1e-6, "clock": "log_snr"}
    found = []
    for grad in ("adjoint", "backprop"):
        model = model_of(lambda x, t: layers(x, t))
        x = ss.decode(model, X, grad=grad, **options).x
        found.append(torch.autograd.grad(x.square().sum(), list(layers.parameters())))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-3 * b.abs().max()
        assert a.abs().sum() > 0
