r"""What is trained: a network with a score model around it, and what must be right before a step is taken."""

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from solvers.doors.values import as_tensor

from .. import networks
from ..files import Json
from ..models.checks import check_shape
from ..models.network import NetworkScore
from ..models.predictions import PREDICTIONS
from ..models.score_model import ScoreModel
from ..models.self_conditioned import NAME as ESTIMATE
from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from ..zoo.constructors import DIFFUSERS, REGISTERED, constructor_of
from .batches import Batch
from .draws import restored, seed_global

LABEL = "label"
SHAKEN = 0.1  # of the weights, in the check whether the time has an effect
SMALL = 32  # pixels, from which a network has a third level
DENOISERS = [
    name
    for name in networks.__all__
    if "t" in inspect.signature(getattr(networks, name).forward).parameters
]


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
        if name not in DENOISERS:
            raise ValueError(
                f"there is no network to start from for samples of shape {shape}; pass one of your own."
            )
    if name not in {*DENOISERS, *REGISTERED} and not name.startswith(DIFFUSERS):
        raise ValueError(
            f"model must be the name of a network, one of {', '.join(DENOISERS)} or of those that "
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
    try:
        return make(**asked), {"name": name, "settings": asked}
    except RuntimeError as error:  # of sizes that no memory holds
        words = str(error).splitlines()[0]
        raise ValueError(f"{name} cannot be made with the settings {asked}: {words}") from error


def _levels(sides: tuple[int, ...]) -> dict[str, Any]:
    r"""The levels of a U-Net, which halve the sides of an image as often as these allow."""

    wanted = 2 if max(sides) < SMALL else 3
    halved = min(wanted, *(1 + (side & -side).bit_length() - 1 for side in sides))
    return {"multipliers": [1, 2, 2][: max(1, halved)]}


def scored(
    network: nn.Module,
    process: Process,
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
        process,
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
        return {name: as_tensor(f"null[{name!r}]", value) for name, value in given.items()}
    classes, table = getattr(network, "classes", 0), getattr(network, LABEL, None)
    ours = getattr(networks, type(network).__name__, None) is type(network)
    if ours and not classes and isinstance(table, nn.Embedding):
        classes = table.num_embeddings - 1
    return {LABEL: torch.tensor(classes)} if isinstance(classes, int) and classes else {}


def check_null(null: Mapping[str, Tensor], batch: Batch) -> None:
    r"""Refuses values for no condition that are of none, or have another shape than its entries."""

    for name, value in null.items():
        if name not in batch.condition:
            names = ", ".join(batch.condition) or "no conditions"
            raise ValueError(f"null has {name!r}, which is no condition of data; it has {names}.")
        shape = tuple(batch.condition[name].shape[1:])
        if value.shape not in ((), shape):
            raise ValueError(
                f"null[{name!r}] must be one number, or have the shape of an entry of {name}, {shape}, but has "
                f"{tuple(value.shape)}."
            )


def check_fits(model: NetworkScore, batch: Batch) -> None:
    r"""Refuses samples of other shapes, conditions or labels than a model is trained for.

    The model's own estimate is no part of the data: the loss gives it.
    """

    check_shape(model, tuple(batch.x.shape[1:]), "data")
    if batch.condition.keys() | ({ESTIMATE} & {*model.conditions}) != set(model.conditions):
        names = (", ".join(one) or "no conditions" for one in (model.conditions, batch.condition))
        raise ValueError(
            "data must always have the conditions of its first samples, {}, but has {}.".format(
                *names
            )
        )
    check_labels_fit(model.network, classes_of(batch), batch)  # type: ignore[arg-type]


def with_estimate(model: NetworkScore, batch: Batch) -> Batch:
    r"""Returns samples with the estimate of a first call, 0, for a model that is given its own."""

    if ESTIMATE not in model.conditions or ESTIMATE in batch.condition:
        return batch
    return batch._replace(condition={**batch.condition, ESTIMATE: torch.zeros_like(batch.x)})


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
    if any(isinstance(one, nn.UninitializedParameter) for one in network.parameters()):
        raise ValueError(
            f"model must have its weights, but {type(network).__name__} makes some in its first call; call it "
            "once."
        )
    if not any(one.requires_grad for one in network.parameters()):
        raise ValueError(
            f"model must have weights to train, but all those of {type(network).__name__} are frozen; call "
            "requires_grad_(True)."
        )
    _check_takes(network, batch)
    with restored(batch.x.device):
        _check_time(model, network, batch)


def _check_time(model: NetworkScore, network: nn.Module, batch: Batch) -> None:
    r"""Asks a network at two times, with the same random numbers."""

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
        one, other = (_seeded(recorded.network, x, t, condition) for t in (early, late))
    if torch.equal(one, other) and bool(one.isfinite().all()):
        raise ValueError(
            f"the output of {type(network).__name__} does not depend on the time, which tells how much noise "
            "there is; make its layers use its second argument."
        )


def _seeded(network: nn.Module, x: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    r"""The output of a network with the same random numbers, if it draws some."""

    seed_global(x.device, 0)
    return network(x, t, **condition)  # type: ignore[no-any-return]


def check_output(model: NetworkScore, batch: Batch) -> None:
    r"""Refuses a network whose output is not finite, or has no gradient in its weights.

    A copy is asked, so that what a network keeps of its calls stays as it is.
    """

    assert isinstance(model.network, nn.Module)
    asked = around(model, copy.deepcopy(model.network).eval())
    with torch.enable_grad(), restored(batch.x.device):
        seed_global(batch.x.device, 0)
        t = batch.x.new_full((len(batch.x),), model.process.t_max)
        found = asked.raw(batch.x, t, **batch.condition)
    name = type(model.network).__name__
    if not bool(found.detach().isfinite().all()):
        raise ValueError(
            f"the output of {name} must be finite, but is NaN or infinite for data of shape "
            f"{tuple(batch.x.shape)} at t={model.process.t_max:g}; check its layers, its weights and the "
            "scale of the data."
        )
    if not found.requires_grad:
        raise ValueError(
            f"the output of {name} must have a gradient in its weights, but has none; leave out detach(), numpy() "
            "and torch.no_grad()."
        )


def _check_takes(network: nn.Module, batch: Batch) -> None:
    r"""Refuses networks that are not called with data and times, and conditions that they do not take."""

    takes = inspect.signature(network.forward).parameters
    places = [p for p in takes.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in takes.values()):
        raise ValueError(
            f"model must be called as network(x, t, **condition), but {type(network).__name__} is called as "
            f"network({', '.join(takes)}); wrap it in a module that is."
        )
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
            if weight.is_floating_point() and weight.numel():
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
    other = getattr(type(model), "meant_for", "")
    if not isinstance(model, nn.Module) or other:
        raise TypeError(
            "model must be a network (a torch.nn.Module), a NetworkScore, a name or None, but is "
            f"{model!r}{other}."
        )
    return model, None, None


def few_of(some: Batch, model: NetworkScore) -> Batch:
    r"""Two samples, as the network takes them: as states, if these have more entries."""

    first = next(model.parameters(), torch.zeros(()))
    few = some.rows(torch.arange(min(2, len(some.x)))).to(first.device, first.dtype)
    if not isinstance(model.process, BlockProcess):
        return few
    last = torch.tensor(model.process.t_max, dtype=torch.float64)
    return few._replace(x=model.process.enter(few.x, last))
