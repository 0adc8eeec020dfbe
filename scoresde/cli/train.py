r"""The command that trains a model on data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from .. import networks
from ..models.checks import check_count
from ..processes.process import Process
from ..processes.standard import EDM, VE, VP, Interpolant
from ..training import Trained
from ..training import train as train_model
from ..zoo.constructors import name_of
from .files import check_out
from .models import blamed, object_of
from .options import AsJson, Batch, Debug, print_table, report, said
from .words import stoppable

RECIPES = ("digits", "digits_classifier", "patches")
PROCESSES: dict[str, type[Process]] = {"edm": EDM, "vp": VP, "ve": VE, "interpolant": Interpolant}

Source = Annotated[
    str,
    typer.Argument(
        help="The data: npz with x (and label), npy, or a folder of images; or a recipe of this package: digits, "
        "digits_classifier or patches."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the model, by default runs/NAME.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="UNet, MLP or another of scoresde.networks, or your own code: file.py:Class."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A setting of the network, as width=64."),
]
ProcessName = Annotated[str | None, typer.Option(help=f"{', '.join(PROCESSES)}.")]
Predicts = Annotated[str | None, typer.Option(help="data, noise, score, v, velocity or edm.")]
Coupling = Annotated[str | None, typer.Option(help="independent, ot or paired.")]
Steps = Annotated[int | None, typer.Option(help="Number of training steps.")]
Lr = Annotated[float | None, typer.Option(help="Maximum learning rate.")]
Ema = Annotated[
    float | None,
    typer.Option(help="Width of the average of the weights, as a share of the steps."),
]
Bins = Annotated[int | None, typer.Option(help="Number of levels of the data, as 256 for bytes.")]
Low = Annotated[float | None, typer.Option(help="Lowest value of the data.")]
High = Annotated[float | None, typer.Option(help="Highest value of the data.")]
Dropped = Annotated[
    float | None, typer.Option(help="Share of samples that lose their conditions.")
]
Validation = Annotated[
    str | None,
    typer.Option(help="Share of the data that is held out, or a file of such data."),
]
Patience = Annotated[
    int | None, typer.Option(help="Validations without improvement that end the training.")
]
Every = Annotated[
    int | None, typer.Option(help="Training steps between validations and checkpoints.")
]
Precision = Annotated[str | None, typer.Option(help="float32 or bfloat16.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network.")]
Accelerate = Annotated[
    bool,
    typer.Option("--accelerate", help="Share batches among what `accelerate launch` started."),
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write files for TensorBoard.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, batches and noise.")]
Plot = Annotated[
    Path | None, typer.Option(help="A picture of the loss by noise level: png, pdf or svg.")
]

app = typer.Typer()


@app.command()
def train(
    data: Source = "digits",
    out: Out = None,
    network: Network = None,
    setting: Setting = None,
    process: ProcessName = None,
    predicts: Predicts = None,
    coupling: Coupling = None,
    steps: Steps = None,
    batch_size: Batch = None,
    lr: Lr = None,
    ema: Ema = None,
    bins: Bins = None,
    low: Low = None,
    high: High = None,
    dropped: Dropped = None,
    validation: Validation = None,
    patience: Patience = None,
    every: Every = None,
    precision: Precision = None,
    compile: Compile = False,
    accelerate: Accelerate = False,
    tensorboard: Tensorboard = False,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Train a model on data, or one of this package from scratch; an interrupted run continues."""

    folder = out or Path("runs") / (data if data in RECIPES else Path(data).stem)
    check_out(folder / "checkpoint", plot)
    steps, seed = check_count("--steps", steps, at_least=1), check_count("--seed", seed, 0, None)
    options = said(
        process=process, predicts=predicts, coupling=coupling, batch_size=batch_size, lr=lr, ema=ema, bins=bins,
        low=low, high=high, dropped=dropped, patience=patience, every=every, precision=precision,
        validation=_number_or_file(validation), compile=compile or None, accelerate=accelerate or None,
        tensorboard=tensorboard or None,
    )  # fmt: skip
    kept = f"{folder} holds the last checkpoint, if there was one, and the same command continues"
    with stoppable(kept):
        if data in RECIPES and not Path(data).exists():
            _refuse(options, network=network, setting=setting or None, plot=plot)
            typer.echo(f"wrote {', '.join(map(str, _by_recipe(data, folder, steps, seed)))}")
            return
        if not (Path(data).exists() or Path(data).suffix):
            raise FileNotFoundError(
                f"{data!r} is neither a file or folder nor one of the recipes {', '.join(RECIPES)}."
            )
        model, settings = _network(network, setting or ())
        options |= said(steps=steps, settings=settings)
        if process is not None:
            options["process"] = _process(process)
        found = train_model(model, data, out=folder, seed=seed, progress=not as_json, **options)
    if plot is not None:
        found.plot(plot)
    _tell(found, as_json)


def _by_recipe(name: str, folder: Path, steps: int | None, seed: int) -> list[Path]:
    from ..training import digits, digits_classifier, patches

    recipes = {
        "digits": digits.run,
        "digits_classifier": digits_classifier.run,
        "patches": patches.run,
    }
    return recipes[name](folder, steps=steps, seed=seed)


def _refuse(options: dict[str, Any], **others: object) -> None:
    r"""Refuses options that recipes decide themselves."""

    for name in {**options, **said(**others)}:
        raise ValueError(
            f"{name}= has no effect on a recipe, which decides it; pass data instead."
        )


def _process(name: str) -> Process:
    if name not in PROCESSES:
        raise ValueError(f"--process must be one of {', '.join(PROCESSES)}, but is {name!r}.")
    return PROCESSES[name]()


def _network(name: str | None, said: Sequence[str]) -> tuple[Any, dict[str, Any] | None]:
    r"""The network that a command names, and the settings that made it."""

    settings = dict(_setting(words) for words in said)
    if name is None or name in networks.__all__:
        return name, settings or None
    if ":" not in name:
        raise ValueError(
            f"--network must be one of {', '.join(networks.__all__)}, or your own code, as in file.py:Class, but "
            f"is {name!r}."
        )
    found: Any = object_of(name)
    if isinstance(found, nn.Module) or not callable(found):
        return found, settings or None
    with blamed(name):
        made = found(**settings)
    if isinstance(made, nn.Module) and isinstance(found, type):
        name_of(made)  # which raises for a class that no card can name
    return made, settings


def _setting(words: str) -> tuple[str, Any]:
    r"""A setting of a network: JSON, or a text."""

    name, sign, text = words.partition("=")
    if not sign or not name or not text:
        raise ValueError(f"--setting must be NAME=VALUE, as in --setting width=64, not {words!r}.")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _number_or_file(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _tell(found: Trained, as_json: bool) -> None:
    if not as_json:
        print_table(found.table())
    last = found.history[-1] if found.history else {}
    known = found.card.get("check")  # of a finished training, too
    report(
        {
            "folder": str(found.folder),
            "steps": last.get("step"),
            "loss": last.get("loss"),
            "validation": last.get("validation"),
            **found.card.get("metrics", {}),
            "check": None if known is None else known.get("findings") or "nothing is wrong",
        },
        as_json,
    )
