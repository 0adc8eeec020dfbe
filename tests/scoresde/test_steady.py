r"""A network that is another at every call is noticed where a result rests on its being the same."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import guidance
from scoresde.models.steady import LEAST, check_steady, warn_of_randomness
from solvers import counting

X = torch.tensor([[0.5, -1.0], [0.25, 0.75]])
SHARE = 0.1  # of noise in what the network returns


def model(network: Callable[..., Tensor]) -> ss.NetworkScore:
    return ss.NetworkScore(network, ss.EDM(), "data", shape=(2,), data_scale=0.5)


def noisy(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x * (1 + SHARE * torch.randn_like(x))


def dropping(x: Tensor, t: Tensor) -> Tensor:
    return nn.functional.dropout(x, 0.5)


def repeated(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x


RELY: dict[str, Callable[[ss.ScoreModel], object]] = {
    "log_likelihood": lambda m: ss.log_likelihood(m, X, solver="heun", steps=4, nodes=8),
    "encode": lambda m: ss.encode(m, X, solver="heun", steps=4),
    "encode under tolerances": lambda m: ss.encode(m, X, rtol=0.1),
    "reconstruct": lambda m: ss.reconstruct(m, X, solver="heun", steps=4),
    "encode_noise": lambda m: ss.encode_noise(m, X, steps=4),
    "edit": lambda m: ss.edit(m, m, X, noise_level=1.0, solver="heun", steps=4),
    "views": lambda m: ss.views(m, X),
}


@pytest.mark.parametrize("verb", RELY)
@pytest.mark.parametrize("network", [noisy, dropping])
def test_densities_and_latents_of_a_random_network_are_refused(
    verb: str, network: Callable[..., Tensor]
) -> None:
    with pytest.raises(
        ValueError, match=r"two calls of the network .* differ by .* call \.eval\(\)"
    ):
        RELY[verb](model(network))


def test_steps_under_tolerances_warn_and_those_of_a_grid_do_not() -> None:
    with pytest.warns(UserWarning, match="adaptive steps are chosen by that noise"):
        ss.sample(model(noisy), 2, rtol=0.5, atol=0.5, seed=0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ss.sample(model(noisy), 2, steps=4, seed=1)
        ss.sample(model(repeated), 2, rtol=0.5, atol=0.5, seed=1)
    assert not [one for one in seen if "two calls" in str(one.message)]


def test_the_difference_is_that_of_the_noise_and_calls_are_not_counted() -> None:
    asked = []

    def many(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return noisy(x, t)

    x, before = torch.zeros(4000, 2), torch.get_rng_state()
    with counting() as counter, pytest.raises(ValueError, match="two calls") as error:
        check_steady(model(many), x, "this")
    share = float(str(error.value).split("differ by ")[1].split(" ")[0])
    # E (a - b)^2 / E a^2 = 2 s^2 / (1 + s^2) of independent noise of a share s
    assert share == pytest.approx((2 * SHARE**2 / (1 + SHARE**2)) ** 0.5, rel=0.05)
    assert counter.total == 0
    assert len(asked) == 2
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_guided_models_are_asked_by_their_parts() -> None:
    def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return noisy(x, t) if label is None else repeated(x, t)

    free = ss.NetworkScore(
        network, ss.EDM(), "data", conditions=["label"], shape=(2,), data_scale=0.5
    )
    steady = ss.NetworkScore(lambda x, t, label=None: repeated(x, t), ss.EDM(), "data", conditions=["label"],
                             shape=(2,), data_scale=0.5)  # fmt: skip
    for guided in (ss.classifier_free(free, 2.0, label=1), guidance.plus_plus(free, 0.5, label=1)):
        with pytest.raises(ValueError, match="two calls of the network"):
            ss.encode(guided, X, solver="ddim", steps=4)
    for guided in (
        ss.classifier_free(steady, 2.0, label=1),
        guidance.plus_plus(steady, 0.5, label=1),
    ):
        assert ss.encode(guided, X, solver="ddim", steps=4).ok
    assert ss.encode(free.given(label=1), X, solver="ddim", steps=4).ok  # which is never random


@pytest.mark.parametrize("share", [0.1 * LEAST, 10 * LEAST])
def test_noise_of_rounding_is_none(share: float) -> None:
    asked: list[float] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append(1 + share * (len(asked) % 2))
        return x * asked[-1]

    flicker, x = model(network), X.double()
    if share < LEAST:
        check_steady(flicker, x, "this")
        known = len(asked)
        check_steady(flicker, x, "this")
        assert len(asked) == known  # it was asked once
    else:
        with pytest.warns(UserWarning, match="differ by"):
            warn_of_randomness(flicker, x, "that")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_in_any_dtype_are_steady(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 2)).to(dtype)
    check_steady(model(lambda x, t: network(x.to(dtype)).to(x)), X, "this")
    check_steady(ss.load("digits").given(label=3), torch.zeros(2, 1, 8, 8), "this")


def test_a_random_expert_is_noticed_where_it_is_asked() -> None:
    seen = []

    def high(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t.min().item())
        return noisy(x, t)

    both = guidance.experts([model(repeated), model(high)], [3.0])
    with pytest.raises(ValueError, match="two calls of the network"):
        check_steady(both, X, "its density")
    assert min(seen) == pytest.approx(3.0)  # the noise level of EDM is its time
