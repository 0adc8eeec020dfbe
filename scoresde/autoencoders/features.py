r"""The representation of a denoising autoencoder: what a layer of the network holds while it removes noise.

At one noise level s a score model is a denoising autoencoder with the reconstruction r(x) = D(x), and

.. math:: r(x) - x = s^2 \, \nabla \log p_s(x)

for the optimal one, in the scale of the data. What its layers compute on the way is a representation of x, which
depends on the level.

References:
    | A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011)
    | https://doi.org/10.1162/NECO_a_00142
    | What Regularized Auto-Encoders Learn from the Data-Generating Distribution (Alain and Bengio, 2014),
    | theorem 1
    | https://arxiv.org/abs/1211.4246
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.noise.brownian import DATA_NOISE, keyed_normal
from solvers.shapes import align

from ..doors.amounts import positive
from ..doors.data import as_seed
from ..models.checks import check_count, check_data
from ..models.conditions import Condition, check_conditions, verb
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..models.transforms import Data

Pool = Callable[[Tensor], Tensor]
POOLS: dict[str, Pool] = {
    "mean": lambda h: h.flatten(2).mean(2) if h.ndim > 2 else h,
    "tokens": lambda h: h.mean(1) if h.ndim > 2 else h,
    "none": lambda h: h,
}
BATCH = 256
NAMED = 6  # layers that an error lists


@verb(data=("x",))
def representation(
    model: ScoreModel,
    x: Data,
    *,
    noise_level: float,
    layer: str | Sequence[str],
    pool: str | Pool = "mean",
    noise: bool = True,
    seed: int = 0,
    first_index: int = 0,
    batch_size: int = BATCH,
    **condition: Condition,
) -> Tensor | dict[str, Tensor]:
    r"""Returns the features of data in a layer of the network, with shape (B, n).

    The data gets noise of the given level, the model removes it, and the output of the layer is kept.

    Arguments:
        model: The model of a network, which may have conditions bound.
        x: Data, with shape (B, \*).
        noise_level: The noise level :math:`\sigma / \alpha`, in units of the data.
        layer: The name of a module of the network, as :func:`scoresde.autoencoders.layers` lists them; or several
            names, for a dictionary of features from the same calls.
        pool: How features become vectors: "mean" over all axes after the channels (B, n, \*); "tokens", the mean
            over the sequence (B, L, n); "none", all of them; or a function of the layer's output. The result is
            flattened.
        noise: Whether to add the noise. Without it, the network sees clean data and the time of this level.
        seed: The seed of the noise. Row i depends on the seed and on `first_index + i` alone.
        first_index: The index of the first sample.
        batch_size: The number of samples of a call.
        condition: The conditions of the model.

    Raises:
        ValueError: If the network has no such layer or does not call it, the noise level is not in the domain of
            the process, or the model is guided.

    References:
        | Label-Efficient Semantic Segmentation with Diffusion Models (Baranchuk et al., 2022), section 3
        | https://arxiv.org/abs/2112.03126

    Examples:
        >>> digits = ss.load("digits")
        >>> ss.representation(digits, torch.zeros(4, 1, 8, 8), noise_level=0.2, layer="middle.2").shape
        torch.Size([4, 80])
    """

    names = [layer] if isinstance(layer, str) else list(layer)
    reduce = pool_of(pool)
    x, network = check_data(model, x), network_of(model)
    known = check_layers(network, names)
    seed, size = as_seed("seed", seed), check_count("batch_size", batch_size, at_least=1)
    bound = model.given(**check_conditions(model, condition, len(x)))
    t = time_of(bound, noise_level)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for rows in torch.arange(len(x)).split(size):
        some = x[rows.to(x.device)]
        alpha, sigma = (align(c.to(some), some) for c in bound.process.scales(t))
        noisy = alpha * some
        if noise:
            index = rows.to(x.device) + first_index
            z = keyed_normal(seed, index, DATA_NOISE, 0, some[0].numel())
            noisy = noisy + sigma * z.reshape(some.shape).to(some)
        with torch.no_grad(), _watched(known) as seen:
            bound.rows(rows).denoise(noisy, t.expand(len(some)))
        for name in names:
            found[name].append(_vectors(name, seen[name], len(some), reduce))
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    return joined[layer] if isinstance(layer, str) else joined


@checked
def layers(model: ScoreModel) -> tuple[str, ...]:
    r"""Returns the names of the layers of a model's network, in the order in which it defines them.

    Arguments:
        model: The model of a network.

    Examples:
        >>> [name for name in ss.autoencoders.layers(ss.load("digits")) if name.startswith("middle")][:2]
        ['middle', 'middle.0']
    """

    return tuple(_modules(network_of(model)))


def network_of(model: ScoreModel) -> NetworkScore:
    r"""Returns the model of a network inside a model, after checking that there is one alone."""

    if model.guided:
        raise ValueError(
            "model is guided, and so combines several estimates; pass the model that it is made of."
        )
    found = [part for part in model.modules() if isinstance(part, NetworkScore)]
    if len(found) != 1:
        raise ValueError(
            f"model must have one network, whose layers are read, but {type(model).__name__} has {len(found)}."
        )
    return found[0]


def check_layers(network: NetworkScore, names: Sequence[str]) -> dict[str, nn.Module]:
    r"""Returns the modules of a network by their names.

    Raises:
        ValueError: If there is no such module.
    """

    known = _modules(network)
    if not names:
        raise ValueError("layer must name at least one module, but names none.")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=NAMED) or [*known][-NAMED:]
            raise ValueError(
                f"layer must be the name of a module of the network, such as {', '.join(near)}, but is {name!r}; "
                "ss.autoencoders.layers(model) lists all."
            )
    return {name: known[name] for name in names}


def time_of(model: ScoreModel, noise_level: float) -> Tensor:
    r"""Returns the time of a noise level, with shape (), in float64.

    Raises:
        ValueError: If the process does not have this noise level.
    """

    level, process = positive("noise_level", noise_level), model.process
    ends = [process.noise_level(t) for t in (process.t_min, process.t_max)]
    if not ends[0] * (1 - 1e-6) <= level <= ends[1] * (1 + 1e-6):
        raise ValueError(
            f"noise_level must be from {ends[0]:.4g} to {ends[1]:.4g} for this process, but is {level:.4g}."
        )
    return torch.tensor(process.at_noise_level(level), dtype=torch.float64)


def _modules(network: NetworkScore) -> dict[str, nn.Module]:
    inside = ((n.removeprefix("network").removeprefix("."), m) for n, m in network.named_modules())
    return {name: module for name, module in inside if name}


def pool_of(pool: str | Pool) -> Pool:
    r"""Returns the function from the output of a layer to vectors, by its name."""

    if callable(pool):
        return pool
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, or a function, not {pool!r}.")
    return POOLS[pool]


@contextmanager
def _watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, object]]:
    r"""Keeps the last outputs of modules that are called in its block."""

    seen: dict[str, object] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, given: object, output: object) -> None:
            seen[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
    for name in modules:
        if name not in seen:
            raise ValueError(f"the layer {name!r} is not called when the network removes noise.")


def _vectors(name: str, output: object, count: int, reduce: Pool) -> Tensor:
    value = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != count:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"the layer {name!r} must return a tensor with shape ({count}, n, *), but returns {given}."
        )
    pooled = reduce(value.detach())
    if (
        not isinstance(pooled, Tensor)
        or pooled.shape[:1] != (count,)
        or not math.prod(pooled.shape)
    ):
        raise ValueError(f"pool must return a tensor with leading size {count}.")
    return pooled.reshape(count, -1)
