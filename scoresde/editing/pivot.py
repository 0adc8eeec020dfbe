r"""Guided decoding along a stored path, by fitted null predictions.

With guidance, decoding departs from the path of the encoding. Classifier-free guidance is affine in the
unconditional prediction, so the change of it that makes a DDIM step end on the stored path is known in closed
form, whereas the embedding would have to be optimised. It is stored, and added under the new condition.

References:
    | Null-text Inversion for Editing Real Images (Mokady et al., 2023), section 3.2
    | https://arxiv.org/abs/2211.09794
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from solvers import Solution, counting
from solvers.doors.signatures import checked
from solvers.problem import StateField
from solvers.shapes import scalars

from ..latents.encoding import ENCODE, encode
from ..models.checks import check_alike
from ..models.learned import check_learned
from ..models.score_model import ScoreModel
from ..runs.options import Options, UntimedOptions
from ..sampling import decode
from .translate import RUNNING, in_data_units

STEPS = 50


class Shifted(ScoreModel):
    r"""Creates a model that differs from another by offsets on a grid.

    Arguments:
        model: The model.
        times: The times of the offsets, with shape (n,). At other times, the nearest offset applies.
        offsets: The offsets added to the denoised data, with shape (n, B, *).
    """

    def __init__(self, model: ScoreModel, times: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.model, self.times, self.offsets = model, times, offsets
        self.resemble(model)
        self.guided = True

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        nearest = self._nearest(torch.as_tensor(t).detach().double().cpu().reshape(-1))
        own = torch.arange(len(x), device=x.device).clamp(max=self.offsets.shape[1] - 1)
        return self.model.denoise(x, t, **condition) + self.offsets[nearest, own]

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        fields = self.model.combine(times, a, b, scale, x, **condition)
        factors, offsets = scalars(b, x), self.offsets[self._nearest(times)]
        return [
            lambda X, f=f, b=b, offset=offset: f(X) + b * offset  # type: ignore[misc]
            for f, b, offset in zip(fields, factors, offsets, strict=True)
        ]

    def rows(self, index: Tensor) -> ScoreModel:
        here = index.to(self.offsets.device)
        return Shifted(self.model.rows(index), self.times, self.offsets[:, here])

    def _nearest(self, times: Tensor) -> Tensor:
        gaps = self.process.log_snr(times)[:, None] - self.process.log_snr(self.times)
        return gaps.abs().argmin(1).to(self.offsets.device)


@checked
def fit_null(model: ScoreModel, path: Solution) -> Shifted:
    r"""Returns the model with the offsets by which DDIM steps follow a stored path down.

    Arguments:
        model: The guided model, with the condition of the data.
        path: The solution of :func:`scoresde.encode` with `path=True`.

    Raises:
        ValueError: If `path` is not that of a run on one grid that kept its states.

    Examples:
        >>> z = ss.encode(model, torch.ones(3, 2), solver="ddim", steps=8, path=True)
        >>> fitted = ss.fit_null(model, z)
        >>> x = ss.decode(fitted, z.x, solver="ddim", times=z.times.flip(0), denoise=False).x
        >>> bool((x - 1).abs().max() < 1e-4)
        True
    """

    check_learned(model, "fit_null")
    if path.path is None or path.times.ndim > 1:
        raise ValueError("the path must have been kept on one grid: pass path=True and steps=.")
    process, times = model.process, path.times.flip(0)
    alpha = process.scales(times)[0]
    levels, states = torch.exp(-process.log_snr(times)), path.path.flip(0)
    offsets = []
    for i in range(len(times) - 1):
        ratio = (levels[i + 1] / levels[i]).item()
        here, after = states[i] / alpha[i].item(), states[i + 1] / alpha[i + 1].item()
        needed = (after - ratio * here) / (1 - ratio)
        offsets.append(needed - model.denoise(states[i], times[i]))
    return Shifted(model, times[:-1], torch.stack(offsets))


def by_null(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    *,
    pivot: ScoreModel | None = None,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Goes up by a pivot's flow, and down by the target, with the offsets that make the source follow it.

    Arguments:
        source: The guided model, with the condition of the data.
        target: The guided model, with the condition of the edited data.
        x: Data, with shape (B, *).
        t_max: The time up to which it goes.
        pivot: The model whose flow is stored, such as the source without guidance. By default, the source.
        options: The options of :class:`scoresde.Settings`. The default is "ddim" with 50 steps.
    """

    options = {"solver": "ddim", "steps": STEPS, **options}
    kept = ENCODE.with_conditions(options)
    if pivot is not None:
        check_alike("source and pivot", [source, pivot])
    up = encode(source if pivot is None else pivot, x, t_max=t_max, **{**kept, "path": True})
    with counting() as counter, torch.no_grad():
        fitted = fit_null(source, up)
    model = Shifted(target, fitted.times, fitted.offsets)
    running: Options = {name: value for name, value in options.items() if name in RUNNING}
    times = up.times.flip(0)
    down = decode(model, up.x, t_max=t_max, solver="ddim", times=times, denoise=False, **running)
    calls = up.calls + counter.total + down.calls
    return replace(in_data_units(target, down), calls=calls)
