r"""Which losses draw random numbers of their own."""

import inspect
from collections.abc import Callable

from torch import Tensor, nn


def takes_seed(loss: Callable[..., Tensor]) -> bool:
    r"""Whether a loss takes `seed=`, by which each training step draws other numbers."""

    call = loss.forward if isinstance(loss, nn.Module) else loss
    return "seed" in inspect.signature(call).parameters
