r"""Networks of other libraries: how they are called, and which part of their output is used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..models.by_sample import tensors_in
from ..models.closures import held_by
from ..models.conditions import Bound, floats_like, spread
from ..models.network import NetworkScore
from ..processes.process import Process
from .signatures import Network, Order, check_keywords, check_names, order_of, taken


@checked
@dataclass(frozen=True)
class Label:
    r"""Creates the time label of a network: `factor` times the time or noise level, plus `offset`.

    Arguments:
        of: The quantity that the label measures: the time "t" of the process, "noise_level"
            :math:`\sigma / \alpha`, or "log_noise_level".
        factor: The factor that multiplies it.
        offset: The offset that is added.

    Examples:
        >>> ss.Label("t", 999)(ss.VP(), torch.tensor([0.5]))
        tensor([499.5000])
    """

    of: Literal["t", "noise_level", "log_noise_level"] = "t"
    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        r"""Returns the labels of times, with the shape of `t`."""

        if self.of == "t":
            return self.factor * t + self.offset
        log_level = -process.log_snr(t.double())
        value = log_level if self.of == "log_noise_level" else log_level.exp()
        return (self.factor * value + self.offset).to(t)

    def __str__(self) -> str:
        factor = "" if self.factor == 1 else f"{self.factor:.6g} "
        offset = (
            f" {'+' if self.offset > 0 else '-'} {abs(self.offset):.6g}" if self.offset else ""
        )
        return f"{factor}{self.of.replace('_', ' ')}{offset}"


AsLabel = float | Label | Callable[[Tensor], Tensor]


class Foreign(nn.Module):
    r"""Creates a network for :class:`scoresde.NetworkScore` from one that is called differently.

    It uses the first entry of a tuple, `.sample`, or `entry` of the network's output. If the output has twice as
    many channels as the data, as from networks with a learned variance, it uses the first half.

    Arguments:
        network: The network.
        process: The process, for labels that measure the noise level.
        label: The time label, its factor, or a function of the time; `None` for t itself.
        order: The order of state and time.
        names: The keywords of state and time, if they are not positional arguments.
        entry: The attribute or key of the output to use, such as "mean".
        factor: The factor that multiplies the output, such as -1 for velocities towards data.
        constants: The keyword arguments of every call.
        null: The values that stand for no condition, each with leading size 1, for the unconditional prediction
            of classifier-free guidance.
        opened: The names of conditions that are dictionaries of keyword arguments.

    Examples:
        >>> towards_data = lambda t, x: (x - 1) / (1 - t)[:, None]
        >>> network = ss.adapters.Foreign(towards_data, ss.Interpolant(), ss.Label("t", -1, 1), "t, x", factor=-1)
        >>> network(torch.zeros(1, 2), torch.tensor([0.5]))
        tensor([[2., 2.]])
    """

    @checked
    def __init__(
        self,
        network: Network,
        process: Process,
        label: AsLabel | None = None,
        order: Order = "x, t",
        *,
        names: tuple[str, str] | None = None,
        entry: str | int | None = None,
        factor: float = 1.0,
        constants: Mapping[str, object] | None = None,
        null: Mapping[str, Bound] | None = None,
        opened: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if names is not None:
            check_names(network, names)
        check_keywords(network, constants or {}, "constants")
        for name, value in (null or {}).items():
            if any(part.ndim == 0 or len(part) != 1 for _, part in tensors_in(name, value)):
                raise ValueError(
                    f"null[{name!r}] must have leading size 1, for it stands for no condition of any sample; "
                    "take one row of it."
                )
        self.network, self.process = network, process
        self.label = Label("t", label) if isinstance(label, int | float) else label
        self.order, self.names, self.entry, self.factor = order, names, entry, factor
        self.constants, self.null = dict(constants or {}), dict(null or {})
        self.opened = tuple(opened)
        if not isinstance(
            network, nn.Module
        ):  # so that the weights of a method's or function's modules are seen
            self.held = nn.ModuleList(
                part for part in held_by(network) if isinstance(part, nn.Module)
            )

    def forward(self, x: Tensor, t: Tensor, **condition: Bound) -> Tensor:
        r"""Returns the used part of the network's output, with the shape of `x`."""

        inputs = (x, self._label(t))
        keywords = self._keywords(x, condition)
        if self.names is not None:
            answer = self.network(**dict(zip(self.names, inputs, strict=True)), **keywords)
        else:
            answer = self.network(*(inputs if self.order == "x, t" else inputs[::-1]), **keywords)
        F = taken(answer, self.entry)
        if isinstance(F, Tensor) and F.ndim == x.ndim > 1 and F.shape[1] == 2 * x.shape[1]:
            F = F[:, : x.shape[1]]
        if isinstance(F, Tensor):  # networks that were offloaded answer where they compute
            F = F.to(x.device)
        return F if self.factor == 1 else self.factor * F

    def _label(self, t: Tensor) -> Tensor:
        if self.label is None:
            return t
        if isinstance(self.label, Label):
            return self.label(self.process, t)
        found = self.label(t)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"label must return the labels of the times as a tensor, but returned {type(found).__name__}; "
                "for a multiple of the time, give the factor itself, as label=999."
            )
        return found

    def _keywords(self, x: Tensor, condition: Mapping[str, Bound]) -> dict[str, object]:
        missing = {n: v for n, v in floats_like(self.null, x).items() if n not in condition}
        keywords: dict[str, object] = dict(self.constants)
        for name, value in {**spread(missing, x), **condition}.items():
            keywords.update(value if name in self.opened else {name: value})  # type: ignore[arg-type]
        return keywords


@checked
def from_callable(
    network: Network,
    process: Process,
    predicts: str,
    *,
    label: AsLabel | None = None,
    order: Order | None = None,
    names: tuple[str, str] | None = None,
    entry: str | int | None = None,
    factor: float = 1.0,
    constants: Mapping[str, object] | None = None,
    null: Mapping[str, Bound] | None = None,
    conditions: Sequence[str] = (),
    shape: tuple[int, ...] | None = None,
    data_std: float | None = None,
) -> NetworkScore:
    r"""Returns the score model of any network, however it is called.

    Arguments:
        network: The network.
        process: The process whose noise it removes.
        predicts: The prediction type, as for :class:`scoresde.NetworkScore`.
        label: Its time label: a factor of the time, an :class:`scoresde.Label`, or a function of the time.
        order: The order of state and time in its signature. By default, by their names, else "x, t".
        names: The keywords of state and time, if they are not positional.
        entry: The attribute or key of its output to use. By default, the first entry of a tuple, or `.sample`.
        factor: The factor that multiplies its output, such as -1 for velocities towards data.
        constants: The keyword arguments of every call.
        null: The values that stand for no condition, each with leading size 1.
        conditions: The names of its conditions.
        shape: The shape of one sample, if known.
        data_std: The preconditioning constant of "edm".

    Raises:
        ValueError: If a name is both a condition and a constant, or the names of the arguments do not tell their
            order.

    Examples:
        >>> network = lambda x, sigma: {"denoised": x / (1 + sigma[:, None] ** 2)}
        >>> model = ss.from_callable(network, ss.EDM(), "data", entry="denoised", shape=(2,))
        >>> model.denoise(torch.ones(1, 2), torch.tensor([1.0]))
        tensor([[0.5000, 0.5000]])
    """

    for name in conditions:
        if name in (constants or {}):
            raise ValueError(
                f"{name} is both a condition, of each sample, and a constant, of all calls; leave one out."
            )
    called = Foreign(
        network,
        process,
        label,
        order or order_of(network) or "x, t",
        names=names,
        entry=entry,
        factor=factor,
        constants=constants,
        null=null,
    )
    return NetworkScore(
        called, process, predicts, conditions=conditions, shape=shape, data_std=data_std
    )
