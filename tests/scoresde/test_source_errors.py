r"""What is wrong with a network of another library, or said wrongly of it, is told in a sentence with a cure."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as ss

LABELS = torch.arange(6.0)


class Linear(nn.Module):
    r"""A network of weights, that may want a label."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.inner(x) + y[:, None]


def wrapped(network: Any, **options: Any) -> ss.NetworkScore:
    return ss.from_callable(network, ss.VP(), "noise", shape=(2,), **options)


def sampled(network: Any, rows: int = 4, **options: Any) -> object:
    return ss.sample(wrapped(network, **options), rows, steps=2)


def scheduler(name: str, signal: Tensor | None = None, **config: Any) -> Any:
    found = type(name, (), {})()
    found.config = {"prediction_type": "epsilon", **config}
    if signal is not None:
        found.alphas_cumprod = signal
    return found


def guided(**changed: Any) -> Any:
    kind = SimpleNamespace(name="EPSILON")
    known = {"betas": np.linspace(1e-4, 0.02, 10), "model_mean_type": kind}
    return SimpleNamespace(**{**known, **changed})


class SelfConditioned(nn.Module):
    self_condition, channels, image_size = True, 1, 4


class Standardized(nn.Module):
    input_shape, mean_t_fn, std_fn, compose_enabled = (2,), None, None, True


class Unet(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample


def state(x: Tensor, t: Tensor) -> Tensor:
    return x


SIGNAL = torch.linspace(0.99, 0.01, 10)
NET = nn.Identity()
SAID: dict[str, tuple[Callable[[], object], str]] = {
    "a batch in a closure": (
        lambda: sampled(lambda x, t: x * LABELS[:, None]),
        r"fails for 4 rows.*conditions=\['labels'\]",
    ),
    "a batch in a constant": (
        lambda: sampled(lambda x, t, y: x * y[:, None], constants={"y": LABELS}),
        r"fails for 4 rows.*conditions=\['labels'\]",
    ),
    "a condition that nobody declared": (
        lambda: sampled(Linear()),
        r"needs y=, which is not bound: declare it by .*conditions=\['y'\]",
    ),
    "a condition that nobody gave": (
        lambda: sampled(Linear(), conditions=["y"]),
        "needs y=, which is not bound: pass y= to the call",
    ),
    "entry of a tensor": (lambda: sampled(state, entry="mean"), "leave entry out"),
    "wrong attribute": (
        lambda: sampled(lambda x, t: SimpleNamespace(sample=x), entry="mean"),
        "entry must say .* 'mean'; the network returned a SimpleNamespace of sample",
    ),
    "wrong key": (lambda: sampled(lambda x, t: {"a": x}, entry="b"), "'b'.*a dict of a"),
    "wrong item": (lambda: sampled(lambda x, t: (x,), entry=3), "is 3;.*a tuple of 1"),
    "no entry": (lambda: sampled(lambda x, t: {"a": x}), "say which of it counts, by entry='a'"),
    "numpy out": (lambda: sampled(lambda x, t: x.numpy()), "wrap it by torch.from_numpy"),
    "wrong names": (
        lambda: wrapped(state, names=("x", "sigma")),
        "names must be .*takes x, t, but 'sigma' is none of them",
    ),
    "one name": (lambda: wrapped(state, names=("x",)), r"keywords of state and time, as \('x',"),
    "a name twice": (lambda: wrapped(state, names=("x", "x")), "keywords of state and time"),
    "wrong constant": (lambda: wrapped(state, constants={"z": 1}), "constants must be .* 'z'"),
    "a constant condition": (
        lambda: wrapped(Linear(), constants={"y": 1}, conditions=["y"]),
        "y is both a condition",
    ),
    "null of several rows": (
        lambda: wrapped(Linear(), conditions=["y"], null={"y": torch.zeros(3)}),
        "null.*'y'.* must have leading size 1",
    ),
    "no label": (lambda: sampled(state, label=lambda t: 3), "as a tensor, but returned int"),
    "unknown order": (lambda: ss.from_flow(lambda a, b: a), "order must be 'x, t' or 't, x'"),
    "unknown meaning": (
        lambda: ss.from_callable(state, ss.VP(), "epsilon"),
        "predicts is 'epsilon'.*'noise'",
    ),
    "unknown prediction type": (
        lambda: ss.from_diffusers(NET, scheduler("DDIMScheduler", SIGNAL, prediction_type="flow")),
        "prediction_type must be one of 'epsilon', 'sample', 'v_prediction', but is 'flow'",
    ),
    "unknown scheduler": (
        lambda: ss.from_diffusers(NET, scheduler("IPNDMScheduler")),
        "is a IPNDMScheduler: .*wrap the network by ss.from_callable",
    ),
    "a distilled network": (
        lambda: ss.from_diffusers(NET, scheduler("LCMScheduler", SIGNAL)),
        "distilled to a few steps.*Sample with their own pipeline",
    ),
    "noise without signal": (
        lambda: ss.from_diffusers(NET, scheduler("DDIMScheduler", SIGNAL - 0.01)),
        "terminal SNR of zero.*use one of v_prediction or sample",
    ),
    "noise without signal, by its rescaling": (
        lambda: ss.from_diffusers(
            NET, scheduler("DDIMScheduler", SIGNAL, rescale_betas_zero_snr=True)
        ),
        "rescale_betas_zero_snr=False",
    ),
    "respaced": (
        lambda: ss.from_guided_diffusion(
            NET, guided(timestep_map=[0, 5], original_num_steps=1000)
        ),
        "respaced to 10; create it with timestep_respacing=''",
    ),
    "previous states": (
        lambda: ss.from_guided_diffusion(
            NET, guided(model_mean_type=SimpleNamespace(name="PREVIOUS_X"))
        ),
        "only networks of EPSILON and START_X",
    ),
    "no diffusion": (
        lambda: ss.from_guided_diffusion(NET, 3),
        "must be a GaussianDiffusion of guided-diffusion.* without betas",
    ),
    "another SDE": (lambda: ss.from_score_sde(NET, 3), "VPSDE.*ss.from_callable"),
    "self-conditioning": (
        lambda: ss.from_lucidrains(SelfConditioned()),
        "conditions on its own estimate.*train one without",
    ),
    "not of lucidrains": (lambda: ss.from_lucidrains(NET), "must be a GaussianDiffusion or"),
    "not of azula": (lambda: ss.from_azula(NET), "one of azula, but .* without schedule"),
    "not of sbi": (lambda: ss.from_sbi(NET), "of sbi, .* without input_shape"),
    "standardized outside": (lambda: ss.from_sbi(Standardized()), "train one without"),
}


@pytest.mark.parametrize("case", SAID)
def test_said(case: str) -> None:
    call, message = SAID[case]
    with pytest.raises((TypeError, ValueError), match=re.compile(message, re.DOTALL)) as caught:
        call()
    assert str(caught.value).endswith(".") or "It says" in str(caught.value)


WEIGHTS = nn.Linear(2, 2)


@torch.inference_mode()
def in_inference_mode(x: Tensor, t: Tensor) -> Tensor:
    return WEIGHTS(x)


def in_numpy(x: Tensor, t: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(x.numpy()))


WITHOUT = {
    "detached": (lambda x, t: WEIGHTS(x).detach(), "the network detaches.*remove that"),
    "inference mode": (in_inference_mode, r"torch.inference_mode\(\); remove that"),
    "numpy": (in_numpy, "the network leaves torch.*use it for samples and ss.elbo"),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_networks_without_derivatives(case: str) -> None:
    network, message = WITHOUT[case]
    model, x = wrapped(network), torch.randn(4, 2)
    with pytest.raises(ValueError, match=message):
        ss.log_likelihood(model, x)
    with pytest.raises(ValueError, match=message):
        ss.decode(model, x.requires_grad_(), steps=2, grad="backprop")
    assert ss.sample(model, 4, steps=2).x.isfinite().all()
    assert ss.elbo(model, x.detach()).nats.isfinite().all()


def test_a_batch_in_a_closure_is_not_taken_apart() -> None:
    network = wrapped(lambda x, t: x * LABELS[:, None])
    with pytest.raises(
        ValueError, match=r"holds tensors that belong to samples \(network.network"
    ):
        ss.sample(network, 6, steps=2, batch_size=4)


def test_weights_are_no_batch_in_a_closure() -> None:
    r"""Only the network's own words tell what is wrong with its layers."""

    with pytest.raises(RuntimeError, match=r"^bilinear\(\)"):
        ss.sample(ss.from_callable(nn.Bilinear(2, 1, 2), ss.VP(), "noise", shape=(3,)), 4, steps=2)


@pytest.mark.parametrize("order", [None, "t, x"])
def test_order_by_names(order: Any) -> None:
    model = wrapped(lambda t, x: x * t[:, None], order=order)
    x = torch.randn(3, 2)
    assert torch.allclose(model.raw(x, torch.full((3,), 0.5)), 0.5 * x)


def test_order_that_is_said_counts_more_than_names() -> None:
    model = wrapped(lambda t, x: t * x[:, None], order="x, t")
    x = torch.randn(3, 2)
    assert torch.allclose(model.raw(x, torch.full((3,), 0.5)), 0.5 * x)


def test_compiled_networks_are_called_as_they_were_written() -> None:
    compiled = torch.compile(Unet(), backend="eager")
    model = ss.from_diffusers(compiled, scheduler("DDIMScheduler", SIGNAL))
    x = torch.randn(3, 2)
    assert torch.equal(model.raw(x, torch.full((3,), 4.0)), x)


def test_grids_are_those_of_the_scheduler_as_it_stands() -> None:
    r"""Its config may not know all of it, such as arguments that were given by position."""

    class DDIMScheduler:
        config: dict[str, Any] = {"prediction_type": "epsilon"}

        def __init__(self, last: int) -> None:
            self.last, self.alphas_cumprod = last, SIGNAL

        def set_timesteps(self, num_inference_steps: int) -> None:
            self.timesteps = torch.linspace(self.last, 0, num_inference_steps)

    given = DDIMScheduler(8)
    model: Any = ss.from_diffusers(Unet(), given)
    assert model.times(5).tolist() == [8, 6, 4, 2, 0]
    assert not hasattr(given, "timesteps")
