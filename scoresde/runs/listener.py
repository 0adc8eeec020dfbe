r"""The progress bar and the user's callback, which are updated after each step of a run."""

from collections.abc import Callable

import torch
from torch import Tensor

from solvers import Event

from ..reverse.reverse import Reverse
from .progress import Late
from .settings import Settings
from .watched import Watched


def listener(
    reverse: Reverse,
    watch: Watched | None,
    times: Tensor,
    samples: range,
    settings: Settings,
    progress: Late | None,
) -> Callable[[Event], object] | None:
    r"""A function that moves the progress bar, and calls the user's callback in the process's times and states."""

    if not settings.progress and settings.callback is None:
        return None

    def told(event: Event) -> object:
        if progress is not None and progress.moves():
            progress.move(samples.start + len(samples) * _done(reverse, times, event))
        if settings.callback is None:
            return None
        event = reverse.event(event)
        rows, x, denoised = event.rows, event.x, watch.latest if watch else None
        if rows is None and len(x) > len(samples):  # the others fill up a block
            known = slice(len(samples))
            x = x[known]
            denoised = None if denoised is None else denoised[known]
            event = event._replace(calls=None if event.calls is None else event.calls[known])
        if settings.batch_size is not None or settings.method.block:  # name rows of the whole run
            rows = (torch.arange(len(x)) if rows is None else rows) + samples.start
        return settings.callback(event._replace(x=x, rows=rows, denoised=denoised))

    return told


def _done(reverse: Reverse, times: Tensor, event: Event) -> float:
    r"""The fraction of the span of log-SNR that is done, averaged over the samples."""

    process = reverse.model.process
    if not process.has_levels or event.rows is not None:
        return event.fraction
    if event.fraction == 1:
        return 1.0
    start, stop = process.bare_log_snr(times[[0, -1]])
    now = process.bare_log_snr(reverse.to_time(event.time))
    return float(((now - start) / (stop - start)).mean())
