r"""The pictures of the pages on sampling, latents and editing.

python -m benchmarks.gallery
"""

from pathlib import Path

import torch
from torch import Tensor

import scoresde as ss
from scoresde import editing, plots
from scoresde.cli.demo import SHOWN, SOLVERS
from scoresde.training.digits_data import digits

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
COUNT, SOURCE, TARGET = 10, 3, 8
TEN = torch.arange(10)


def threes() -> Tensor:
    test = digits("test")
    return test.images[test.labels == SOURCE][:COUNT]


def methods(model: ss.ScoreModel, x: Tensor) -> None:
    r"""Threes as eights by each method, from noise level 2."""

    three, eight = (model.given(label=torch.tensor(label)) for label in (SOURCE, TARGET))
    guided = [
        ss.classifier_free(model, 3.0, label=torch.tensor([label])) for label in (SOURCE, TARGET)
    ]
    within = ss.classifier_free(model, 3.0, interval=(0.3, 2.0), label=torch.tensor([TARGET]))
    level = {"noise_level": 2.0, "steps": 30}
    groups = {
        "threes": x,
        "encode": ss.edit(three, eight, x, solver="exponential_2", **level).x,
        "noise": ss.edit(three, eight, x, method="noise", solver="exponential_2", **level).x,
        "noise_path": ss.edit(three, eight, x, method="noise_path", **level).x,
        "flow": ss.edit(three, eight, x, method="flow", averages=4, **level).x,
        "encode, scale 3 within 0.3 to 2": ss.edit(
            three, within, x, solver="exponential_2", **level
        ).x,
        "null, scale 3": ss.edit(*guided, x, method="null", pivot=three, **level).x,
    }
    plots.images(PICTURES / "edit_methods.png", groups, columns=COUNT, across=1)
    e = ss.edit(three, eight, x, method="flow", averages=4, path=True, **level)
    plots.animate(PICTURES / "edit.gif", editing.frames(model, e), columns=COUNT)


def levels(model: ss.ScoreModel, x: Tensor) -> None:
    r"""The same by the noise level."""

    three, eight = (model.given(label=torch.tensor(label)) for label in (SOURCE, TARGET))
    groups = {"threes": x}
    for level in (0.5, 1.0, 2.0, 4.0):
        groups[f"noise level {level:g}"] = ss.edit(
            three, eight, x, noise_level=level, solver="exponential_2", steps=30
        ).x
    plots.images(PICTURES / "edit.png", groups, columns=COUNT, across=1)


def inpainting(model: ss.ScoreModel) -> None:
    r"""Lower halves drawn anew, given the upper ones and the label."""

    test = digits("test")
    x = torch.stack([test.images[test.labels == k][0] for k in range(10)])
    known = torch.zeros(1, 8, 8)
    known[:, :4] = 1
    groups = {"digits": x, "upper halves": torch.where(known == 1, x, torch.tensor(-1.0))}
    for method in ("replacement", "resampling", "gradient"):
        groups[method] = ss.inpaint(model, x, known, method=method, label=TEN, steps=30).x
    groups["gradient, no label"] = ss.inpaint(model, x, known, method="gradient", steps=30).x
    plots.images(PICTURES / "inpaint.png", groups, columns=10, across=1)


def between(model: ss.ScoreModel) -> None:
    r"""Latents between two digits, between four, and along directions."""

    test = digits("test")
    options = {"solver": "exponential_2", "steps": 30}
    first = ss.dequantize(
        torch.stack([test.images[test.labels == k][1] for k in (0, 2, 6, 9)]), levels=17
    )
    z = ss.encode(model, first, **options).x
    groups = {}
    for way in ("slerp", "linear"):
        groups[way] = ss.decode(model, ss.interpolate(z[:1], z[1:2], 10, way)[:, 0], **options).x
    plots.images(PICTURES / "interpolation.png", groups, columns=10, across=1)
    grid = editing.grid(z, 8, 8).flatten(0, 1)
    plots.images(
        PICTURES / "grid.png",
        {"between four digits": ss.decode(model, grid, **options).x},
        columns=8,
    )


def directions(model: ss.ScoreModel) -> None:
    r"""From ones to sevens, by the difference of their mean latents at noise level 4."""

    test = digits("test")
    options = {"solver": "exponential_2", "steps": 30}
    t_max = model.process.at_noise_level(4.0)
    ones, sevens = (test.images[test.labels == k] for k in (1, 7))
    z, other = (ss.encode(model, x, t_max=t_max, **options).x for x in (ones, sevens))
    groups = {"ones": ones[:COUNT]}
    moved = editing.move(
        z[:COUNT], editing.direction(z, other), torch.tensor([0.5, 1.0, 1.5]), keep_norm=False
    )
    for amount, latents in zip((0.5, 1.0, 1.5), moved, strict=True):
        groups[f"{amount:g} times the way to sevens"] = ss.decode(
            model, latents, t_max=t_max, **options
        ).x
    plots.images(PICTURES / "directions.png", groups, columns=COUNT, across=1)


def styles(model: ss.ScoreModel) -> None:
    r"""Coarse noise of one digit with the fine noise of another."""

    test = digits("test")
    content, style = (
        torch.stack([test.images[test.labels == k][i] for k in range(10)]) for i in (2, 9)
    )
    paths = [
        ss.encode_noise(model, x, label=TEN, steps=50, seed=i)
        for i, x in enumerate((content, style))
    ]
    groups = {"content": content, "style": style}
    for level in (0.3, 1.0, 3.0):
        groups[f"style below {level:g}"] = (
            paths[0].below(level, paths[1]).replay(model, label=TEN).x
        )
    plots.images(PICTURES / "style.png", groups, columns=10, across=1)


def samples(model: ss.ScoreModel) -> None:
    r"""The same forty digits by three solvers, with their cost."""

    groups = {}
    for name in SHOWN:
        s = ss.sample(model, 40, solver=name, label=torch.arange(40) % 10, **SOLVERS[name])
        groups[f"{name}: {s.calls.max()} calls"] = s.x
    plots.images(PICTURES / "samples.png", groups, columns=10)


def points() -> None:
    r"""Samples of a mixture in two dimensions by the number of steps."""

    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]])
    model = ss.MixtureOracle(means, 0.2, process=ss.VP())
    groups = {f"{n} steps": ss.sample(model, 500, solver="heun", steps=n).x for n in (3, 5, 10)}
    plots.scatter(PICTURES / "scatter.png", groups, behind=model.data(500))


def main() -> None:
    points()
    model, x = ss.load("digits"), threes()
    samples(model)
    methods(model, x)
    levels(model, x)
    inpainting(model)
    between(model)
    directions(model)
    styles(model)


if __name__ == "__main__":
    main()
