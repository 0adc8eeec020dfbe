r"""The views in pictures of geometry: the sample, the plane, and the first step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import Density, Plane, Trajectory
from ..geometry.plane import of_path, of_step
from ..models.checks import check_finite

COLOURS = ("tab:red", "tab:green", "tab:blue", "tab:purple", "tab:brown", "tab:pink")
FEW = 3  # dimensions that are drawn directly, or nearly so
HIGHEST_FEW, HIGHEST = 4.0, 1.5  # root mean squares of the data, above which no path is drawn
AXES = ("along most of the way", "across it", "across both")


class View(NamedTuple):
    r"""The part of a trajectory to draw.

    Arguments:
        trajectory: The trajectory.
        sample: The index of the sample.
        plane: The plane.
        first: The first step that is shown.
        density: The log-density behind the picture, as a function of points in units of the data and a noise
            level.
        labels: The labels of the axes, if they are not the data's own.
    """

    trajectory: Trajectory
    sample: int
    plane: Plane
    first: int
    density: Density | None
    labels: Sequence[str]

    @property
    def few(self) -> bool:
        r"""Whether the data has few dimensions."""

        return self.trajectory.dimension <= FEW

    @property
    def whole(self) -> bool:
        r"""Whether the plane is that of the data, and hides nothing."""

        return self.trajectory.dimension == len(self.plane.basis)

    @property
    def colours(self) -> dict[str, str]:
        r"""The colours of the estimates by name: the one that the solver sees, the base, the other, the rest."""

        t = self.trajectory
        roles = dict(zip([next(iter(t.estimates)), t.base, t.other], COLOURS, strict=False))
        known = {name: colour for name, colour in roles.items() if name is not None}
        rest = [name for name in t.estimates if name not in known]
        return known | {name: COLOURS[3 + i % 3] for i, name in enumerate(rest)}

    def points(self, every: Tensor) -> Tensor:
        r"""Returns the coordinates of the sample's points, from shape (n, B, \*)."""

        return self.plane(every[:, self.sample]).cpu()

    def step(self, i: int) -> Tensor:
        r"""Returns a step without its noise, with the shape of a sample."""

        t = self.trajectory
        end = t.states[i + 1] if t.means is None else t.means[i]
        return (end - t.states[i])[self.sample]

    def words(self, name: str, direction: Tensor) -> str:
        r"""Returns the legend of a direction."""

        if self.whole:
            return name
        return f"{name} ({100 * float(self.plane.hidden(direction[None])):.0f} % hidden)"

    def box(self, steps: Sequence[int]) -> Tensor:
        r"""Returns the corners of the drawn part of some steps, with shape (2, k)."""

        t, index = self.trajectory, torch.tensor(list(steps))
        ends = (index + 1).clamp(max=len(t.states) - 1)
        every = [self.points(t.states)[index], self.points(t.states)[ends]]
        every += [self.points(estimate)[index] for estimate in t.estimates.values()]
        if t.means is not None:
            every.append(self.points(t.means)[index.clamp(max=len(t.means) - 1)])
        points = torch.cat(every)
        return torch.stack([points.min(0).values, points.max(0).values])


def path_view(
    trajectory: Trajectory, sample: int, dimensions: int, highest: float | None, density: Density | None
) -> View:  # fmt: skip
    r"""Returns the view of a sample's path, from a noise level on."""

    highest = check_finite("highest", highest)
    if highest is not None and not highest > 0:
        raise ValueError(f"highest must be a positive noise level, but is {highest}.")
    few = trajectory.dimension <= FEW
    top = (HIGHEST_FEW if few else HIGHEST) * trajectory.data_std if highest is None else highest
    below, last = (trajectory.levels <= top).nonzero()[:, 0], len(trajectory.levels) - 2
    first = min(int(below[0]), last) if len(below) else last
    behind = (density or trajectory.density) if trajectory.dimension == 2 else None
    return View(
        trajectory, sample, of_path(trajectory, sample, first, dimensions), first, behind, AXES
    )


def step_view(view: View, i: int, dimensions: int) -> View:
    r"""Returns the view of one step in its own plane."""

    t = view.trajectory
    towards = f"towards the {t.base or next(iter(t.estimates))} estimate"
    plane = of_step(t, view.sample, i, dimensions)
    return view._replace(plane=plane, first=i, labels=(towards, *AXES[1:]))
