r"""The error of a training that cannot go on."""


class TrainingError(RuntimeError):
    r"""A training whose loss is not finite, or whose data turned out to be unfit on the way."""
