r"""What is trained: a network with a score model around it, and what must be right before a step is taken."""

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import networks
from ..files import Json
from ..models.network import NetworkScore
from ..models.predictions import PREDICTIONS
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..processes.standard import EDM
from ..zoo.constructors import DIFFUSERS, REGISTERED, constructor_of
from .batches import Batch

LABEL = "label"
SHAKEN = 0.1  # of the weights, in the check whether the time has an effect
SMALL = 32  # pixels, from which a network has a third level


def classes_of(batch: Batch) -> int:
    r"""Returns the number of classes of labelled data, and 0 if there are no labels.

    Raises:
        ValueError: If labels are no whole numbers from 0 on.
    """

    label = batch.condition.get(LABEL)
    if label is None or label.is_floating_point() or label.ndim != 1:
        return 0
    if int(label.min()) < 0:
        bad = (label < 0).nonzero()[:8, 0].tolist()
        raise ValueError(f"label must be at least 0, but is {int(label.min())} in rows {bad}.")
    return int(label.max()) + 1


def built(
    name: str | None, settings: Mapping[str, object] | None, shape: tuple[int, ...], classes: int
) -> tuple[nn.Module, Json]:
    r"""Returns a new network that fits the data, and its entry in a card.

    Arguments:
        name: The name of a network of this package or a registered one. By default, one is chosen.
        settings: Its settings, in addition to those that follow from the data.
        shape: The shape of a sample.
        classes: The number of classes, or 0.
    """

    if name is None:
        name = {1: "MLP", 3: "UNet"}.get(len(shape), "")
        if name not in networks.__all__:
            raise ValueError(
                f"there is no network to start from for samples of shape {shape}; pass one of your own."
            )
    if name not in {*networks.__all__, *REGISTERED} and not name.startswith(DIFFUSERS):
        raise ValueError(
            f"model must be the name of a network, one of {', '.join(networks.__all__)} or of those that "
            f"ss.register_network knows, but is {name!r}."
        )
    make = constructor_of(name)
    takes = inspect.signature(make).parameters
    facts = {"channels": shape[0], "size": shape[-1], "classes": classes}
    if len(shape) == 3 and "multipliers" in takes:
        facts |= _levels(shape[1:])
    asked = {**{name: value for name, value in facts.items() if name in takes}, **(settings or {})}
    unknown = [one for one in asked if one not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        raise ValueError(
            f"settings has {unknown[0]!r}, which {name} does not take; it takes: {', '.join(takes)}."
        )
    return make(**asked), {"name": name, "settings": asked}


def _levels(sides: tuple[int, ...]) -> dict[str, Any]:
    r"""The levels of a U-Net, which halve the sides of an image as often as these allow."""

    wanted = 2 if max(sides) < SMALL else 3
    halved = min(wanted, *(1 + (side & -side).bit_length() - 1 for side in sides))
    return {"multipliers": [1, 2, 2][: max(1, halved)]}


def scored(
    network: nn.Module,
    process: Process | None,
    predicts: str | None,
    batch: Batch,
) -> NetworkScore:
    r"""Returns the score model of a network that is to be trained on some data."""

    if predicts is not None and predicts not in PREDICTIONS:
        raise ValueError(
            f"predicts must be one of {', '.join(map(repr, PREDICTIONS))}, but is {predicts!r}."
        )
    shape = tuple(batch.x.shape[1:])
    scale = float(batch.x.double().square().mean().sqrt()) or 1.0
    return NetworkScore(
        network,
        process or EDM(),
        predicts or "edm",
        conditions=tuple(batch.condition),
        shape=shape,
        data_std=scale,
    )


def around(model: NetworkScore, network: nn.Module) -> NetworkScore:
    r"""Returns the score model with another network of the same kind in it."""

    made = copy.copy(model)
    vars(made)["_modules"] = dict(model._modules)
    made.network = network
    made.fingerprint = None
    return made


def null_of(network: nn.Module, given: Mapping[str, object] | None) -> dict[str, Tensor]:
    r"""Returns the values that stand for no condition, by the names of the conditions.

    Networks of this package take the number of their classes as the label of none.
    """

    if given is not None:
        return {name: torch.as_tensor(value) for name, value in given.items()}
    classes, table = getattr(network, "classes", 0), getattr(network, LABEL, None)
    ours = getattr(networks, type(network).__name__, None) is type(network)
    if ours and not classes and isinstance(table, nn.Embedding):
        classes = table.num_embeddings - 1
    return {LABEL: torch.tensor(classes)} if isinstance(classes, int) and classes else {}


def check_labels_fit(network: nn.Module, found: int, batch: Batch) -> None:
    r"""Refuses labels that a network has no place for."""

    known = null_of(network, None).get(LABEL)
    if known is not None and found > int(known):
        bad = (batch.condition[LABEL] >= int(known)).nonzero()[:8, 0].tolist()
        raise ValueError(
            f"label must lie in [0, {int(known) - 1}] for this network, but is up to {found - 1}, in rows {bad}."
        )


def check_network(model: NetworkScore, batch: Batch) -> None:
    r"""Refuses a network whose output has another shape than the data, or does not depend on the time.

    Weights that begin at zero hide what an output depends on, so a copy with changed weights is asked.
    """

    network = model.network
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"model must hold a module, which has weights to train, but holds {network!r}."
        )
    if not any(True for _ in network.parameters()):
        raise ValueError(
            f"model must have weights to train, but {type(network).__name__} has none."
        )
    _check_takes(network, batch)
    recorded = _Recorded(_shaken(network))
    asked = around(model, recorded)
    middle = (model.process.t_min * model.process.t_max) ** 0.5 or model.process.t_max / 2
    with torch.no_grad():
        for t in (middle, model.process.t_max):
            try:
                asked.raw(batch.x, batch.x.new_full((len(batch.x),), t), **batch.condition)
            except (RuntimeError, IndexError) as error:
                raise ValueError(
                    f"data of shape {tuple(batch.x.shape)} is not what {type(network).__name__} takes: {error}"
                ) from error
        (x, early, condition), (_, late, _) = recorded.calls
        one, other = (recorded.network(x, t, **condition) for t in (early, late))
    if isinstance(one, Tensor) and torch.equal(one, other):
        raise ValueError(
            f"the output of {type(network).__name__} does not depend on the time, which tells how much noise "
            "there is; make its layers use its second argument."
        )


def _check_takes(network: nn.Module, batch: Batch) -> None:
    r"""Refuses conditions that a network does not take."""

    takes = inspect.signature(network.forward).parameters
    open_to_all = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    for name in batch.condition:
        if name not in takes and not open_to_all:
            raise ValueError(
                f"data has the condition {name!r}, which {type(network).__name__} does not take; it is called as "
                f"network({', '.join(takes)})."
            )


class _Recorded(nn.Module):
    r"""A network that keeps what it was called with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.calls.append((x.clone(), t.clone(), condition))
        return self.network(x, t, **condition)


def _shaken(network: nn.Module) -> nn.Module:
    r"""A copy with other weights, so that none is zero."""

    other = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            if weight.is_floating_point():
                shift = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(
                    SHAKEN / math.sqrt(max(1, weight[0].numel() if weight.ndim else 1)) * shift
                )
    return other


def as_network(model: object) -> tuple[nn.Module | None, NetworkScore | None, str | None]:
    r"""Returns what a user passed to be trained: a network, a score model, or the name of a network."""

    if model is None or isinstance(model, str):
        return None, None, model
    if isinstance(model, NetworkScore):
        return None, model, None
    if isinstance(model, ScoreModel):
        raise TypeError(
            "model must be a network, a NetworkScore, the name of a network, or None, but is a "
            f"{type(model).__name__}; train the network that it wraps."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a network (a torch.nn.Module), a NetworkScore, a name or None, but is {model!r}."
        )
    return model, None, None
