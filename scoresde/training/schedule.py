r"""Learning rates by step."""

import math
from collections.abc import Callable


def factor(name: str, steps: int, warmup: int) -> Callable[[int], float]:
    r"""Returns the factor of the learning rate by step, which rises linearly over the first `warmup` steps.

    Arguments:
        name: "cosine" falls to 0 at the end of the training, "inverse_sqrt" as one over the square root of the
            steps, in units of the warm-up, and "constant" stays.
        steps: The number of steps.
        warmup: The number of steps in which it rises.

    References:
        | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024),
        | for "inverse_sqrt"
        | https://arxiv.org/abs/2312.02696
    """

    fall: dict[str, Callable[[int], float]] = {
        "cosine": lambda step: (1 + math.cos(math.pi * step / steps)) / 2,
        "inverse_sqrt": lambda step: (
            math.sqrt(warmup / max(step + 1, warmup, 1)) if warmup else 1.0
        ),
        "constant": lambda step: 1.0,
    }
    return lambda step: min(1.0, (step + 1) / max(warmup, 1)) * fall[name](step)
