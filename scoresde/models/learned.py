r"""What the estimates of a model are, which decides what can be asked of it.

A score model has learned :math:`D(x, t) = \mathbb{E}[x_0 \mid x_t = x]` for noise that was drawn independently of
the data, from which the score follows. Where pairs of data and noise are coupled, the same mean of the pairs that
pass through x still gives the velocity of a flow from the law of the one half to that of the other, but no score:
Tweedie's formula needs independent noise.
"""

LEARNED = {
    "score": "conditional means given noisy data",
    "flow": "the velocity of a flow from Gaussian noise, of pairs that were not drawn independently",
    "bridge": "the velocity of a flow from the other half of paired data",
    "consistency": "the data at the end of the probability flow",
}
ONE_STEP = "consistency"  # the solver of what is learned under this name
FLOWS, ALL = ("flow", "bridge"), ("flow", "bridge", "consistency")
HOLDS: dict[str, tuple[str, ...]] = {  # beside scores; what is not listed needs a score
    "sample": ("flow", "consistency"),
    "decode": ALL,
    "encode": FLOWS,
    "reconstruct": FLOWS,
    "resume": ALL,
    "edit": ALL,
    "method='encode'": FLOWS,
    "method='noise'": ("consistency",),
    "log_likelihood": ("flow",),
    "log_density=": ("flow",),
    "discrete_log_likelihood": ("flow",),
    "classify": ("flow",),
    "density": ("flow",),
    "draw": ("flow", "consistency"),
    "latent_statistics": ("flow",),
    **dict.fromkeys(("trajectories", "flow_map", "consistency", "progressive"), ("flow",)),
    "compare": ("flow",),
    "tune": ("flow",),
    "check_score": ("consistency",),
    "probability_flow": FLOWS,
    "velocity": FLOWS,
    "raw": ALL,
    "rows": ALL,
}
CURES = {
    "flow": "use ss.sample, decode, encode, reconstruct or log_likelihood, with a solver without noise, or a "
    "model that was trained on independent noise",
    "bridge": "use ss.decode(model, x), where x are the other halves of pairs, or ss.encode, with a solver "
    "without noise",
    "consistency": f"use ss.sample or ss.decode with solver={ONE_STEP!r}, or the model that it was distilled from",
}


def as_learned(value: object) -> str:
    r"""Returns what a model has learned, by name."""

    if not isinstance(value, str) or value not in LEARNED:
        choices = ", ".join(f"{name!r} ({meaning})" for name, meaning in LEARNED.items())
        raise ValueError(f"learned must be one of {choices}, but is {value!r}.")
    return value


def check_learned(model: object, use: str) -> None:
    r"""Refuses a use that has no meaning for what a model has learned.

    Arguments:
        model: The model, or anything else, which is let through.
        use: The name of the function or option that is called, as in :data:`HOLDS`, or other words for what needs
            a score.
    """

    learned = getattr(model, "learned", "score")
    if learned == "score" or learned in HOLDS.get(use, ()):
        return
    raise ValueError(
        f"{use} has no meaning for a model with learned={as_learned(learned)!r}, {LEARNED[learned]}; "
        f"{CURES[learned]}."
    )


def check_solver(model: object, solver: str, *, noisy: bool) -> None:
    r"""Refuses a solver that does not solve what a model has learned.

    Arguments:
        model: The model.
        solver: The name of the solver.
        noisy: Whether it adds noise.
    """

    learned = getattr(model, "learned", "score")
    one_step = learned == "consistency"
    if learned == "score" or (solver == ONE_STEP if one_step else not noisy):
        return
    why = "takes steps along a velocity" if one_step else "adds noise here, which needs a score"
    raise ValueError(
        f"{solver} {why}, but this model has learned={as_learned(learned)!r}, {LEARNED[learned]}; "
        f"{CURES[learned]}."
    )
