r"""Classifiers of noisy data, for guidance and to say what samples show."""

import torch
from torch import Tensor, nn

from .models import check_time
from .oracles import check_labels
from .process import Process


class Classifier(nn.Module):
    r"""Creates the classifier of a network, :math:`\log p(y \mid x_t)`.

    The network sees :math:`X / \sqrt{s^2 + c^2}` and :math:`\log (s) / 4`, with :math:`X = x / \alpha`, at the
    noise level :math:`s = \sigma / \alpha`, for data of root mean square c. So one network serves every process.

    Arguments:
        network: The network, from images and what tells the noise level to logits, with shape (B, K).
        process: The process whose noise it has seen.
        data_std: The root mean square c of the data.
        level: The one noise level that it knows, for a classifier of clean data. Then any is taken for this one.

    Attributes:
        classes: The number of labels it knows, or 0 if that is not known.
    """

    classes: int = 0

    def __init__(
        self, network: nn.Module, process: Process, *, data_std: float, level: float | None = None
    ) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.data_std, self.level = data_std, level

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        r"""Returns the log-probabilities of all labels, with shape (B, K).

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,). By default, `x` is data, with the least noise that is known.
        """

        if t is None:
            alpha = level = torch.ones(len(x), dtype=torch.float64)
            level = level * (self.level or self.least)
        else:
            t = check_time(self.process, t, x).expand(len(x))
            alpha, level = self.process.scales(t)[0], torch.exp(-self.process.log_snr(t))
            level = level if self.level is None else torch.full_like(level, self.level)
        shape = (-1, *(1,) * (x.ndim - 1))
        scale = 1 / (level**2 + self.data_std**2).sqrt() / alpha
        weight = next((p for p in self.network.parameters() if p.is_floating_point()), x)
        seen = (scale.to(x).reshape(shape) * x).to(weight.dtype)
        logits = self.network(seen, (level.log() / 4).to(seen))
        return torch.log_softmax(logits.to(x.dtype), dim=1)

    @property
    def least(self) -> float:
        r"""The least noise level of the process."""

        t = torch.tensor(self.process.t_min, dtype=torch.float64)
        return float(torch.exp(-self.process.log_snr(t)))

    def log_prob(self, x: Tensor, t: Tensor | None = None, *, label: Tensor) -> Tensor:
        r"""Returns the log-probabilities of labels, with shape (B,), for :func:`scoresde.guidance.classifier`.

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,). By default, `x` is data.
            label: The labels, with shape (B,) or (1,).
        """

        index = label.to(x.device).long().expand(len(x))
        return self(x, t).gather(1, index[:, None])[:, 0]

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses labels that it does not know."""

        if name == "label" and self.classes:
            check_labels(value, self.classes)

    def loss(self, x: Tensor, *, label: Tensor) -> Tensor:
        r"""Returns minus the log-probabilities, with shape (B,), for :func:`scoresde.guidance.universal`."""

        return -self.log_prob(x, label=label)
