r"""Latents in files, with everything that the way back needs."""

from pathlib import Path

import torch

from solvers import Solution
from solvers.catalogue import name_of
from solvers.doors.signatures import checked

from ..runs.files import check_npz, read_solution, write_solution

NOUN = "latents of ss.encode"


@checked
def save_latents(file: str | Path, z: Solution) -> None:
    r"""Writes latents with their grid, solver, model and companion, whole or not at all.

    Arguments:
        file: An npz file.
        z: The solution of :func:`scoresde.encode`.

    Raises:
        TypeError: If `z` is not a solution.
        ValueError: If its solver has no name by which a file can state it.

    Examples:
        >>> ss.save_latents(folder / "z.npz", ss.encode(model, torch.ones(3, 2), steps=8))
        >>> ss.decode(model, ss.load_latents(folder / "z.npz")).x.shape
        torch.Size([3, 2])
    """

    file = check_latents_file(file)
    if not isinstance(z, Solution):
        raise TypeError(f"z must be the solution of ss.encode, not a {type(z).__name__}.")
    name = None if z.solver is None else name_of(z.solver)
    if name is None:
        raise ValueError(
            f"a file holds only the name of a solver, and {z.solver} differs from the solver of that name "
            "in the catalogue, so decoding would use another one; keep z itself, or save the tensor z.x."
        )
    write_solution(file, z, name)


def check_latents_file(file: str | Path) -> Path:
    r"""Refuses a file that cannot hold latents."""

    return check_npz(file, "latents need an npz file, which holds their grid")


@checked
def load_latents(file: str | Path) -> Solution:
    r"""Returns latents that :func:`save_latents` wrote.

    Arguments:
        file: The npz file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold latents, or is damaged.

    Examples:
        >>> z = ss.encode(model, torch.ones(3, 2), steps=8)
        >>> ss.save_latents(folder / "z.npz", z)
        >>> torch.equal(ss.load_latents(folder / "z.npz").x, z.x)
        True
    """

    file = check_latents_file(file)
    z = read_solution(file, NOUN, torch.device("cpu"))
    rises = (z.times.diff(dim=0) >= 0).all() and (z.times[-1] > z.times[0]).all()
    if not bool(rises):
        raise ValueError(
            f"{file} holds no {NOUN}, or is damaged: 'times' must rise from data to noise."
        )
    return z
