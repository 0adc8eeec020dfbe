r"""Weighted samples, which are resampled when their weights become uneven."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvers import Failure, SolverError
from solvers.doors.signatures import checked
from solvers.noise.brownian import EDITS, STEPS, keyed_normal, keyed_uniform
from solvers.problem import StateField

from ..doors.warning import warn
from ..models.checks import check_count, check_number, model_device, model_dtype
from ..models.masked import refuse_mask
from ..models.rows_check import check_rows
from ..models.scale import check_prior, start_of
from ..models.score_model import ScoreModel
from ..runs.grids import model_grid

FEW = 10.0  # independent samples: fewer give a warning


@dataclass(frozen=True, repr=False)
class Weighted:
    r"""Weighted samples.

    Arguments:
        x: The samples, with shape (n, \*), with noise of the level at `t_min`.
        log_weights: The logarithms of their weights, whose sum is 1, with shape (n,), in float64.
        log_normaliser: The logarithm of an estimate of the total mass, :math:`\int \prod_i q_i^{b_i}` for a
            product and p(y) for a posterior. The estimate is unbiased up to the error of the steps.
        sizes: The effective number of samples before each step, :math:`1 / \sum w^2`.
        resampled: How often samples were resampled.
        calls: The network calls, with shape (n,).
        ancestors: The initial sample that each descends from, with shape (n,); without resampling, it is itself.
        steps: The number of steps. The error of the law is of first order: twice the steps, half the error.
        balance: For products, :math:`- \mathbb{E} (x - m) \cdot S / d` with the mean m of the samples and the
            score S, which is 1, up to sampling noise, for samples of a law with the score S. It is further from
            1 if steps are few.

    Examples:
        >>> s = ss.weighted_sample([model], [1.0], 100, steps=20)
        >>> s.x.shape, round(float(s.log_weights.exp().sum()), 4)
        (torch.Size([100, 2]), 1.0)
    """

    x: Tensor
    log_weights: Tensor
    log_normaliser: float
    sizes: Tensor
    resampled: int
    calls: Tensor
    ancestors: Tensor
    steps: int
    balance: float | None = None

    @property
    def effective(self) -> float:
        r"""The effective number of independent samples, :math:`1 / \sum_a W_a^2`.

        Here, W is the total weight of all samples with the same ancestor, because those that were resampled from
        one sample count as one.
        """

        return 1 / float(self._families.square().sum())

    @property
    def stderr(self) -> float:
        r"""The standard error of `log_normaliser` from the number of samples, not from the steps.

        It is :math:`\sqrt{\sum_a W_a^2 - 1 / n}`, which is conservative where systematic resampling adds little
        noise.

        References:
            | Variance Estimation in the Particle Filter (Lee and Whiteley, 2018), section 3
            | https://arxiv.org/abs/1509.00394
        """

        return math.sqrt(max(1 / self.effective - 1 / len(self.x), 0.0))

    def extrapolated(self, coarse: "Weighted") -> float:
        r"""Returns the log-normaliser without the first-order error of the steps.

        It is :math:`(n L_n - k L_k) / (n - k)` for this run of n steps and the same run with k steps. It
        multiplies their noise by n / (n - k) and k / (n - k), which is 2 and 1 for n = 2 k.

        Arguments:
            coarse: The result of the same run with fewer steps and another seed.

        Raises:
            ValueError: If it does not have fewer steps.
        """

        n, k = self.steps, coarse.steps
        if not k < n:
            raise ValueError(f"coarse must have fewer steps than the {n} here, but has {k}.")
        return (n * self.log_normaliser - k * coarse.log_normaliser) / (n - k)

    @property
    def _families(self) -> Tensor:
        weights = self.log_weights.exp()
        return torch.zeros_like(weights).index_add(0, self.ancestors, weights)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return (
            f"Weighted({len(self.x)} samples, as good as {self.effective:.0f}; log normaliser "
            f"{self.log_normaliser:.4g} +- {self.stderr:.2g}, and an error of first order in its "
            f"{self.steps} steps)"
        )

    @checked
    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        r"""Returns the weighted mean of a function of the samples.

        Arguments:
            function: A function from samples, with shape (n, \*), to values, with shape (n, ...).
        """

        values = function(self.x)
        if not isinstance(values, Tensor) or values.shape[:1] != self.x.shape[:1]:
            raise TypeError(
                f"function must return a tensor with leading size {len(self.x)}, but returned "
                f"{tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__}."
            )
        return torch.einsum("n,n...->...", self.log_weights.exp(), values.double())


def in_form(found: Weighted, model: ScoreModel) -> Weighted:
    r"""Returns weighted samples in the user's form."""

    assert model.transform is not None
    return replace(found, x=model.transform.outside(found.x))


@dataclass(frozen=True)
class Steps:
    r"""The noise levels of a run, from noise to data, and the randomness of its steps.

    Arguments:
        times: The times of the process, with shape (n + 1,).
        levels: Their noise levels.
        seed: The seed.
        threshold: Samples are resampled when their effective number falls below this fraction.
    """

    times: Tensor
    levels: list[float]
    seed: int
    threshold: float

    def estimates(self, model: ScoreModel, x: Tensor) -> Sequence[StateField]:
        r"""Returns the functions from x, in units of the data, to its denoised data at each time."""

        check_rows(model, x)
        ones = torch.ones_like(self.times)
        scale = model.process.scales(self.times)[0]
        return model.combine(self.times, 0 * ones, ones, scale, x)

    def noise(self, i: int, like: Tensor) -> Tensor:
        r"""Returns the standard normals of a step."""

        rows = torch.arange(len(like), device=like.device)
        z = keyed_normal(self.seed, rows, STEPS, i, like[0].numel(), like.dtype)
        return z.reshape(like.shape)


def make_steps(
    model: ScoreModel, count: int, steps: int, grid: str, seed: int, threshold: float, t_min: float | None
) -> Steps:  # fmt: skip
    r"""Returns the steps of a run, after checking its options."""

    refuse_mask(model, "weighted samples")
    count = check_count("count", count, at_least=2)
    steps = check_count("steps", steps, at_least=1)
    threshold = check_number("threshold", threshold)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], but is {threshold}.")
    check_count("seed", seed, at_least=None)
    process = model.process
    if t_min is not None:
        t_min = process.check_inside("t_min", t_min)
    stop = start_of(model, "sampling") if t_min is None else t_min
    times = model_grid(model, grid, process.t_max, stop, steps, whole=True)
    check_prior(model, process.t_max)
    levels = torch.exp(-process.log_snr(times)).tolist()
    return Steps(times, levels, seed, threshold)


@dataclass
class Particles:
    r"""The samples during a run.

    Arguments:
        x: The samples in units of the data, with shape (n, \*).
        log_normaliser: The logarithm of the mass so far.
        log_weights: The logarithms of their weights, whose sum is 1.
        ancestors: The initial samples that they descend from.
        sizes: Their effective numbers.
        resampled: How often they were resampled.
        balance: The balance of their law with the score, if it was computed.
    """

    x: Tensor
    log_normaliser: float
    log_weights: Tensor
    ancestors: Tensor
    sizes: list[float] = field(default_factory=list)
    resampled: int = 0
    balance: float | None = None

    def resample(self, steps: Steps, i: int) -> Tensor | None:
        r"""Returns the indices of the resampled samples, if weights are uneven before a step."""

        self.sizes.append(float(1 / (2 * self.log_weights).exp().sum()))
        if self.sizes[-1] >= steps.threshold * len(self.x):
            return None
        row = torch.zeros(1, dtype=torch.int64, device=self.x.device)
        shift = keyed_uniform(steps.seed, row, EDITS, i + 1, 1)[0, 0]
        index = systematic(self.log_weights, shift)
        self.x, self.resampled = self.x[index], self.resampled + 1
        self.ancestors = self.ancestors[index]
        self.log_weights = torch.full_like(self.log_weights, -math.log(len(self.x)))
        return index

    def reweigh(self, gain: Tensor, when: str) -> None:
        r"""Multiplies the weights by the exponentials of their gains."""

        dead = self.log_weights == -math.inf
        log_w = torch.where(dead, self.log_weights, self.log_weights + gain)
        right = self.x.flatten(1).isfinite().all(1) & (log_w < math.inf)  # false for NaN
        bad = (~right).nonzero()[:, 0].tolist()
        mass = log_w.logsumexp(0)
        if bad or not bool(mass.isfinite()):
            raise SolverError(Failure("nonfinite", tuple(bad or range(len(self.x))), when))
        self.log_weights = log_w - mass
        self.log_normaliser += float(mass)

    def weigh(self, score: Tensor) -> None:
        r"""Compares the law of the samples with a score, by Stein's identity."""

        x, weights = self.x.double().flatten(1), self.log_weights.exp()[:, None]
        apart = x - (weights * x).sum(0)
        self.balance = -float((weights * apart * score.double().flatten(1)).sum()) / x.shape[1]

    def result(self, calls: int, steps: int) -> Weighted:
        r"""Returns the samples, with a warning if few of them carry most of the weight."""

        found = Weighted(
            self.x,
            self.log_weights,
            self.log_normaliser,
            torch.tensor(self.sizes),
            self.resampled,
            torch.full((len(self.x),), calls),
            self.ancestors,
            steps,
            self.balance,
        )
        if found.effective < FEW:
            warn(
                f"{len(self.x)} weighted samples are worth about {found.effective:.1f} independent ones, "
                "so means and the normaliser are no more exact than those of so few; take more samples, "
                "or exponents and models that lie closer together."
            )
        return found


def start(
    model: ScoreModel, count: int, shape: tuple[int, ...] | None, variance: float, seed: int
) -> Particles:
    r"""Returns samples of the prior with the given variance and equal weights."""

    size = shape or model.shape
    if size is None:
        raise ValueError("these models do not know the shape of a sample; pass shape=.")
    device = model_device(model) or torch.device("cpu")
    z = keyed_normal(seed, torch.arange(count, device=device), EDITS, 0, math.prod(size))
    x = (math.sqrt(variance) * z).to(model_dtype(model)).reshape(count, *size)
    even = torch.full((count,), -math.log(count), dtype=torch.float64, device=device)
    return Particles(x, 0.0, even, torch.arange(count, device=device))


def systematic(log_weights: Tensor, shift: Tensor) -> Tensor:
    r"""Returns rows drawn by their weights (systematic resampling with one random shift), with shape (n,)."""

    n = len(log_weights)
    edges = log_weights.exp().cumsum(0)
    places = (torch.arange(n, device=log_weights.device) + shift) / n
    return torch.searchsorted(edges, places * edges[-1]).clamp(max=n - 1)


def square(x: Tensor) -> Tensor:
    r"""Returns the squared norm of each row, with shape (n,), in float64."""

    return x.double().flatten(1).square().sum(1)


def check_shared(models: Sequence[ScoreModel], others: Iterable[Tensor] = ()) -> None:
    r"""Refuses tensors that differ between samples, since resampling replaces samples by others."""

    parts = (part for model in models for part in model.modules() if isinstance(part, ScoreModel))
    held = [value for part in parts for value in part.held.values()]
    if any(len(value) > 1 for value in (*held, *others)):
        raise ValueError(
            "conditions must be the same for all samples, which are resampled from one another; make one "
            "call for each."
        )
