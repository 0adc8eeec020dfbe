r"""Classifier-free guidance."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor, is_number
from solvers.problem import StateField

from ..models.checks import check_interval, check_number
from ..models.score_model import ScoreModel
from .combined import Several

Scale = float | Tensor | Callable[[Tensor], Tensor]


@checked
def classifier_free(
    model: ScoreModel,
    scale: Scale,
    *,
    interval: tuple[float, float] | None = None,
    negative: Mapping[str, Tensor] | None = None,
    **condition: Tensor,
) -> ScoreModel:
    r"""Returns the model guided towards a condition.

    .. math:: D(x \mid n) + w \, (D(x \mid c) - D(x \mid n))

    A scale of 0 ignores the condition c and 1 follows the model: both cost one call. Others cost
    two. Where the scale is said to be :math:`s` in :math:`(1 + s) D(x \mid c) - s D(x)`, pass
    :math:`w = 1 + s`.

    Arguments:
        model: A score model that also answers without the condition.
        scale: The scale :math:`w`: a number, one per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales of the same shape.
        interval: The noise levels, the lower first, within which the model is guided. Outside, the scale
            is 1.
        negative: The condition :math:`n` to be led away from, such as `{"label": label}`. By default, none.
        condition: The condition :math:`c`, with leading size B or 1.

    Raises:
        ValueError: If there is no condition, a scale is not finite, or the interval is upside down.

    References:
        | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), equation (6)
        | https://arxiv.org/abs/2207.12598
        | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
        | Models (Kynkaanniemi et al., 2024), equation (5)
        | https://arxiv.org/abs/2404.07724
    """

    if not condition:
        raise ValueError("classifier_free needs a condition, such as label=.")
    if not callable(scale):
        scale = check_number("scale", scale) if is_number(scale) else as_tensor("scale", scale)
    numbers = torch.tensor([]) if callable(scale) else torch.as_tensor(scale)
    _check_real(numbers, "be", scale)
    if not bool(numbers.isfinite().all()) or numbers.ndim > 1:
        raise ValueError(
            f"scale must be a finite number, or one per sample, but is {scale}; it is the w of "
            "(1 - w) D(x) + w D(x|c), so where s is meant in (1 + s) D(x|c) - s D(x), pass 1 + s."
        )
    if interval is not None:
        check_interval(interval)
    if negative is not None and not isinstance(negative, Mapping):
        raise TypeError(
            f"negative must be a condition by name, as {{'label': label}}, not {negative!r}."
        )
    towards, away = model.given(**condition), model.given(**(negative or {}))
    if isinstance(scale, float | int) and scale == 1:
        return towards
    if isinstance(scale, float | int) and scale == 0 and interval is None:
        return away
    known = scale if callable(scale) or isinstance(scale, Tensor) else float(scale)
    role = "negative" if negative else "unconditional"
    return ClassifierFree((away, towards), known, interval, (role, "conditional"))


def scales_at(scale: Callable[[Tensor], Tensor], levels: Tensor) -> Tensor:
    r"""Returns scales at noise levels, with their shape, as a function says them."""

    found = torch.as_tensor(scale(levels))
    _check_real(found, "return", found)
    found = found.double()
    if found.shape not in (torch.Size(), levels.shape):
        raise ValueError(
            f"scale must return numbers of the shape of the noise levels, {tuple(levels.shape)}, not "
            f"{tuple(found.shape)}."
        )
    if not bool(found.isfinite().all()):
        raise ValueError("scale must be finite at all noise levels that are asked for.")
    return found.expand_as(levels)


def _check_real(numbers: Tensor, verb: str, scale: object) -> None:
    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"scale must {verb} real numbers, not {numbers.dtype}: {scale!r}.")


class ClassifierFree(Several):
    r"""The model that is guided from one of two models towards the other; see :func:`classifier_free`."""

    title = "classifier_free"

    def __init__(
        self,
        models: Sequence[ScoreModel],
        scale: Scale,
        interval: tuple[float, float] | None,
        roles: Sequence[str],
    ) -> None:
        self.scale, self.interval, self.roles = scale, interval, roles
        super().__init__(models, f"{self.title} {self._words()}")
        away, _ = models
        self.fingerprint = f"{away.fingerprint or type(away).__name__} guided by {self._words()}"

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        w = self.weights(times)
        if w.ndim > times.ndim:  # one per sample
            if w.shape[1] not in (1, len(x)):
                raise ValueError(f"scale must be one number or {len(x)}, not {w.shape[1]}.")
            w = w.expand(-1, len(x))
            times, a, b, scale = (value[:, None].expand_as(w) for value in (times, a, b, scale))
        away, towards = self.each
        free = away.combine(times, a, (1 - w) * b, scale, x, **condition)
        bound = towards.combine(times, 0 * a, w * b, scale, x, **condition)
        alone = towards.combine(times, a, b, scale, x, **condition)
        rows = w.reshape(len(w), -1)
        plain, none = (rows == 1).all(1).tolist(), (rows == 0).all(1).tolist()
        return [
            alone[i] if plain[i] else free[i] if none[i] else _sum(free[i], bound[i])
            for i in range(len(w))
        ]

    def weights(self, times: Tensor) -> Tensor:
        r"""Returns the scales at some times, with their shape, or (n, B) if samples have their own."""

        level = torch.exp(-self.process.log_snr(times))
        if callable(self.scale):
            w = scales_at(self.scale, level)
        else:
            w = torch.as_tensor(self.scale).detach().double().cpu()
            own = w.ndim and times.ndim == 1
            level = level[:, None] if own else level
            w = w.expand(len(level), len(w)) if own else w.expand_as(level)
        if self.interval is None:
            return w
        low, high = self.interval
        return torch.where((level >= low) & (level <= high), w, 1.0)

    @property
    def held(self) -> Mapping[str, Tensor]:
        scale = self.scale
        return {"scale": scale} if isinstance(scale, Tensor) and scale.ndim else {}

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        scale = self.scale
        if isinstance(scale, Tensor) and scale.numel() > 1:
            scale = scale[index.to(scale.device)]
        return ClassifierFree(models, scale, self.interval, self.roles)

    def _words(self) -> str:
        scale, inside = self.scale, ""
        if self.interval is not None:
            inside = f" within {self.interval[0]:g} to {self.interval[1]:g}"
        if isinstance(scale, float):
            return f"{scale:g}{inside}"
        if isinstance(scale, Tensor):
            return f"{scale.tolist()}{inside}"
        return f"{getattr(scale, '__qualname__', type(scale).__name__)}{inside}"


def _sum(f: StateField, g: StateField) -> StateField:
    return lambda x: f(x) + g(x)
