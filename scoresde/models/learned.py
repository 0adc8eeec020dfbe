r"""What the estimates of a model are, which decides what can be asked of it."""

LEARNED = {
    "score": "conditional means given noisy data",
    "flow": "the velocity of a flow from Gaussian noise, of pairs that were not drawn independently",
    "bridge": "the velocity of a flow from the other half of paired data",
    "consistency": "the data at the end of the probability flow",
}


def as_learned(value: object) -> str:
    r"""Returns what a model has learned, by name."""

    if not isinstance(value, str) or value not in LEARNED:
        choices = ", ".join(f"{name!r} ({meaning})" for name, meaning in LEARNED.items())
        raise ValueError(f"learned must be one of {choices}, but is {value!r}.")
    return value
