r"""Paths of a teacher's flow from noise to data, from which a student learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from solvers import Solver, get
from solvers.doors.signatures import checked
from solvers.noise.brownian import LEVELS, keyed_uniform

from ..doors.data import as_floats
from ..files import damaged, replacing
from ..models.checks import check_count, check_shape
from ..models.conditions import Bound, Condition, check_conditions, rows_of, verb
from ..models.scale import scale_of, start_of
from ..models.score_model import Given, ScoreModel
from ..runs.grids import highest
from ..runs.takes import check_model
from ..sampling import sample

RHO = (
    4.0,
    10.0,
)  # exponents of the grids, which differ between paths, so that all noise levels occur
KIND, CONDITION = "paths of a flow", "condition."  # of files, and of names in them
PARTS = ("states", "times", "ends")
NODES, TOLERANCE = 19, 1e-3


@dataclass(frozen=True)
class Trajectories:
    r"""Paths of a flow.

    Arguments:
        states: The states on the way from noise to data, with shape (n, B, *).
        times: Their times, with shape (n, B), in float64.
        ends: The data that each path ends in, with shape (B, *).
        condition: The conditions by name, each with leading size B or 1.

    Examples:
        >>> from scoresde import distilling
        >>> paths = distilling.trajectories(model, 4, nodes=3, progress=False)
        >>> file = paths.save(folder / "paths.safetensors")
        >>> len(distilling.Trajectories.load(file))
        4
    """

    states: Tensor
    times: Tensor
    ends: Tensor
    condition: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        n, size = self.times.shape if self.times.ndim == 2 else (0, 0)
        fits = self.states.shape == (n, size, *self.ends.shape[1:]) and len(self.ends) == size
        if not fits or self.ends.ndim < 2:
            shapes = ", ".join(str(tuple(x.shape)) for x in (self.states, self.times, self.ends))
            raise ValueError(
                f"states, times and ends must have shapes (n, B, *), (n, B) and (B, *), but have {shapes}."
            )
        if n < 2 or not size:
            raise ValueError(
                f"there must be paths of at least 2 states, but there are {size} of {n}."
            )
        for name in PARTS:
            as_floats(name, getattr(self, name))
        if not bool((self.times.diff(dim=0) < 0).all()):
            raise ValueError("times must fall along each path, from noise to data.")
        for name, value in self.condition.items():
            if value.ndim == 0 or len(value) not in (1, size):
                raise ValueError(
                    f"{name} must have one entry for each of the {size} paths, or one for all, but has shape "
                    f"{tuple(value.shape)}."
                )

    def fit(self, model: ScoreModel) -> None:
        r"""Refuses paths that are not of a model's flow: of another shape, or beyond its times."""

        check_shape(model, tuple(self.ends.shape[1:]), "paths")
        process, first, last = model.process, float(self.times.min()), float(self.times.max())
        if first < process.t_min or last > process.t_max:
            raise ValueError(
                f"paths must lie within the times of the model, from {process.t_min:g} to {process.t_max:g}, but "
                f"reach from {first:g} to {last:g}."
            )

    def __len__(self) -> int:
        return len(self.ends)

    def __repr__(self) -> str:
        shape = tuple(self.ends.shape[1:])
        told = f", with {', '.join(self.condition)}" if self.condition else ""
        return f"Trajectories({len(self)} paths of shape {shape}, {len(self.times)} states each{told})"

    def at(self, place: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        r"""Returns states, times, ends and conditions of some paths.

        Arguments:
            place: The place on each path, with shape (m,).
            rows: The paths, with shape (m,).
        """

        condition = rows_of(self.condition, rows)
        return self.states[place, rows], self.times[place, rows], self.ends[rows], condition

    @checked
    def save(self, file: str | Path) -> Path:
        r"""Writes the paths as safetensors."""

        tensors = {"states": self.states, "times": self.times, "ends": self.ends}
        tensors |= {f"{CONDITION}{name}": value for name, value in self.condition.items()}
        with replacing(Path(file)) as part:
            save_file({n: v.contiguous() for n, v in tensors.items()}, part, {"kind": KIND})
        return Path(file)

    @staticmethod
    @checked
    def load(file: str | Path) -> "Trajectories":
        r"""Reads paths.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it does not hold paths.
        """

        if not Path(file).exists():
            raise FileNotFoundError(f"there is no file {file}.")
        with damaged(file, "file of paths"):
            try:
                with safe_open(file, "pt") as stored:
                    tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            except (SafetensorError, OSError) as error:
                raise ValueError(str(error)) from None
            names = [name for name in tensors if name.startswith(CONDITION)]
            condition = {name.removeprefix(CONDITION): tensors.pop(name) for name in names}
            missing = [name for name in PARTS if name not in tensors]
            unknown = [name for name in tensors if name not in PARTS]
            if missing or unknown:
                raise ValueError(
                    f"it must hold {', '.join(PARTS)}, but {missing or unknown} do not fit"
                )
            return Trajectories(**tensors, condition=condition)


@verb
def trajectories(
    model: ScoreModel,
    count: int,
    *,
    nodes: int = NODES,
    solver: str | Solver = "exponential",
    tolerance: float | None = None,
    seed: int = 0,
    first_index: int = 0,
    batch_size: int = 500,
    progress: bool = True,
    **condition: Condition,
) -> Trajectories:
    r"""Returns paths of a model's flow from noise to data.

    Each has a grid of its own, uniform in :math:`(\sigma / \alpha)^{1 / \rho}` with a random :math:`\rho`, so that
    together they have states at all noise levels.

    Arguments:
        model: The teacher.
        count: The number of paths.
        nodes: The number of states of each.
        solver: The solver: an adaptive one, or one that steps from state to state.
        tolerance: The tolerance of an adaptive solver, by default 0.001.
        seed: The seed of noise and grids.
        first_index: The index of the first path.
        batch_size: The maximum number of paths that are integrated at once.
        progress: Whether to show a progress bar.
        condition: The conditions of the model, each with leading size `count` or 1.

    Examples:
        >>> from scoresde import distilling
        >>> paths = distilling.trajectories(model, 4, nodes=3, progress=False)
        >>> paths.states.shape, paths.ends.shape
        (torch.Size([3, 4, 2]), torch.Size([4, 2]))
    """

    check_model(model)
    count, nodes = check_count("count", count, 1), check_count("nodes", nodes, 2)
    known = check_conditions(model, condition, count)
    times = _grids(model, nodes, torch.arange(count) + first_index, seed)
    if tolerance is None and not get(solver).can.fixed:
        tolerance = TOLERANCE
    s = sample(
        model.given(**condition),
        count,
        solver=solver,
        times=times,
        rtol=tolerance,
        atol=tolerance,
        seed=seed,
        first_index=first_index,
        path=True,
        batch_size=batch_size,
        progress=progress,
    )
    assert s.path is not None
    return Trajectories(s.path, s.times, s.x, cast(dict[str, Tensor], {**_bound(model), **known}))


def _bound(model: ScoreModel) -> Mapping[str, Bound]:
    r"""The conditions that are bound to a model."""

    return {**_bound(model.model), **model.bound} if isinstance(model, Given) else {}


def _grids(model: ScoreModel, nodes: int, index: Tensor, seed: int) -> Tensor:
    r"""The times of each path, with shape (nodes, B)."""

    process = model.process
    stop = start_of(model, "sampling")
    high, low = (process.noise_level(t) for t in (process.t_max, stop))
    high = min(high, highest(process, scale_of(model), high))
    rho = RHO[0] + (RHO[1] - RHO[0]) * keyed_uniform(seed, index, LEVELS, 0, 1)[:, 0]
    place = torch.linspace(0, 1, nodes, dtype=torch.float64)[:, None]
    levels = torch.lerp(high ** (1 / rho), low ** (1 / rho), place) ** rho
    times = process.time(-levels.log())
    times[0], times[-1] = process.t_max, stop
    return times
