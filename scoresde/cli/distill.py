r"""The command that makes a few-step model."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from ..distilling import Trajectories, flow_map, trajectories
from ..models.checks import check_count
from ..models.score_model import ScoreModel
from ..zoo import save
from .files import check_out
from .models import opened
from .options import AsJson, Debug, Dtype, Model, Trust, report
from .words import stoppable

PATHS, TRAINING = 20_000, 2000

app = typer.Typer()


@app.command()
def distill(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the few-step model.")],
    steps: Annotated[int, typer.Option(help="Network calls for which it is meant.")] = 2,
    paths: Annotated[int, typer.Option(help="Number of paths of the model's flow.")] = PATHS,
    solver: Annotated[str, typer.Option(help="Solver of these paths.")] = "exponential",
    training_steps: Annotated[int, typer.Option(help="Number of training steps.")] = TRAINING,
    seed: Annotated[int, typer.Option(help="Seed of noise and training.")] = 0,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Make a few-step model from paths of a model's flow; an interrupted run continues."""

    steps = check_count("--steps", steps, 1)
    paths = check_count("--paths", paths, 1)
    training_steps = check_count("--training-steps", training_steps, 1)
    check_out(out / "checkpoint")
    teacher = opened(model, trust, dtype)
    out.mkdir(parents=True, exist_ok=True)
    with stoppable(f"{out} holds what was done, and the same command continues"):
        several = [
            _kept(teacher, out / f"{name}.safetensors", count, solver, seed, label)
            for name, count, label in _parts(teacher, paths)
        ]
        found = flow_map(
            teacher, several, calls=steps, steps=training_steps, seed=seed,
            checkpoint=out / "checkpoint.safetensors", progress=not as_json,
        )  # fmt: skip
    card = {**vars(found.model)["card"], "plan": found.plan.plain}
    file = save(found.model, out / "model", card)
    if as_json:
        told = {"out": str(file), "paths": paths, "steps": steps, "training steps": training_steps}
        report({**told, "loss": float(found.losses[-1])}, as_json)
        return
    typer.echo(f"wrote {file}; draw samples by: scoresde sample {out} --steps {steps}")


def _parts(model: ScoreModel, count: int) -> list[tuple[str, int, Tensor | None]]:
    r"""The names, numbers and labels of paths: half of them with all labels in turn, if there are labels."""

    classes = getattr(model, "classes", 0)
    if not classes:
        return [("paths", count, None)]
    half = (count + 1) // 2
    return [
        ("paths", half, None),
        ("labelled", max(count - half, 1), torch.arange(max(count - half, 1)) % classes),
    ]


def _kept(
    model: ScoreModel, file: Path, count: int, solver: str, seed: int, label: Tensor | None
) -> Trajectories:
    r"""The paths in a file, which are computed if it does not exist."""

    if file.exists() and len(known := Trajectories.load(file)) == count:
        return known
    model = model if label is None else model.given(label=label)
    found = trajectories(model, count, solver=solver, seed=seed)
    found.save(file)
    return found
