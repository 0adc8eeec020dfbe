r"""The residuals of fields that satisfy one equation of three, of a score, of a network, and of the digits model.

python -m benchmarks.residuals
"""

from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss
from scoresde.checking import LevelResiduals
from scoresde.training.digits_data import digits

from .report import save

TURN, EYE = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double(), torch.eye(2).double()
COUNT, IMAGES, LEVELS = 500, 48, (0.1, 0.3, 1.0, 3.0)


class Field(ss.ScoreModel):
    r"""A model with the linear score B(u) X at the squared noise level u."""

    def __init__(self, matrix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.matrix, self.process, self.shape = matrix, ss.EDM(), (2,)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        u = t.expand(len(x))[0] ** 2
        return x + u * x @ self.matrix(u).T


class Network(torch.nn.Module):
    r"""Two random layers, which are no gradient."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.first = torch.randn(3, 16, generator=draw).double()
        self.last = torch.randn(16, 2, generator=draw).double() / 4

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        seen = torch.cat([x / (1 + t[:, None] ** 2).sqrt(), t.log()[:, None]], 1)
        return torch.tanh(seen @ self.first) @ self.last


FIELDS = {
    "exact: normal data": lambda u: -EYE / (u + 1),
    "normal data, of a variance that drifts, 1 + u / 4": lambda u: -EYE / (1.25 * u + 1),
    "-((u + 1) I + R / 2)^-1": lambda u: -torch.linalg.inv((u + 1) * EYE + TURN / 2),
    "-(I + R / 2) / (u + 1)": lambda u: -(EYE + TURN / 2) / (u + 1),
    "0.1 tan(0.1 (u - 8)) I + 0.1 R": lambda u: 0.1 * (torch.tan(0.1 * (u - 8)) * EYE + TURN),
}


def row(level: LevelResiduals, **named: object) -> dict[str, object]:
    found = {
        "change": level.change.root,
        "martingale": level.martingale.root,
        "flow": level.flow.root,
        "Fokker-Planck": level.fokker_planck.root,
        "curl": level.curl.root,
        "martingale, continued": level.continued.root,
    }
    return {**named, **{name: 0.0 if value < 1e-6 else value for name, value in found.items()}}


def main() -> None:
    torch.set_num_threads(1)
    x = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0)).double()
    models = {name: Field(matrix) for name, matrix in FIELDS.items()}
    models["a network of random weights"] = ss.NetworkScore(
        Network(), ss.EDM(), "data", shape=(2,)
    )
    rows = []
    for name, model in models.items():
        [level] = ss.residuals(model, x, levels=[1.0]).levels
        rows.append(row(level, table="fields", score=name, **{"noise level": 1.0}))
    images = digits("test").images[:IMAGES]
    for level in ss.residuals(ss.load("digits"), images, levels=LEVELS).levels:
        found = row(level, table="digits", **{"noise level": level.noise_level})
        rows.append({**found, "Fokker-Planck, standard error": level.fokker_planck.stderr
                     / (2 * level.fokker_planck.root)})  # fmt: skip
    save("residuals", rows, points=COUNT, images=IMAGES)


if __name__ == "__main__":
    main()
