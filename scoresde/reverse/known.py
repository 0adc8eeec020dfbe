r"""What a solver may use of the data: the moments that a model states."""

from ..models.data_moments import NEEDS, Moments, suits
from ..models.score_model import ScoreModel

MATCHED = ("moments", "floored", "measured")  # forms in the coordinates of the model's moments
FORMS = ("data", "noise", "isotropic", *MATCHED)


def known_moments(model: ScoreModel, form: str) -> Moments | None:
    r"""Returns the moments of a model's data for a solver of the given form, `None` if it does without.

    Raises:
        ValueError, TypeError: If the model does not state what the form needs.
    """

    if model.moments is None and form == "floored":
        return None
    if model.masked:
        raise ValueError(
            "moment-matched solvers mix all entries, so they take no masked model; use another solver, such "
            "as 'dpmpp_2m'."
        )
    if model.moments is None or not suits(model.moments, form):
        kind = "measured" if form == "measured" else "moment-matched"
        what, how = NEEDS[form]
        raise ValueError(
            f"{kind} solvers need {what}: set model.moments = {how}, or use another solver, such as "
            "'dpmpp_2m'."
        )
    known = model.moments
    if not isinstance(known, Moments):
        raise TypeError(
            f"model.moments must be the result of ss.moments(data), not a {type(known).__name__}."
        )
    if model.shape is not None and tuple(known.mean.shape) != tuple(model.shape):
        raise ValueError(
            f"model.moments are of samples of shape {tuple(known.mean.shape)}, but the model's "
            f"have shape {tuple(model.shape)}."
        )
    return known
