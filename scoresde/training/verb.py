r"""The public function: a score model from data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solvers.doors.signatures import checked

from ..checking.result import ScoreCheck
from ..files import Json
from ..models.conditions import Condition
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..zoo import save
from ..zoo.build import MODEL
from ..zoo.files import EMBEDDED, open_card
from .assess import assess
from .card import card_of
from .data import Given
from .folder import alone, written
from .history import History
from .network import around
from .options import ENTRIES, WARMUP, Coupling, Loss, Options, Precision, Schedule
from .result import Trained
from .run import Run
from .setup import EXACT, Asked, Ready, prepared


@checked
def train(
    model: ScoreModel | nn.Module | str | None,
    data: Given,
    *,
    process: Process | None = None,
    predicts: str | None = None,
    settings: Mapping[str, Any] | None = None,
    loss: str | Loss = "denoising",
    levels: object | None = None,
    coupling: Coupling = "independent",
    learned: str | None = None,
    bins: int | None = None,
    low: float | None = None,
    high: float | None = None,
    steps: int = 5000,
    batch_size: int = 128,
    lr: float = 2e-3,
    warmup: int | None = None,
    schedule: Schedule = "cosine",
    clip: float | None = 1.0,
    ema: float = 0.1,
    dropped: float | None = None,
    null: Mapping[str, Any] | None = None,
    validation: float | Given = 0.1,
    patience: int | None = None,
    every: int | None = None,
    snapshots: int = 16,
    precision: Precision = "float32",
    compile: bool = False,
    accelerate: bool = False,
    tensorboard: bool = False,
    assessed: bool = True,
    out: str | Path | None = None,
    name: str = "model",
    card: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    **condition: Condition,
) -> Trained:
    r"""Trains a score model on data, and returns it with what is known of it.

    All is checked before the first step: data, labels, network, folder. The same call with the same folder goes on
    from the last checkpoint, to the bits of an uninterrupted run on the same device, and refuses other options.

    Arguments:
        model: The network, called as `network(x, t, **condition)`, or its score model, trained in place; the name
            of a network of :mod:`scoresde.networks` or of a registered one; or `None` for one that fits the data.
        data: The data, with shape (N, *): a tensor or array; a dictionary of x, conditions by name, and z for
            pairs; an npz or npy file; a folder of images, whose subfolders are labels; or a Dataset or DataLoader
            of torch that gives x, (x, label), or such a dictionary.
        process: The process. By default, :class:`scoresde.EDM`, or :class:`scoresde.Interpolant` for pairs, along
            which a flow ends at z itself.
        predicts: The prediction type, as in :class:`scoresde.NetworkScore`. By default, "edm".
        settings: The settings of a network that is made by name, beside those that follow from the data, or the
            keyword arguments that made the network, which a file of it needs.
        loss: The loss: one of :mod:`scoresde.losses` by name, or a function
            `loss(model, x, log_snr, z, **condition)` with one number for each sample. A module has weights of its
            own, which are trained too.
        levels: The distribution of noise levels, of :mod:`scoresde.losses.levels`. By default, log-normal, with
            its median at 0.6 times the scale of the data.
        coupling: How noise and data are paired: "independent"; "ot", by optimal transport within each batch;
            "paired", as given by z.
        learned: What the estimates are. By default, "score", or "flow" for "ot", and "bridge" for "paired"; pairs
            with Gaussian noise, as those of rectified flows, are a "flow".
        bins: The number of levels of data on levels, such as 256 for bytes. It gets uniform noise that fills the
            bins, anew in each step, and is scored in bits per dimension. Whole numbers are indices of levels.
        low: The lowest value of the data, or that of the lowest level, by default -1; data below is refused.
        high: The highest value, or that of the highest level, by default 1.
        steps: The number of steps.
        batch_size: The number of samples in a step. A stream has batches of its own.
        lr: The maximum learning rate, of Adam.
        warmup: The number of steps in which it rises. By default, a tenth of all, and at most 100.
        schedule: How it falls then: "cosine", "inverse_sqrt" or "constant".
        clip: The largest norm of the gradient, or `None`.
        ema: The width of the average of the weights (EMA) that is returned, as a share of the steps so far. A
            second average, of half that width, is kept too: :func:`scoresde.training.reconstruct`.
        dropped: The share of samples that lose their conditions, for classifier-free guidance. By default, 0.1 if
            it is known what stands for no condition.
        null: What stands for no condition, by name. Networks of this package take the number of classes as the
            label of none.
        validation: The share of the data that is held out, held-out data in the same form, or 0.
        patience: The number of validations in a row without a smaller loss after which the training stops. With
            it, the best weights are returned, otherwise the last.
        every: The number of steps between validations, entries of the history and checkpoints. By default, a
            20th of all.
        snapshots: How many times the averages are kept in the folder.
        precision: "bfloat16" for the network under autocast, or "float32".
        compile: Whether the network is compiled by torch.compile.
        accelerate: Whether the devices of `accelerate launch` share each batch.
        tensorboard: Whether files for TensorBoard are written to the folder.
        assessed: Whether the model is checked and scored on held-out data at the end.
        out: The folder, for the model, its history, checkpoint and averages. By default, nothing is written.
        name: The name of the model in it.
        card: More entries of its card, such as the licence of the data.
        seed: The seed of weights, order, noise and dropout.
        device: The device. By default, that of the network; new networks go to the GPU if there is one.
        progress: Whether to show a progress bar.
        condition: The conditions of data in memory, each with one entry for each sample.

    Raises:
        ValueError, TypeError: If data, network or options do not fit.
        TrainingError: If a loss is not finite. The last checkpoint is kept.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364
        | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024)
        | https://arxiv.org/abs/2312.02696

    Examples:
        >>> images = torch.linspace(-1, 1, 32 * 16).reshape(32, 1, 4, 4).sin()
        >>> small = {"width": 8, "multipliers": [1], "blocks": 1}
        >>> options = {"settings": small, "steps": 4, "batch_size": 8, "validation": 0.25}
        >>> trained = ss.train("UNet", images, out=folder / "run", **options)
        >>> ss.sample(ss.load(folder / "run"), 2, steps=3).x.shape
        torch.Size([2, 1, 4, 4])
    """

    rise = min(WARMUP, steps // 10) if warmup is None else warmup
    options = Options(
        steps, batch_size, lr, rise, schedule, clip, ema, dropped or 0.0, patience,
        max(1, steps // ENTRIES) if every is None else every, snapshots, precision, compile, seed,
    )  # fmt: skip
    folder = None if out is None else Path(out)
    asked = Asked(
        model, data, condition, process, predicts, settings, loss, levels, coupling, learned, bins,
        low, high, null, validation, folder, name, dict(card or {}), device, accelerate,
    )  # fmt: skip
    ready = prepared(asked, options, dropped)
    with alone(ready.task.writes):
        history = History(ready.task.writes, board=tensorboard)
        run = Run(ready.task, history)
        history.begin_at(run.state.step)
        known = _card_in(folder, name) if run.ended else None
        if known is None:
            run.take_all(progress=progress)
            return _finished(ready, run, name, asked.card, assessed=assessed)
        return Trained(_learned(ready, run), tuple(history.entries), known, folder)


def _card_in(folder: Path | None, name: str) -> Json | None:
    r"""The card of a model that is in a folder already."""

    card = None if folder is None else folder / f"{name}.json"
    if card is None or not (card.exists() and card.with_suffix(".safetensors").exists()):
        return None
    return open_card(card, EMBEDDED, MODEL)[1]


def _learned(ready: Ready, run: Run) -> NetworkScore:
    r"""The model, which says what it has learned."""

    model = run.result()
    model.learned = ready.learned
    return model


def _finished(ready: Ready, run: Run, name: str, given: Json, *, assessed: bool) -> Trained:
    r"""The result, after the model is measured and written."""

    task, model = ready.task, _learned(ready, run)
    check: ScoreCheck | None = None
    measured: Json = {}
    if assessed and task.held is not None:
        null = dict(task.drawing.null) if task.options.dropped else {}
        chosen = bool(run.state.weights)
        check, measured = assess(model, task.held, task.drawing.form, null, chosen=chosen)
    facts = {**task.facts, "steps taken": run.state.step, "best step": run.state.best_step or None}
    card = card_of(name, ready.network, ready.data, facts, measured, given)
    if task.writes is not None:
        with written(task.writes / name):
            file = save(model, task.writes / name, card, dtype=EXACT)
        card = open_card(file, EMBEDDED, MODEL)[1]
    entries = tuple(run.history.entries)
    return Trained(around(model, model.network), entries, card, task.folder, check)  # type: ignore[arg-type]
