r"""A model that remembers its last output, for callbacks."""

from collections.abc import Callable, Sequence

from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.score_model import ScoreModel


class Watched(ScoreModel):
    r"""Creates the same model, to the last bit, with access to its latest denoised data.

    Arguments:
        model: The model.
        memory: The container of a function that returns the latest denoised data.
    """

    def __init__(
        self, model: ScoreModel, memory: list[Callable[[], Tensor]] | None = None
    ) -> None:
        super().__init__()
        self.resemble(model)
        self.model, self.memory = model, [] if memory is None else memory

    @property
    def latest(self) -> Tensor | None:
        r"""The denoised data of the latest call."""

        return self.memory[-1]() if self.memory else None

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        denoised = self.model.denoise(x, t, **condition)
        self.memory[:] = [lambda: denoised]
        return denoised

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        fields = self.model.combine(times, a, b, scale, x, **condition)
        columns = fields, *(scalars(c, x) for c in (a, b, scale))
        return [self._bind(*column) for column in zip(*columns, strict=True)]

    def _bind(self, field: StateField, a: Scalar, b: Scalar, scale: Scalar) -> StateField:
        plain = isinstance(a, float) and isinstance(b, float) and (a, b) == (0, 1)

        def combined(X: Tensor) -> Tensor:
            out = field(X)
            self.memory[:] = [lambda: out if plain else (out - a * (scale * X)) / b]
            return out

        return combined

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.score(x, t, **condition)

    def rows(self, index: Tensor) -> ScoreModel:
        return Watched(self.model.rows(index), self.memory)
