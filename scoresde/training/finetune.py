r"""Fine-tuning of a model through the steps of its sampler, towards a reward or the likelihood of data.

Sampling is a recurrent network: each step is a layer with the same weights. The gradient of a reward of samples
flows back through the last k of them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from solvers import Solver
from solvers.noise.brownian import keyed_normal, keyed_uniform

from ..doors.amounts import positive
from ..doors.data import as_state
from ..likelihood import log_likelihood
from ..models.checks import check_count, check_data, device_of, dtype_of
from ..models.conditions import Condition, verb
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.self_conditioned import refuse_memory
from ..models.transforms import Data
from ..reverse.amounts import Eta
from ..runs.run import Run
from ..runs.settings import Settings
from ..runs.takes import Takes, check_model, split
from ..runs.truncated import truncated
from .loop import train

NOISE, LEVELS, ROWS = 30, 31, 32  # streams of random numbers
Reward = Callable[[Tensor], Tensor]
TAKES = Takes("fine_tune", "solver", "steps", "grid", "eta", "grad", "seed")


class Update(NamedTuple):
    r"""The report of an update of the weights.

    Arguments:
        reward: The mean reward of the samples before it, or the mean log-likelihood in nats.
        kl: The estimated divergence from the model before tuning in nats, or 0 without an anchor.
    """

    reward: float
    kl: float


@dataclass(frozen=True)
class Tuned:
    r"""The result of :func:`fine_tune`.

    Arguments:
        model: The tuned model: the moving average of its weights.
        history: One report per update.

    Examples:
        >>> tuned = ss.Tuned(model, [])
        >>> tuned
        Tuned(no updates)
    """

    model: ScoreModel
    history: list[Update]

    def __repr__(self) -> str:
        if not self.history:
            return "Tuned(no updates)"
        ends = f"reward {self.history[0].reward:.4g} to {self.history[-1].reward:.4g}"
        return f"Tuned({len(self.history)} updates, {ends})"


@verb(data=("data",), functions=("reward",))
def fine_tune(
    model: ScoreModel,
    reward: Reward | None = None,
    *,
    data: Data | None = None,
    updates: int = 200,
    batch_size: int = 64,
    solver: str | Solver | None = None,
    steps: int = 10,
    grid: str | None = None,
    eta: Eta | None = None,
    last: int | None = None,
    grad: Literal["backprop", "checkpoint"] = "backprop",
    anchor: float = 0.0,
    lr: float = 1e-4,
    average: float = 0.998,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 200,
    **condition: Condition,
) -> Tuned:
    r"""Returns a model that is tuned to make samples of high reward, or given data likely.

    It maximises :math:`\mathbb{E}[r(x)] - \beta \, \mathrm{KL}(p_\theta \| p_0)` over the weights
    :math:`\theta`, by gradients through the last k steps of the sampler. With noise z, and levels uniform in
    :math:`\lambda = \log (\alpha / \sigma)`, the divergence from the model before tuning is that of the
    two score models at noised samples :math:`x_t` of the tuned one, or at noised data,

    .. math:: \mathrm{KL} = \int e^{2 \lambda} \, \mathbb{E} \| D_\theta(x_t) - D_0(x_t) \|^2 \, d\lambda ,

    whose gradient flows through the samples, too. The optimum over all laws is
    :math:`p_0(x) \, e^{r(x) / \beta}` up to a constant. Without an anchor, the model goes to
    samples of the highest reward and forgets the rest.

    The estimates of a tuned model are in general no longer conditional means, so it is to be sampled as it was
    tuned: with the same solver, steps and amount of noise.

    Arguments:
        model: The score model of a network, which is copied. Its own conditions apply to all samples.
        reward: A differentiable function of samples, from (B, *) to (B,).
        data: Data, with shape (M, *), whose log-likelihood is maximised, instead of a reward. The gradient flows
            through the whole probability flow.
        updates: The number of updates of the weights, by Adam with a warm-up and a cosine decay.
        batch_size: The samples per update.
        solver: The solver, as for :func:`scoresde.sample`.
        steps: The number of its steps.
        grid: Its grid.
        eta: The amount of noise.
        last: The number k of last steps through which gradients flow, besides the last denoising. By default, all.
        grad: "backprop" keeps what each network call computes on the way; "checkpoint" computes it again.
        anchor: The weight :math:`\beta` of the divergence, in units of the reward per nat.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        seed: The seed of all random numbers.
        checkpoint: A file that stores the state, from which tuning resumes.
        every: The number of updates between checkpoints.
        condition: The conditions of the model, each with leading size `batch_size` or 1, or with that of `data`.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the model has no weights that can be copied.

    References:
        | Directly Fine-Tuning Diffusion Models on Differentiable Rewards (Clark et al., 2023), algorithm 1
        | https://arxiv.org/abs/2309.17400

    Examples:
        >>> class Mean(torch.nn.Module):  # of Gaussian data with variance 1
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.mean = torch.nn.Parameter(torch.zeros(2))
        ...     def forward(self, x, t):
        ...         return self.mean + (x - self.mean) / (1 + t[:, None] ** 2)
        >>> gauss = ss.NetworkScore(Mean(), ss.EDM(), "data", shape=(2,))
        >>> tuned = ss.fine_tune(gauss, lambda x: x[:, 0], updates=5, last=1, anchor=1.0)
        >>> (tuned.model.network.mean > 0).tolist(), gauss.network.mean.tolist()
        ([True, False], [0.0, 0.0])
    """

    updates, every = check_count("updates", updates, 1), check_count("every", every, 1)
    batch_size, steps = check_count("batch_size", batch_size, 1), check_count("steps", steps, 1)
    anchor, lr = positive("anchor", anchor, zero=True), positive("lr", lr)
    last = check_count("last", last, 1, steps)
    _check_objective(reward, data, {"last": last, "eta": eta})
    options = TAKES.said(locals())
    if anchor:
        refuse_memory(model, "anchor=")
    tuned = _copied(model)
    data = None if data is None else check_data(model, as_state("data", data), "data")
    batch = batch_size if data is None else len(data)
    bound, settings = split(tuned, options, batch, TAKES)
    before = split(_fixed(model), condition, batch, TAKES)[0] if anchor else None
    task = _Task(bound, before, settings, batch_size, last or steps, anchor, reward, data)
    file = None if checkpoint is None else Path(checkpoint)
    ways: dict[str, Any] = {"lr": lr, "average": average, "checkpoint": file, "every": every}
    return _tuned(tuned, task, updates, ways)


def _tuned(model: ScoreModel, task: "_Task", updates: int, ways: dict[str, Any]) -> Tuned:
    r"""The result of all updates of a model's weights, given how they are made."""

    history: list[Update] = []

    def loss(step: int) -> Tensor:
        model.eval()
        value, update = task.at(step)
        history.append(update)
        return value

    *_, last = train(model, loss, steps=updates, **ways)
    assert isinstance(last.average, ScoreModel)
    return Tuned(last.average, history)


@dataclass(frozen=True)
class _Task:
    r"""What is maximised by one update after the other."""

    model: ScoreModel
    before: ScoreModel | None  # tuning, if it is an anchor
    settings: Settings
    batch: int
    last: int
    anchor: float
    reward: Reward | None
    data: Tensor | None

    def at(self, step: int) -> tuple[Tensor, Update]:
        r"""Returns the loss of an update, and what is reported of it."""

        if self.data is None:
            assert self.reward is not None
            x, rows = self._samples(step), torch.arange(self.batch)
            value = _rewarded(self.reward, x)
        else:
            rows = self._rows(step, len(self.data))
            x = self.data[rows.to(self.data.device)]
            value = self._likelihoods(x, rows)
        loss, kl = -value.mean(), 0.0
        if self.before is not None:
            index = torch.arange(len(x)) + step * len(x)
            models = self.model.rows(rows), self.before.rows(rows)
            divergence = _divergence(*models, x, self.settings.seed or 0, index).mean()
            loss, kl = loss + self.anchor * divergence, divergence.item()
        return loss, Update(value.mean().item(), kl)

    def _samples(self, step: int) -> Tensor:
        r"""Samples with gradients, each with noise of its own in the whole of the tuning."""

        model, process = self.model, self.model.process
        assert model.shape is not None
        settings = replace(self.settings, first_index=step * self.batch)
        modules = tuple(model.modules())
        x = process.bare_prior_sample(
            (self.batch, *model.shape),
            seed=settings.seed or 0,
            first_index=settings.first_index,
            dtype=dtype_of(modules),
            device=device_of(modules),
        )
        run = Run.between(model, settings, process.t_max, start_of(model, "sampling"))
        return truncated(run, x, self.last).x

    def _rows(self, step: int, size: int) -> Tensor:
        r"""The rows of the data of an update."""

        if self.batch >= size:
            return torch.arange(size)
        index = torch.arange(self.batch) + step * self.batch
        return (keyed_uniform(self.settings.seed or 0, index, ROWS, 0, 1)[:, 0] * size).long()

    def _likelihoods(self, x: Tensor, rows: Tensor) -> Tensor:
        r"""The log-likelihoods of data, with gradients."""

        settings = self.settings
        options = {"solver": settings.solver, "steps": settings.steps, "grid": settings.grid}
        found = log_likelihood(self.model.rows(rows), x, grad=settings.grad, **options)  # type: ignore[arg-type]
        return found.nats


def _divergence(
    model: ScoreModel, before: ScoreModel, x: Tensor, seed: int, index: Tensor
) -> Tensor:
    r"""Returns estimates of the divergence between two models, with shape (B,), at noised samples of the first.

    The levels are stratified over the batch.
    """

    process = model.process
    ends = torch.tensor([process.t_max, start_of(model, "sampling")], dtype=torch.float64)
    low, high = process.log_snr(ends)
    u = keyed_uniform(seed, index[:1], LEVELS, 0, 1)[0]
    share = (torch.arange(len(x), dtype=torch.float64) + u) / len(x)
    log_snr = torch.lerp(low, high, share)
    z = keyed_normal(seed, index, NOISE, 0, x[0].numel()).reshape(x.shape)
    t = process.time(log_snr)
    noisy = process.perturb(x.double(), t, z.to(x.device)).to(x)
    gap = (model.denoise(noisy, t) - before.denoise(noisy, t)).flatten(1).square().sum(1)
    return (high - low) * torch.exp(2 * log_snr).to(x) * gap


def _fixed(model: ScoreModel) -> ScoreModel:
    r"""A copy of a model whose weights take no gradients, so that those of its inputs leave the model as it is."""

    return copy.deepcopy(model).eval().requires_grad_(False)


def _rewarded(reward: Reward, x: Tensor) -> Tensor:
    r"""The rewards of samples, after checking them."""

    value = reward(x)
    if not isinstance(value, Tensor) or value.shape != (len(x),):
        told = tuple(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(
            f"reward must return one number per sample, with shape ({len(x)},), not {told}."
        )
    if not value.requires_grad:
        raise ValueError(
            "reward must be differentiable in the samples, but no gradient flows through what it returned; "
            "compute it by torch, without .detach(), .numpy() or torch.no_grad()."
        )
    if not bool(value.detach().isfinite().all()):
        bad = (~value.detach().isfinite()).nonzero()[:, 0].tolist()
        raise ValueError(f"reward must be finite, but is NaN or infinite for samples {bad[:8]}.")
    return value


def _check_objective(reward: object, data: object, options: dict[str, object]) -> None:
    if (reward is None) == (data is None):
        raise ValueError(
            "pass either reward=, a function of samples, or data=, whose likelihood is maximised."
        )
    if reward is not None and not callable(reward):
        raise TypeError(f"reward must be a function of samples, but is a {type(reward).__name__}.")
    for name, value in options.items():
        if data is not None and value is not None:
            raise ValueError(
                f"{name}= has no effect with data=, whose likelihood is that of the whole probability flow; "
                "leave it out."
            )


def _copied(model: ScoreModel) -> ScoreModel:
    r"""A copy of a model with weights of its own, after checking that it has any, and knows its shape."""

    check_model(model)
    if model.shape is None:
        raise ValueError("this model does not know the shape of a sample; set model.shape.")
    tuned = copy.deepcopy(model)
    weights = [weight for weight in tuned.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError(
            "the model has no weights to tune: its network must be a module with parameters that require "
            "gradients."
        )
    own = set(map(id, model.parameters()))
    if any(id(weight) in own for weight in tuned.parameters()):
        raise ValueError(
            "the weights of this model are inside a function, which cannot be copied; make its network a module."
        )
    for part in tuned.modules():
        if isinstance(part, ScoreModel):
            part.fingerprint = None
    return tuned
