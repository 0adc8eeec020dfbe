r"""Gradients of user functions, separately for each row."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..runs.current import suspect
from .noisy_classifier import Classifier
from .words import title

CURE = "keep roots, norms and logarithms in it away from 0; the network is not at fault"


class RowFunction:
    r"""Creates a function of rows, such as a loss, with its gradient.

    Arguments:
        name: Its name in error messages.
        function: The function, which returns one number per row, with shape (B,).
        data: Its keyword arguments, each with leading size B or 1.
        takes: Its positional arguments.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Tensor],
        data: Mapping[str, Tensor],
        takes: Sequence[str] = ("D",),
    ) -> None:
        check_function(name, function, data, takes)
        self.name, self.function, self.looked = name, function, False

    @property
    def title(self) -> str:
        r"""The name of the function."""

        return title(self.function)

    def gradient(self, x: Tensor, *times: Tensor, **data: Tensor) -> Tensor:
        r"""Returns the gradient with respect to the rows, with shape (B, \*).

        Arguments:
            x: The points, with shape (B, \*).
            times: Its positional arguments after `x`.
            data: What it takes by name.
        """

        check_gradients()
        found, gradient = self._slope(x, times, data)
        cause = f"the gradient of {self.name} {self.title!r} is NaN or infinite"
        suspect(cause, CURE, gradient, x)
        if not self.looked:
            self.looked = True
            if not bool(gradient.any()):
                self._check_slopes(x, times, data, found)
        return gradient

    def _slope(
        self, x: Tensor, times: Sequence[Tensor], data: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            found = one_per_row(self.name, self.function(leaf, *times, **data), x)
            return found.detach(), gradient_of(self.name, found, leaf)

    def _check_slopes(
        self, x: Tensor, times: Sequence[Tensor], data: Mapping[str, Tensor], found: Tensor
    ) -> None:
        r"""Refuses a function whose values differ but whose gradient is 0: it rounds, counts or compares."""

        generator = torch.Generator().manual_seed(0)
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        size = x.square().mean().sqrt().clamp(min=1)
        near = [self._slope(x + far * size * z, times, data) for far in (0.1, 0.5, 1.0, 2.0)]
        changes = any(bool((value != found).any()) for value, _ in near)
        if changes and not any(bool(slope.any()) for _, slope in near):
            raise ValueError(
                f"the gradient of {self.name} {self.title!r} is 0 wherever it was computed, although its "
                "values differ: it rounds, counts or compares; use a smooth function instead."
            )


def one_per_row(name: str, found: object, x: Tensor) -> Tensor:
    r"""Returns the result of a function of rows, after checking that it is one number per row."""

    if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{name} must return one number per sample, with shape ({len(x)},), not {shape}."
        )
    return found


def gradient_of(name: str, found: Tensor, leaf: Tensor) -> Tensor:
    r"""Returns the gradient of numbers, one per row, with respect to the rows of a leaf tensor.

    Arguments:
        name: The name of their function in error messages.
        found: The numbers, with shape (B,).
        leaf: The tensor they were computed from, with shape (B, \*).
    """

    if not found.requires_grad:
        raise ValueError(
            f"{name} has no gradient with respect to the data; leave out .detach(), argmax and no_grad."
        )
    (gradient,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ValueError(f"{name} does not depend on the data, so it has no gradient.")
    return gradient


def check_gradients() -> None:
    r"""Refuses inference mode, in which there are no gradients."""

    if torch.is_inference_mode_enabled():
        raise ValueError(
            "guidance by gradients cannot run inside torch.inference_mode(); use torch.no_grad() instead."
        )


def check_graph(model: ScoreModel, D: Tensor) -> None:
    r"""Refuses denoised data that has no gradient."""

    if not D.requires_grad:
        raise ValueError(
            f"{model!r} has no gradient to guide it by: its network detaches, or runs under no_grad or in "
            "inference mode; remove that from the network."
        )


def check_function(
    name: str, function: object, data: Mapping[str, object], takes: Sequence[str] = ("D",)
) -> None:
    r"""Refuses anything that is not a function of data, or does not take the arguments that it will get.

    Arguments:
        name: What errors call the function.
        function: The function.
        data: Its keyword arguments, each with leading size B or 1.
        takes: Its positional arguments.
    """

    if not callable(function):
        raise TypeError(f"{name} must be a function of data, but is {function!r}.")
    for key, value in data.items():
        if not isinstance(value, Tensor) or not value.ndim:
            raise TypeError(f"{key} must be a tensor with leading size B or 1, but is {value!r}.")
    try:
        inspect.signature(function).bind(*takes, **data)
    except TypeError:
        words = ", ".join((*takes, *(f"{key}=..." for key in data)))
        raise TypeError(
            f"{name} is called as {name}({words}), which {function!r} does not take."
        ) from None
    except ValueError:  # for functions without a signature
        pass


def check_owner(
    name: str, function: object, data: Mapping[str, object], process: Process | None = None
) -> None:
    r"""Checks, if a function is a method of a classifier, that the classifier fits the data and the process.

    Arguments:
        name: What errors call the function.
        function: The function.
        data: What it takes by name.
        process: The process, if the function takes noisy data and its time.
    """

    owner = getattr(function, "__self__", None)
    if not isinstance(owner, Classifier):
        return
    if process is not None and owner.process != process:
        raise ValueError(
            f"{name} was made for the process {owner.process}, but the model's process is {process}; make "
            "the classifier again from its network: ss.Classifier(c.network, model.process, "
            "data_std=c.data_std, levels=c.levels)."
        )
    if process is not None and owner.levels[0] == owner.levels[1]:
        raise ValueError(
            "this classifier is for clean data only; pass its loss to guidance.universal."
        )
    for key, value in data.items():
        assert isinstance(value, Tensor)  # as check_function has seen to
        owner.check_condition(key, value)
