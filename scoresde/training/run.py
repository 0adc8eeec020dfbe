r"""A training from its first step, or from a checkpoint, to its end."""

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.network import NetworkScore
from ..runs.progress import bar
from . import draws
from .averages import averaged
from .batches import Batch, Source, Stream
from .checkpoint import check_same, facts_of, load_state, save_state, save_tensors, under
from .data import iterate
from .devices import Place
from .failure import TrainingError
from .history import History
from .loop import Optimisation
from .network import around
from .objective import Drawing, Objective
from .options import Loss, Options
from .schedule import factor
from .validation import held_out_loss

CHECKPOINT, SNAPSHOTS = "checkpoint.safetensors", "snapshots"
UNSEEN = 10  # losses on a device that are looked at together, since looking waits for it


@dataclass(frozen=True)
class Task:
    r"""What is trained, and on what.

    Arguments:
        model: The score model, whose network is trained in place.
        source: The data.
        held: The data that is held out, or `None`.
        loss: The loss.
        drawing: How batches become what the loss takes.
        options: The options that decide the result.
        facts: Options and data as plain values, to which a checkpoint belongs.
        folder: The folder that is written to, or `None`.
        place: The devices.
    """

    model: NetworkScore
    source: Source
    held: Batch | None
    loss: Loss
    drawing: Drawing
    options: Options
    facts: Mapping[str, object]
    folder: Path | None
    place: Place

    @property
    def network(self) -> nn.Module:
        r"""The network."""

        assert isinstance(self.model.network, nn.Module)
        return self.model.network

    @property
    def writes(self) -> Path | None:
        r"""The folder, if this process is the one that writes to it."""

        return self.folder if self.place.rank == 0 else None


@dataclass
class State:
    r"""How far a training has come.

    Attributes:
        step: The number of steps taken.
        best: The least loss on held-out data.
        best_step: The step of that.
        waited: The number of validations since.
        weights: The weights of that, if they are to be returned.
    """

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        r"""The state in plain values."""

        return {
            "step": self.step,
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "waited": self.waited,
        }


class Run:
    r"""Creates a training, and continues it from the checkpoint in its folder, if there is one."""

    def __init__(self, task: Task, history: History) -> None:
        self.task, self.history, self.state = task, history, State()
        options, self.objective = task.options, Objective(task.model, task.loss)
        self.objective.to(task.place.device)
        self.averages = [averaged(task.network, width) for width in options.widths]
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimisation = Optimisation(
            self.parameters,
            task.network,
            self.averages,
            options.lr,
            factor(options.schedule, options.steps, options.warmup),
            options.clip,
        )
        self.measured = Objective(around(task.model, self.averages[0].module), task.loss)
        self._resume()
        if options.compile:
            task.network.compile()
        self.shared = task.place.shared(self.objective)

    @property
    def modules(self) -> dict[str, nn.Module]:
        r"""All modules whose state a checkpoint holds."""

        found: dict[str, nn.Module] = {"network": self.task.network}
        if isinstance(self.task.loss, nn.Module):
            found["loss"] = self.task.loss
        return {**found, **{f"average{i}": one for i, one in enumerate(self.averages)}}

    def _resume(self) -> None:
        folder = self.task.folder
        if folder is None or not (folder / CHECKPOINT).exists():
            return
        file = folder / CHECKPOINT
        check_same(folder, facts_of(file).get("options", {}), self.task.facts)
        tensors, facts = load_state(file, self.modules, self.optimisation.optimizer)
        best = math.inf if facts["best"] is None else facts["best"]
        self.state = State(facts["step"], best, facts["best_step"], facts["waited"])
        self.state.weights = under("best", tensors)
        self.optimisation.begin_at(self.state.step)

    @property
    def ended(self) -> bool:
        r"""Whether all steps are taken, or the loss on held-out data has not fallen for long."""

        patience = self.task.options.patience
        waited = patience is not None and self.state.waited >= patience
        return waited or self.state.step >= self.task.options.steps

    def take_all(self, *, progress: bool) -> None:
        r"""Takes the steps that are left.

        Raises:
            TrainingError: If a loss or a gradient is not finite.
        """

        steps, losses = self.task.options.steps, _Losses(self.task)
        if not self.ended:
            with (
                draws.restored(self.task.place.device),
                bar(total=steps, initial=self.state.step, desc="train", shown=progress) as shown,
            ):
                for step, batch in self._batches():
                    losses.add(step, *self._step(step, batch))
                    self.state.step = step + 1
                    self._after(losses, shown)
                    if self.ended:
                        break
        self.task.network.eval()

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        r"""The steps that are left, and the part of each batch that this process works on."""

        task, options = self.task, self.task.options
        place = draws.rows_of_batch(options.batch_size, task.place.rank, task.place.world)
        count, first = task.source.count or 1, self.state.step
        index = (
            (step, draws.indices(options.seed, step, options.batch_size, place, count))
            for step in range(first, options.steps)
        )
        found = iterate(task.source, index, options.seed, task.drawing.form)
        return zip(range(first, options.steps), found, strict=False)

    def _step(self, step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        r"""Takes a step, and returns its loss and the norm of its gradient."""

        task, options = self.task, self.task.options
        size, world = options.batch_size, task.place.world
        if isinstance(task.source, Stream):  # whose batches have sizes of their own
            size = len(batch.x)
            batch = batch.rows(draws.rows_of_batch(size, task.place.rank, world))
        place = draws.rows_of_batch(size, task.place.rank, world)
        self.shared.train()
        draws.seed_global(task.place.device, draws.word(options.seed, step, task.place.rank))
        dtype = next(p.dtype for p in self.parameters)
        moved = batch.to(task.place.device, dtype)
        with torch.enable_grad():
            asked = task.drawing(task.model, moved, step, place, size)
            kind = task.place.device.type
            with torch.autocast(kind, options.autocast, enabled=options.autocast is not None):
                loss = self.shared(*asked).mean()
            norm = self.optimisation.step(lambda: task.place.backward(loss))
        return loss.detach(), norm.detach()

    def _after(self, losses: "_Losses", shown: Any) -> None:
        r"""Validates, writes and reports what is due after a step."""

        options, step = self.task.options, self.state.step
        last = step == options.steps
        if step % options.every == 0 or last:
            entry = {"step": step, **losses.taken(), "lr": self.optimisation.rate}
            self.history.add({**entry, **self._validate()})
            self._snapshot()
            self._save()
            shown.set_postfix(loss=f"{entry['loss']:.4g}", refresh=False)
        else:
            self._snapshot()
        shown.update(1)

    def _validate(self) -> dict[str, Any]:
        r"""The loss on held-out data, by which the best weights are kept."""

        task, options, state = self.task, self.task.options, self.state
        if task.held is None:
            return {}
        with torch.enable_grad(), _fixed(self.parameters):  # which some losses take of x
            kind = task.place.device.type
            with torch.autocast(kind, options.autocast, enabled=options.autocast is not None):
                found = held_out_loss(
                    self.measured.eval(), task.drawing, task.held, options.batch_size
                )
        state.waited += 1
        if found.mean < state.best:
            state.best, state.best_step, state.waited = found.mean, state.step, 0
            if options.patience is not None:
                kept = self.averages[0].module.state_dict()
                state.weights = {name: value.detach().clone() for name, value in kept.items()}
        return {"validation": found.mean, "levels": [list(level) for level in found.levels]}

    def _snapshot(self) -> None:
        r"""Keeps the averages at even distances, for the reconstruction of others."""

        folder, options, step = self.task.writes, self.task.options, self.state.step
        due = step * options.snapshots // options.steps
        if folder is None or due == (step - 1) * options.snapshots // options.steps:
            return
        tensors = {
            f"{i}.{name}": value
            for i, average in enumerate(self.averages)
            for name, value in average.module.state_dict().items()
        }
        file = folder / SNAPSHOTS / f"{step:08d}.safetensors"
        save_tensors(file, tensors, {"step": step, "widths": list(options.widths)})

    def _save(self) -> None:
        if self.task.writes is not None:
            best = {f"best.{name}": value for name, value in self.state.weights.items()}
            facts = {**self.state.facts(), "options": self.task.facts}
            optimizer = self.optimisation.optimizer
            save_state(self.task.writes / CHECKPOINT, self.modules, optimizer, facts, best)
        self.task.place.wait()

    def result(self) -> NetworkScore:
        r"""Returns the model with the averaged weights: the best ones, if the training could stop early."""

        network = self.averages[0].module
        if self.state.weights:
            network.load_state_dict(self.state.weights)
        return around(self.task.model, network.eval().requires_grad_(False))


class _Losses:
    r"""The losses since the last entry of the history, looked at together where looking waits for a device."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.unseen: deque[tuple[int, Tensor, Tensor]] = deque()
        self.total, self.count, self.norm = 0.0, 0, 0.0

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        r"""Takes a loss and the norm of its gradient."""

        self.unseen.append((step, loss, norm))
        if loss.device.type == "cpu" or len(self.unseen) >= UNSEEN:
            self._look()

    def taken(self) -> dict[str, float]:
        r"""Returns the mean loss and the last norm of a gradient since the last time."""

        self._look()
        found = self.task.place.mean_of(self.total / max(self.count, 1))
        self.total, self.count = 0.0, 0
        return {"loss": found, "gradient": self.norm}

    def _look(self) -> None:
        while self.unseen:
            step, loss, norm = self.unseen.popleft()
            value, self.norm = loss.item(), norm.item()
            if not (math.isfinite(value) and math.isfinite(self.norm)):
                self._fail(step, value)
            self.total, self.count = self.total + value, self.count + 1

    def _fail(self, step: int, value: float) -> None:
        options, folder = self.task.options, self.task.folder
        what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
        last = step // options.every * options.every
        kept = (
            "" if folder is None or not last else f"; {folder} keeps the checkpoint of step {last}"
        )
        raise TrainingError(
            f"{what} at step {step + 1}, with the learning rate near {options.lr:g}{kept}; a smaller lr=, a "
            "longer warmup= or a smaller clip= helps most often."
        )


@contextlib.contextmanager
def _fixed(parameters: Sequence[Tensor]) -> Iterator[None]:
    r"""Takes no gradients of parameters in its block."""

    for one in parameters:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in parameters:
            one.requires_grad_(True)
