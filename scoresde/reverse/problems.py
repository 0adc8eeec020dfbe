r"""The reverse of any process, in the form that suits it."""

from solvers import ODE, SDE, Problem
from solvers.doors.signatures import checked

from ..models.learned import check_learned
from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess
from .amounts import Amount, Eta, as_amount
from .blocks import BlockReverse
from .linear_part import Convention
from .reverse import Clock, Reverse, check_has_levels


def reverse_of(
    model: ScoreModel,
    kind: type[Problem],
    eta: Amount,
    clock: Clock,
    form: str = "data",
    profile: str = "constant",
    convention: Convention = "canonical",
) -> Reverse:
    r"""Returns the reverse process of a model; see :class:`scoresde.reverse.reverse.Reverse`."""

    made = BlockReverse if isinstance(model.process, BlockProcess) else Reverse
    return made(model, kind, eta, clock, form, profile, convention)


@checked
def reverse_sde(model: ScoreModel, eta: Eta = 1.0) -> SDE:
    r"""Returns the reverse SDE in the time of the process, for integration from noise to data.

    States of a process on blocks lie along its axes (:meth:`scoresde.BlockProcess.to_axes`).

    Arguments:
        model: A score model, with its conditions bound (:meth:`scoresde.ScoreModel.given`).
        eta: The amount of noise :math:`\eta`: a number, one number per sample with shape (B,), or a function
            from noise levels :math:`\sigma / \alpha` to numbers with the same shape.

    Raises:
        ValueError, TypeError: If eta is negative or not finite, or the process has no noise levels for its
            function.

    Examples:
        >>> sde = ss.reverse_sde(model)
        >>> float(sde.diffusion(torch.tensor(2.0)))  # sqrt(2 t)
        2.0
    """

    check_learned(model, "reverse_sde")
    amount = as_amount(eta)
    check_has_levels(model, amount)
    return reverse_of(model, SDE, amount, "t").problem()  # type: ignore[return-value]


@checked
def probability_flow(model: ScoreModel) -> ODE:
    r"""Returns the probability flow (PF-ODE) in the time of the process, for integration in either direction.

    Arguments:
        model: A score model, with its conditions bound (:meth:`scoresde.ScoreModel.given`).

    Examples:
        >>> flow = ss.probability_flow(model)
        >>> flow.drift(torch.tensor(0.5), torch.ones(1, 2))  # (x - D) / t
        tensor([[1., 1.]])
    """

    check_learned(model, "probability_flow")
    return reverse_of(model, ODE, 0.0, "t").problem()  # type: ignore[return-value]
