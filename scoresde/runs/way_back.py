r"""The way back from the end of a run, with its own solver and grid."""

import re
from dataclasses import is_dataclass, replace

import torch
from torch import Tensor

from solvers import Solution, Solver, get

from ..doors.data import holds_data
from ..doors.warning import warn
from ..models.score_model import ScoreModel
from .bit_exact import warn_of_other_bits
from .options import STEPPING, Options
from .plan import describe_process
from .run import with_t_min

HASH = re.compile("[0-9a-f]{16}")  # what a fingerprint looks like


def check_origin(model: ScoreModel, z: Solution, device: torch.device | str | None = None) -> None:
    r"""Refuses data, failed latents, and those of another process or model, and warns about other machines."""

    if holds_data(z):
        raise ValueError(
            "z must be latents, but this solution holds data, at the end of its run; ss.encode turns it into "
            "latents."
        )
    if not z.ok:
        bad = [i for i, status in enumerate(z.status) if status != "ok"]
        raise ValueError(
            f"the latents of samples {bad[:8]} did not reach t_max (z.status tells why); to decode the "
            "others, pass z.rows(...) and the conditions of these rows."
        )
    made = z.provenance
    process, known = describe_process(model), made.get("process", "")
    if re.sub(r" at 0x[0-9a-f]+", "", known) != process:
        raise ValueError(
            f"the latents were made under the process {known}, but the model's process is {process}; pass "
            "the model that made them."
        )
    name, other = (model.fingerprint or "").split()[:1], str(made.get("model", "")).split()[:1]
    if name and all(HASH.fullmatch(word) for word in (*name, *other)) and name != other:
        raise ValueError(
            f"the latents were made with the model {other[0]}, but this model is {name[0]}; to translate "
            "between models that share a prior, pass the tensor z.x."
        )
    if z.companion is not None and "environment" in made:
        warn_of_other_bits(made["environment"], torch.device(device or z.x.device))


def reversed_options(solution: Solution) -> Options:
    r"""Returns the options to run a solution backwards with the solver that made it."""

    made = solution.provenance
    if solution.solver is None:
        raise ValueError(
            f"this solution, by {made.get('solver', 'no solver')}, cannot be run backwards; pass the "
            "tensor z.x."
        )
    options: Options = {
        "solver": solution.solver.undone_by,
        "clock": made["clock"],
    }
    if made["rtol"] is not None or made["atol"] is not None:
        if solution.times.ndim == 1:
            options["t_min"] = float(solution.times[0])
        else:
            options["times"] = solution.times.flip(0)
        options["rtol"], options["atol"] = made.get("rtol"), made.get("atol")
        options["max_step"] = made.get("max_step")
    else:
        options["times"] = solution.times.flip(0)
    return options


def as_encoded(
    model: ScoreModel, z: Solution, options: Options
) -> tuple[Options, Options, Tensor | None]:
    r"""Returns the options of a decoding, those taken from the encoding, and its companion if it still applies."""

    defaults = reversed_options(z)
    _check_ends(options, defaults)
    options = with_t_min(model, options)
    assert z.solver is not None
    solver, asked = z.solver.undone_by, options.get("solver")
    if isinstance(asked, str | Solver) and _same(get(asked), solver):
        options = {name: value for name, value in options.items() if name != "solver"}
    other = [name for name in STEPPING if options.get(name) is not None]
    if not other:
        if z.companion is not None:
            _warn_of_another(model, z)
        return options, defaults, z.companion
    if z.companion is not None:
        warn(
            f"with {other[0]}=, the companion of these latents is ignored, since it belongs to their own "
            "grid and solver: decoding is no longer exact."
        )
    if "solver" in other:
        return options, {}, None
    return options, {"solver": solver}, None


def _check_ends(options: Options, defaults: Options) -> None:
    r"""Refuses noise levels that a solution knows, or that its grid does not lead to."""

    if options.get("sigma_max") is not None:
        raise ValueError(
            "sigma_max= has no effect on a solution, which knows the noise level of its latents; leave it out."
        )
    gridded = "times" in defaults and all(options.get(name) is None for name in STEPPING)
    if gridded and options.get("sigma_min") is not None:
        raise ValueError(
            "sigma_min= has no effect on the grid of a solution, which leads back to the data; pass steps= or "
            "levels= for another grid, or leave it out."
        )


def _same(asked: Solver, known: Solver) -> bool:
    r"""Whether two solvers are the same, except for blocks, which encoding finds."""

    if asked == known or not (asked.exact and known.exact and is_dataclass(asked)):
        return asked == known
    return replace(asked, name=known.name, block=known.block) == known


def _warn_of_another(model: ScoreModel, z: Solution) -> None:
    known, here = str(z.provenance.get("model", "")), model.fingerprint or ""
    if HASH.match(known) and HASH.match(here) and known != here:
        warn(
            f"these latents were made with the model {known}, but this model is {here}: the result is an "
            "edit, not the data that was encoded."
        )


def end_of(z: Solution) -> float | None:
    r"""Returns the time at which a run ended, if all samples share it."""

    return float(z.times[-1]) if z.times.ndim == 1 else None
