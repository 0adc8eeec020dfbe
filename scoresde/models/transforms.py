r"""Maps between the user's data and the states of a process, which models carry.

A process and its network see one real tensor with shape (B, \*). The data of a user may have other units, or be
complex, symbols, or several tensors. A model with an attribute `transform` takes and returns such data: functions
apply the map where data comes in, and its inverse where it goes out. Latents and paths stay states.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_tensor

from ..doors.data import Samples, as_data, as_floats

Data: TypeAlias = Samples | Mapping[str, Array]  # of a user; mappings for models with a transform
Network: TypeAlias = Callable[..., Any]


class Transform(ABC):
    r"""Abstract map between a user's data and the states of a process.

    Attributes:
        shape: The shape of one state, if it is known.
        lossless: Whether states determine data, so that the density of one is that of the other.
        quantized: Whether states lie on points, and have no density.
        whole: Whether data are whole numbers.

    Examples:
        >>> isinstance(ss.ComplexPairs(), ss.Transform)
        True
    """

    shape: tuple[int, ...] | None = None
    lossless: bool = True
    quantized: bool = False
    whole: bool = False

    @abstractmethod
    def pack(self, name: str, x: object) -> Tensor:
        r"""Returns states in the units of the process, from numbers in the user's form.

        Arguments:
            name: The name of the argument, for messages.
            x: The numbers.
        """

    @abstractmethod
    def unpack(self, x: Tensor) -> Tensor:
        r"""Returns states in the user's form, from those of the process."""

    def inside(self, name: str, x: object) -> Tensor:
        r"""Returns the states of data, with shape (B, \*)."""

        return self.pack(name, x)

    def outside(self, x: Tensor) -> Tensor:
        r"""Returns the data of states."""

        return self.unpack(x)

    def held(self, name: str, x: object) -> Tensor:
        r"""Returns data in the form in which a training keeps it, which has the shape of states."""

        return self.inside(name, x)

    def current(self, held: Tensor) -> Tensor:
        r"""Returns the states of data that a training keeps, by the weights of a map that is learned."""

        return held

    def gradient(self, slope: Tensor) -> Tensor:
        r"""Returns a gradient with respect to data, from that with respect to its state."""

        return self.unpack(slope)

    def log_volumes(self, shape: Sequence[int]) -> Tensor:
        r"""Returns the logarithm of the volume of data per volume of states, for each entry of a state."""

        return torch.zeros(*shape, dtype=torch.float64)

    def inner_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        r"""Returns the shape (B, \*) of states, from that of data."""

        return shape

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        r"""The shapes of named parts, if data consists of such parts."""

        return {}

    @property
    def described(self) -> dict[str, Any]:
        r"""The transform as plain data, without its tensors."""

        return {"name": type(self).__name__}

    @property
    def tensors(self) -> dict[str, Tensor]:
        r"""Its tensors by name."""

        return {}


def same_transform(one: Transform | None, other: Transform | None) -> bool:
    r"""Returns whether two transforms are the same map, as far as their settings and tensors tell."""

    if one is None or other is None or one is other:
        return one is other
    if type(one) is not type(other) or one.described != other.described:
        return False
    mine, its = one.tensors, other.tensors
    return mine.keys() == its.keys() and all(
        torch.equal(mine[name].cpu(), its[name].cpu()) for name in mine
    )


class ComplexPairs(Transform):
    r"""Creates the map between complex data and pairs of real numbers.

    Complex data with shape (B, c, \*) has states with shape (B, 2 c, \*): the c real parts, then the c imaginary
    parts. Its density is that of these 2 c numbers. States of noise are circular complex normals whose real and
    imaginary parts each have the standard deviation of the process.

    Examples:
        >>> pairs = ss.ComplexPairs()
        >>> pairs.inside("x", torch.tensor([[1 + 2j, 3 - 4j]]))
        tensor([[ 1.,  3.,  2., -4.]])
        >>> pairs.outside(torch.tensor([[1.0, 3.0, 2.0, -4.0]]))
        tensor([[1.+2.j, 3.-4.j]])
    """

    def __repr__(self) -> str:
        return "ComplexPairs()"

    def pack(self, name: str, x: object) -> Tensor:
        z = torch.as_tensor(x)
        if not z.is_complex():
            z = torch.complex(real := as_data(name, x, finite=False), torch.zeros_like(real))
        if z.ndim < 2 or 0 in z.shape:
            raise ValueError(f"{name} must have shape (B, c, *), but has {tuple(z.shape)}.")
        return torch.cat([z.real, z.imag], 1)

    def unpack(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2:
            raise ValueError(
                f"states of complex data have an even number of entries along their second axis, but these have "
                f"shape {tuple(x.shape)}."
            )
        return torch.complex(*x.chunk(2, 1))

    def inner_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 2 * shape[1], *shape[2:]) if len(shape) > 1 else shape

    @checked
    def network(self, network: Callable[..., Any]) -> Network:
        r"""Returns a network of states, from one that takes and returns complex tensors.

        Arguments:
            network: A function or module whose first argument is complex.
        """

        return Around(self, network, self.unpack, lambda y: self.pack("the network's output", y))


class NamedParts(Transform):
    r"""Creates the map between a dictionary of tensors and one vector per sample.

    The parts are flattened and joined in the given order. Data is a dictionary of tensors with shapes (B, \*), and
    a solution `s` has the parts `s["name"]`.

    Arguments:
        shapes: The shape of each part of one sample, by name.

    Examples:
        >>> parts = ss.NamedParts({"place": (2,), "turn": (2, 2)})
        >>> x = parts.inside("x", {"place": torch.zeros(3, 2), "turn": torch.ones(3, 2, 2)})
        >>> x.shape, parts.split(x)["turn"].shape
        (torch.Size([3, 6]), torch.Size([3, 2, 2]))
    """

    @checked
    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        if not shapes:
            raise ValueError("shapes must name at least one part, but is empty.")
        for name, shape in shapes.items():
            if isinstance(shape, str) or not isinstance(shape, Sequence):
                raise TypeError(
                    f"shapes[{name!r}] must be the shape of one sample, such as (3,), or () for a number, but is "
                    f"{shape!r}."
                )
        self.shapes = {str(name): tuple(int(n) for n in shape) for name, shape in shapes.items()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        if min(self.sizes) < 1:
            raise ValueError(f"shapes must have positive sizes, but are {self.shapes}.")
        self.shape = (sum(self.sizes),)

    def __repr__(self) -> str:
        return f"NamedParts({self.shapes})"

    def pack(self, name: str, x: object) -> Tensor:
        if not isinstance(x, Mapping):  # states already
            return as_data(name, x, finite=False)
        if set(x) != set(self.shapes):
            raise ValueError(
                f"{name} must have the parts {', '.join(self.shapes)}, but has {', '.join(map(str, x))}."
            )
        found = {key: as_floats(f"{name}[{key!r}]", x[key]) for key in self.shapes}
        batch = max(len(part) for part in found.values())
        for key, part in found.items():
            if tuple(part.shape) != (batch, *self.shapes[key]):
                raise ValueError(
                    f"{name}[{key!r}] must have shape {(batch, *self.shapes[key])}, but has {tuple(part.shape)}."
                )
        return torch.cat([part.reshape(batch, -1) for part in found.values()], 1)

    def unpack(self, x: Tensor) -> Tensor:
        return x

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        return self.shapes

    def split(self, x: Tensor) -> dict[str, Tensor]:
        r"""Returns the parts of vectors with shape (B, n)."""

        pieces = x.split(self.sizes, 1)
        return {
            name: piece.reshape(len(x), *shape)
            for piece, (name, shape) in zip(pieces, self.shapes.items(), strict=True)
        }

    @checked
    def network(self, network: Callable[..., Any]) -> Network:
        r"""Returns a network of states, from one that takes and returns dictionaries of parts.

        Arguments:
            network: A function or module whose first argument is a dictionary of tensors.
        """

        return Around(self, network, self.split, lambda y: self.pack("the network's output", y))

    @property
    def described(self) -> dict[str, Any]:
        return {"name": "NamedParts", "shapes": {n: list(s) for n, s in self.shapes.items()}}


class Standardized(Transform):
    r"""Creates the affine map between data and its standardised states, :math:`u = m + s \, x`.

    The log-density of data is that of its state minus :math:`\sum \log s`.

    Arguments:
        mean: The mean :math:`m`: a number, or a tensor that broadcasts with one sample, in the user's form.
        std: The standard deviation :math:`s > 0`, in the same form.
        form: A transform that is applied first, for complex data or named parts.

    Examples:
        >>> model.transform = ss.Standardized(torch.tensor([10.0, 0.0]), 2.0)
        >>> s = ss.sample(model, 1000, solver="ddim", steps=20)
        >>> abs(float(s.x[:, 0].mean()) - 10) < 0.1
        True
        >>> model.transform = None
    """

    @checked
    def __init__(
        self, mean: Data | float, std: Data | float, form: Transform | None = None
    ) -> None:
        self.form = form
        self.mean, self.std = self._entries("mean", mean), self._entries("std", std)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, but is as small as {self.std.min():.4g}.")
        self.shape = None if form is None else form.shape

    @staticmethod
    @checked
    def of(data: Data, form: Transform | None = None) -> "Standardized":
        r"""Returns the map with the mean and the standard deviation of each entry of data.

        Entries that are the same in all samples have no deviation, and get 1.

        Arguments:
            data: Data, with shape (M, \*), M >= 2.
            form: As in the constructor.
        """

        x = as_data("data", data) if form is None else form.pack("data", data)
        if len(x) < 2:
            raise ValueError(f"data must have at least 2 samples, but has {len(x)}.")
        mean, std = x.double().mean(0), x.double().std(0)
        found = Standardized(0.0, 1.0, form)
        found.mean, found.std = mean, torch.where(std > 0, std, 1.0)
        return found

    def __repr__(self) -> str:
        form = "" if self.form is None else f", {self.form!r}"
        return (
            f"Standardized(mean of size {_size(self.mean)}, std of size {_size(self.std)}{form})"
        )

    def _entries(self, name: str, value: object) -> Tensor:
        r"""Mean or deviations as a tensor that broadcasts with one state."""

        if self.form is None or isinstance(value, int | float):
            return as_floats(name, value, dtype=torch.float64)
        if isinstance(value, Mapping):
            value = {key: as_tensor(f"{name}[{key!r}]", one)[None] for key, one in value.items()}
            return self.form.pack(name, value)[0].double()
        entries = torch.as_tensor(value)
        if name == "std" and isinstance(self.form, ComplexPairs) and not entries.is_complex():
            entries = torch.complex(entries.double(), entries.double())  # of both parts
        return self.form.pack(name, entries[None])[0].double()

    def pack(self, name: str, x: object) -> Tensor:
        return as_data(name, x, finite=False) if self.form is None else self.form.pack(name, x)

    def unpack(self, x: Tensor) -> Tensor:
        return x if self.form is None else self.form.unpack(x)

    def inside(self, name: str, x: object) -> Tensor:
        u = self.pack(name, x)
        self._check(name, u.shape[1:])
        return (u - self.mean.to(u)) / self.std.to(u)

    def outside(self, x: Tensor) -> Tensor:
        self._check("the mean", x.shape[1:])
        return self.unpack(self.mean.to(x) + self.std.to(x) * x)

    def gradient(self, slope: Tensor) -> Tensor:
        return self.unpack(slope / self.std.to(slope))

    def log_volumes(self, shape: Sequence[int]) -> Tensor:
        return self.std.expand(*shape).log()

    def inner_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.form is None else self.form.inner_shape(shape)

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        return {} if self.form is None else self.form.parts

    @property
    def described(self) -> dict[str, Any]:
        form = None if self.form is None else self.form.described
        return {"name": "Standardized", "form": form}

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "std": self.std}

    def _check(self, name: str, shape: Sequence[int]) -> None:
        for value in (self.mean, self.std):
            wide = (
                torch.broadcast_shapes(value.shape, tuple(shape)) if _fits(value, shape) else None
            )
            if wide != torch.Size(shape):
                raise ValueError(
                    f"{name} has samples of shape {tuple(shape)}, but the mean and std of the transform have "
                    f"shapes {tuple(self.mean.shape)} and {tuple(self.std.shape)}."
                )


class Around(torch.nn.Module):
    r"""Creates the network of states around one of the user's form of the data.

    Arguments:
        form: The transform whose form this is.
        network: The network, which takes and returns that form.
        before: The map of its first argument.
        after: The map of its result.
    """

    def __init__(
        self,
        form: Transform,
        network: Network,
        before: Callable[[Tensor], Any],
        after: Callable[[Any], Tensor],
    ) -> None:
        super().__init__()
        self.form, self.network, self.before, self.after = form, network, before, after

    def forward(self, x: Tensor, *arguments: object, **keywords: object) -> Tensor:
        return self.after(self.network(self.before(x), *arguments, **keywords))


def _fits(value: Tensor, shape: Sequence[int]) -> bool:
    pairs = zip(reversed(value.shape), reversed(tuple(shape)), strict=False)
    return value.ndim <= len(shape) and all(n in (1, m) for n, m in pairs)


def _size(value: Tensor) -> str:
    return f"{value.double().square().mean().sqrt():.3g}"
