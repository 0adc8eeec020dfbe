r"""A model that remembers its last output, for callbacks."""

from torch import Tensor

from ..models.score_model import ScoreModel


class Watched(ScoreModel):
    r"""Creates the same model with access to its latest denoised data.

    Arguments:
        model: The model.
        memory: The container of the latest denoised data.
    """

    def __init__(self, model: ScoreModel, memory: list[Tensor] | None = None) -> None:
        super().__init__()
        self.resemble(model)
        self.model, self.memory = model, [] if memory is None else memory

    @property
    def latest(self) -> Tensor | None:
        r"""The denoised data of the latest call."""

        return self.memory[-1] if self.memory else None

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.memory[:] = [self.model.denoise(x, t, **condition)]
        return self.memory[-1]

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.score(x, t, **condition)

    def rows(self, index: Tensor) -> ScoreModel:
        return Watched(self.model.rows(index), self.memory)
