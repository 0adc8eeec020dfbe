r"""Classifiers of noisy data, for guidance and for the evaluation of samples."""

import math

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.shapes import align

from ..doors.amounts import positive
from ..doors.data import as_state, as_times
from ..models.checks import check_numbers
from ..models.conditions import as_condition
from ..oracles.known_data import check_labels
from ..processes.process import Process


@checked
class Classifier(nn.Module):
    r"""Creates a classifier of noisy data from a network, :math:`\log p(y \mid x_t)`.

    The network's inputs are :math:`X / \sqrt{s^2 + c^2}` and :math:`\log (s) / 4`, with :math:`X = x / \alpha`,
    at the noise level :math:`s = \sigma / \alpha`, for data with root mean square c. So one network serves every
    process.

    Arguments:
        network: The network, from images and a number for the noise level to logits, with shape (B, K).
        process: The process whose noise it was trained on.
        data_std: The root mean square c of the data.
        levels: The smallest and the largest noise level of its training. Other levels are clamped to these, so a
            classifier of clean data has a single level.
        classes: The number of labels, or 0 if that is not known.

    Examples:
        >>> classifier = ss.load_classifier("digits_noisy")
        >>> classifier.log_prob(torch.zeros(2, 1, 8, 8), torch.ones(2), label=torch.tensor([3, 8])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        *,
        data_std: float,
        levels: tuple[float, float],
        classes: int = 0,
    ) -> None:
        super().__init__()
        levels = tuple(check_numbers("levels", levels))  # type: ignore[assignment]
        if len(levels) != 2 or not 0 < levels[0] <= levels[1]:
            raise ValueError(
                f"levels must be two positive noise levels, the lower first, not {levels}."
            )
        self.network, self.process = network, process
        self.data_std, self.levels, self.classes = positive("data_std", data_std), levels, classes

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        r"""Returns the log-probabilities of all labels, with shape (B, K).

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,). By default, `x` is data with the smallest noise of the training.
        """

        x = as_state("x", x)
        if t is None:
            alpha = torch.ones(len(x), dtype=torch.float64)
            level = torch.zeros_like(alpha)
        else:
            t = as_times("t", t).double().clamp(self.process.t_min, self.process.t_max)
            align(t, x)  # refuses other shapes
            alpha, level = (
                value.expand(len(x))  # computed where t is, so that nothing waits for the device
                for value in (self.process.scales(t)[0], torch.exp(-self.process.log_snr(t)))
            )
        level = level.clamp(*self.levels)
        shape = (-1, *(1,) * (x.ndim - 1))
        scale = 1 / (level**2 + self.data_std**2).sqrt() / alpha
        weight = next((p for p in self.network.parameters() if p.is_floating_point()), x)
        seen = (scale.to(x).reshape(shape) * x).to(weight.dtype)
        logits = self.network(seen, (level.log() / 4).to(seen))
        return torch.log_softmax(logits.to(x.dtype), dim=1)

    def log_prob(self, x: Tensor, t: Tensor | None = None, *, label: Tensor) -> Tensor:
        r"""Returns the log-probabilities of labels, with shape (B,), for :func:`scoresde.guidance.classifier`.

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,). By default, `x` is data.
            label: The labels, with shape (B,) or (1,).
        """

        x, label = as_state("x", x), as_condition("label", label)
        if label.is_floating_point() or label.shape not in ((1,), (len(x),)):
            raise TypeError(
                f"label must hold whole numbers, one or {len(x)}, but holds {label.dtype} of shape "
                f"{tuple(label.shape)}."
            )
        if label.device.type == "cpu":  # on other devices, this would wait
            self.check_condition("label", label)
        index = label.to(x.device).long().expand(len(x))
        return self(x, t).gather(1, index[:, None])[:, 0]

    def log_ratio(self, x: Tensor, t: Tensor | None = None, *, label: Tensor) -> Tensor:
        r"""Returns :math:`\log p(y \mid x_t) / p(y)` for equally likely labels, with shape (B,).

        This is the `log_ratio` of :func:`scoresde.guidance.feedback`. The arguments are those of
        :meth:`log_prob`.
        """

        if not self.classes:
            raise ValueError("a ratio needs the number of labels: pass classes= to ss.Classifier.")
        return self.log_prob(x, t, label=label) + math.log(self.classes)

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses unknown labels."""

        if name == "label" and self.classes:
            check_labels(value, self.classes)

    def loss(self, x: Tensor, *, label: Tensor) -> Tensor:
        r"""Returns minus the log-probabilities, with shape (B,), for :func:`scoresde.guidance.universal`."""

        return -self.log_prob(x, label=label)
