r"""Couplings of data and noise other than the independent one."""

import importlib

import torch
from torch import Tensor

from solvers import Solver
from solvers.doors.signatures import checked
from solvers.doors.values import Shape, as_tensor, as_whole

from ..doors.data import as_data
from ..models.checks import dtype_of, model_device
from ..models.conditions import Condition
from ..models.score_model import ScoreModel
from ..sampling import check_sample_shape, decode


@checked
def pair(x: Tensor, z: Tensor, *, groups: Tensor | None = None) -> Tensor:
    r"""Returns the rows of z in an order that pairs them with x at the least total squared distance.

    .. math:: \min_\pi \sum_i |x_i - z_{\pi(i)}|^2

    Each row of z is used once, so both marginals of the batch are kept. Flows of such pairs are straighter than
    those of independent ones. They are a coupling of batches, not of the two laws: for small batches of many
    dimensions, it is near the independent one.

    Arguments:
        x: Data, with shape (B, *).
        z: The other end, with the shape of `x`.
        groups: Whole numbers with shape (B,), such as labels; rows are only paired inside their group, so that
            the law of z given the group stays what it is. Without them, the noise of a conditional model depends
            on its condition in training, and not in sampling.

    Raises:
        ValueError: If x and z have different shapes.

    References:
        | Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al.,
        | 2024), section 3.2.2
        | https://arxiv.org/abs/2302.00482
        | Multisample Flow Matching (Pooladian et al., 2023)
        | https://arxiv.org/abs/2304.14772

    Examples:
        >>> x, z = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [-1.0]])
        >>> ss.losses.pair(x, z)
        tensor([[-1.],
                [ 2.]])
    """

    x, z = as_data("x", x), as_data("z", z)
    if z.shape != x.shape:
        raise ValueError(
            f"z must have the shape of x, {tuple(x.shape)}, but has {tuple(z.shape)}."
        )
    label = torch.zeros(len(x)).long() if groups is None else _groups(groups, len(x))
    order = torch.arange(len(x))
    for value in label.unique():
        rows = (label == value).nonzero()[:, 0]
        order[rows] = rows[_assigned(x[rows.to(x.device)], z[rows.to(z.device)])]
    return z[order.to(z.device)]


def _groups(groups: object, count: int) -> Tensor:
    known = as_tensor("groups", groups)
    if known.shape != (count,) or known.is_floating_point():
        raise ValueError(
            f"groups must be {count} whole numbers, one per sample, but hold {known.dtype} of shape "
            f"{tuple(known.shape)}."
        )
    return known.cpu()


def _assigned(x: Tensor, z: Tensor) -> Tensor:
    r"""The row of z for each row of x, with shape (n,): the optimal plan of equal weights is a permutation."""

    try:
        ot = importlib.import_module("ot")
    except ImportError:
        raise ImportError("pairs need POT: pip install 'scoresde[train]'.") from None
    a, b = (part.detach().flatten(1).double().cpu() for part in (x, z))
    plan = ot.emd([], [], torch.cdist(a, b).square().numpy())
    return torch.from_numpy(plan).argmax(1)


@checked
def reflow_pairs(
    model: ScoreModel,
    shape: int | Shape,
    *,
    solver: str | Solver | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    first_index: int = 0,
    progress: bool = False,
    **condition: Condition,
) -> tuple[Tensor, Tensor]:
    r"""Returns samples of a model and the standard noise they came from, both with shape (B, *).

    Flows trained on such pairs have the same ends as the model's, and straighter paths, so that they need fewer
    steps. Row i depends on the seed and on `first_index + i` alone.

    Arguments:
        model: The model, whose flow couples noise and data.
        shape: The shape (B, *), or the number B for a model that knows the shape of a sample.
        solver: The solver, without noise. By default, that of :func:`scoresde.sample`.
        steps: The number of steps.
        batch_size: The number of samples at once.
        seed: The seed of the noise.
        first_index: The index of the first sample.
        progress: Whether to show a progress bar.
        condition: The conditions, which belong to the pairs, too.

    Returns:
        The samples, for `x` of a loss, and the noise, for `z`.

    References:
        | Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2023),
        | algorithm 1
        | https://arxiv.org/abs/2209.03003

    Examples:
        >>> x, z = ss.losses.reflow_pairs(model, 4, solver="dpmpp_2m", steps=50)
        >>> bool((x - 0.5 * z).abs().max() < 0.02)  # the flow of normal data scales
        True
    """

    seed = as_whole("seed", seed)
    home = model_device(model)
    whole = check_sample_shape(model, shape, home)
    start = model.process.prior_sample(
        whole,
        seed=seed,
        first_index=first_index,
        dtype=dtype_of(model.modules()),
        device=home,
    )
    found = decode(
        model.given(**condition),
        start,
        solver=solver,
        steps=steps,
        batch_size=batch_size,
        eta=0.0,
        seed=seed,
        first_index=first_index,
        progress=progress,
    )
    return found.x, model.process.standardised(start)
