r"""Runs whose gradients flow through their last steps alone: truncated backpropagation through time.

With the states :math:`x_0, ..., x_n` of a run, the gradient of its end with respect to weights is

.. math:: \frac{d x_n}{d \theta} = \sum_{i = n - k}^{n - 1} \frac{\partial x_n}{\partial x_{i + 1}}
    \frac{\partial x_{i + 1}}{\partial \theta} .

Whatever the first n - k steps left to later ones is a constant: the state, past values of a multistep method, and
the estimate of a self-conditioned model.
"""

from dataclasses import replace
from itertools import count

from torch import Tensor

from solvers import Event, Solution

from .ending import denoised
from .run import Run
from .transport import transport


def truncated(run: Run, x: Tensor, last: int) -> Solution:
    r"""Carries states to the end of a run, and denoises them once; the result is that of one run, to the last bit.

    Arguments:
        run: The run on a grid, which keeps gradients.
        x: The states at its start, with shape (B, *).
        last: The number k of last steps that keep gradients, besides the last denoising.
    """

    first = len(run.times) - 1 - last
    if first <= 0:
        with run.settings.gradients():
            return denoised(run, x)
    steps = count(1)

    def stop(event: Event) -> bool:
        return next(steps) == first

    begun = replace(run, settings=replace(run.settings, grad="none", callback=stop))
    with begun.settings.gradients():
        memory = transport(begun, x).memory
    with run.settings.gradients():
        return denoised(replace(run, memory=memory), x)
