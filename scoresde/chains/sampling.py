r"""Samples of a chain: from noise to symbols."""

import secrets
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.signatures import checked
from solvers.doors.values import MOST, Shape, as_device, as_tensor, as_whole
from solvers.noise.brownian import FRESH, START, VERSION, keyed_uniform
from solvers.noise.brownian import STEPS as STEP

from ..doors.amounts import positive
from ..doors.data import as_seed, as_size
from ..models.conditions import Condition
from ..runs.options import SEED
from ..runs.progress import bar
from ..runs.repeats import warn_of_copies
from .chain import Chain
from .draws import draw
from .hitting import reveal
from .model import ChainModel, with_conditions
from .steps import STEPS, correction
from .symbols import as_symbols, shape_of

Name = Literal["analytic", "tau_leaping", "euler", "first_hitting"]
Grid = Literal["t", "share"]
DEFAULT = 64  # steps


@dataclass(frozen=True)
class Plan:
    r"""The options of a run, with the grid in float64, shape (n + 1,), and the most calls of a sample."""

    solver: Name
    times: Tensor
    corrections: int
    size: float
    seed: int
    tolerance: float
    most: int | None
    device: torch.device
    path: bool
    progress: bool

    @property
    def calls(self) -> int:
        r"""The calls of steps and corrections."""

        steps = len(self.times) - 1
        return steps + (steps - 1) * self.corrections


@checked
def sample(
    model: ChainModel,
    shape: int | Shape,
    *,
    solver: Name = "analytic",
    steps: int | None = None,
    grid: Grid | None = None,
    times: Tensor | None = None,
    corrections: int = 0,
    correction_size: float = 0.1,
    tolerance: float | None = None,
    known: Tensor | None = None,
    seed: int | None = SEED,
    first_index: int = 0,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    max_calls: int | None = None,
    t_min: float | None = None,
    path: bool = False,
    progress: bool = False,
    **condition: Condition,
) -> Solution:
    r"""Draws sequences of symbols.

    The reverse chain runs from noise at t_max to `t_min`. What is noise still is then replaced by clean symbols,
    drawn each from its probabilities, with one call for the sequences that need it.

    Arguments:
        model: The model.
        shape: The shape (B, L), or the number B for a model that knows the length of a sequence.
        solver: "analytic", "tau_leaping" and "euler" take one call per step. "first_hitting", for chains with a
            mask, has no bias and takes L calls, or fewer with a `tolerance`.
        steps: The number of steps. By default, 64.
        grid: "t" for equal steps of time, the default, or "share" for equal steps of the share of data.
        times: The times instead, which fall, with shape (n + 1,).
        corrections: The number of steps, after each step but the last, of a chain that preserves the law of the
            time, with one call each. They reduce the bias of steps.
        correction_size: Their length in time, over that of the step.
        tolerance: The bias that each call of first_hitting may add, in nats. By default, there is none.
        known: For chains with a mask, symbols that are given, such as a prompt, and the mask V elsewhere, with
            shape (L,) or (B, L). The others are drawn from their law given these.
        seed: The seed. `None` draws one.
        first_index: The index of the first sample. A sample depends on the seed and its index alone.
        device: The device of the state. By default, that of the model.
        batch_size: The number of sequences drawn at once. By default, all of them.
        max_calls: The most network calls of a sample. "first_hitting" then reveals several symbols in a call,
            as evenly as it must.
        t_min: The last time. By default, that of the chain.
        path: Whether to return the states at all times.
        progress: Whether to show a progress bar.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError, TypeError: If an argument is invalid. SolverError: If the network returns NaN.

    References:
        | A Continuous Time Framework for Discrete Denoising Models (Campbell et al., 2022), section 4
        | https://arxiv.org/abs/2205.14987

    Examples:
        >>> table = torch.tensor([[0.5, 0.0], [0.0, 0.5]])  # two equal symbols
        >>> oracle = ss.chains.TableOracle(table, ss.chains.Absorbing(2))
        >>> s = ss.chains.sample(oracle, 4, solver="first_hitting")
        >>> s, bool((s.x[:, 0] == s.x[:, 1]).all())
        (Solution((4, 2) by first_hitting, 2 intervals, 2 calls per sample), True)
        >>> ss.chains.sample(oracle, 3, solver="first_hitting", known=torch.tensor([2, 1]), seed=1).x
        tensor([[1, 1],
                [1, 1],
                [1, 1]])
    """

    said = {n: v for n, v in locals().items() if n not in ("model", "shape", "seed", "condition")}
    said |= {} if seed is SEED else {"seed": seed}
    count, length = _shape(model, shape)
    model = with_conditions(model, condition, count)
    shown = _as_known(model.chain, known, (count, length))
    seed = secrets.randbits(31) if seed is None else as_seed("seed", seed)
    as_whole("first_index", first_index, at_least=0)
    as_whole("max_calls", max_calls, at_least=1)
    size = count if batch_size is None else as_size("batch_size", batch_size)
    as_whole("corrections", corrections, at_least=0, at_most=MOST)
    positive("correction_size", correction_size)
    plan = Plan(
        solver,
        _times(model.chain, solver, length, steps, grid, times, t_min),
        corrections,
        correction_size,
        seed,
        positive("tolerance", 0.0 if tolerance is None else tolerance, zero=True),
        max_calls,
        as_device("device", device) or model.device,
        path,
        progress,
    )
    _check(plan, model.chain, tolerance)
    drawn = (shape, repr(model.chain), model.predicts)
    warn_of_copies("sample", model.network, drawn, {**said, **model.bound})
    with torch.no_grad():
        parts = [
            _drawn(model.rows(rows), plan, rows + first_index, shown[rows])
            for rows in torch.arange(count).split(size)
        ]
    whole = Solution.stack(parts)
    whole.provenance.update(steps=len(plan.times) - 1, first_index=first_index)
    return whole


def _shape(model: ChainModel, shape: int | Shape) -> tuple[int, int]:
    if isinstance(shape, int) and not isinstance(shape, bool):
        if model.length is None:
            raise ValueError(
                "this model does not know the length of a sequence; pass shape=(B, L)."
            )
        return shape_of((as_size("shape", shape), model.length))
    count, length = shape_of(shape)
    if model.length not in (None, length):
        raise ValueError(f"shape must be (B, {model.length}) for this model, but is {shape}.")
    return count, length


def _times(
    chain: Chain,
    solver: str,
    length: int,
    steps: int | None,
    grid: str | None,
    times: object,
    t_min: float | None,
) -> Tensor:
    r"""The grid of a run, after checking it; that of first hitting has only the number of its calls."""

    said = {"steps": steps, "grid": grid, "times": times, "t_min": t_min}
    given = [name for name, value in said.items() if value is not None]
    if solver == "first_hitting":
        if given:
            raise ValueError(
                f"{given[0]}= has no effect on first_hitting, which has no steps; leave it out."
            )
        return torch.linspace(chain.t_max, chain.t_min, length + 1, dtype=torch.float64)
    if times is not None:
        if len(given) > 1:
            raise ValueError(f"times= is the whole grid; leave out {given[0]}=.")
        return _own_times(chain, times)
    stop = chain.t_min if t_min is None else t_min
    if not chain.t_min <= stop < chain.t_max:
        raise ValueError(
            f"t_min must be at least {chain.t_min:.4g} and below t_max={chain.t_max:.4g}, but is {stop}."
        )
    n = as_whole("steps", DEFAULT if steps is None else steps, at_least=1, at_most=MOST)
    ends = torch.tensor([chain.t_max, stop], dtype=torch.float64)
    if grid == "share":
        first, last = chain.shares(ends)[1].tolist()
        inner = chain.time(torch.linspace(first, last, n + 1, dtype=torch.float64)[1:-1])
        return torch.cat([ends[:1], inner, ends[1:]])
    return torch.linspace(chain.t_max, stop, n + 1, dtype=torch.float64)


def _own_times(chain: Chain, times: object) -> Tensor:
    t = as_tensor("times", times, torch.float64).cpu()
    if t.ndim != 1 or len(t) < 2 or not bool((t.diff() < 0).all()):
        raise ValueError(
            f"times must fall, with shape (n + 1,), but are {tuple(t.shape)} that do not."
        )
    if float(t[0]) != chain.t_max or float(t[-1]) < chain.t_min:
        raise ValueError(
            f"times must go from t_max={chain.t_max:.4g} down to t_min={chain.t_min:.4g} or later, but go from "
            f"{float(t[0]):.4g} to {float(t[-1]):.4g}."
        )
    return t


def _check(plan: Plan, chain: Chain, tolerance: float | None) -> None:
    r"""Refuses options without effect, and steps that take more calls than there may be."""

    if plan.solver == "first_hitting":
        if chain.states == chain.vocabulary:
            raise ValueError(
                f"solver='first_hitting' needs a chain with a mask, whose symbols move once, but this is {chain}; "
                "use 'analytic', whose bias falls with the number of steps."
            )
        for name, value in {"corrections": plan.corrections, "path": plan.path}.items():
            if value:
                raise ValueError(f"{name}= has no effect on first_hitting; leave it out.")
        return
    if tolerance is not None:
        raise ValueError(
            f"tolerance= has no effect on {plan.solver}, but on first_hitting; leave it out."
        )
    noisy = bool(chain.shares(plan.times[-1])[1] > 0)
    masks = chain.states > chain.vocabulary and plan.solver != "analytic"
    calls = plan.calls + (noisy or masks)
    if plan.most is not None and calls > plan.most:
        raise ValueError(
            f"max_calls={plan.most} is less than the {calls} calls that {plan.solver} may take here; take fewer "
            "steps or corrections."
        )


def _as_known(chain: Chain, known: object, shape: tuple[int, int]) -> Tensor:
    r"""Symbols that are known, and V elsewhere, with shape (B, L)."""

    if known is None:
        return torch.full(shape, chain.vocabulary)
    if chain.states == chain.vocabulary:
        raise ValueError(
            f"known= needs a chain with a mask, whose network sees what is certain, but this is {chain}; use "
            "ss.chains.Absorbing, or keep the samples that have these symbols."
        )
    x = as_tensor("known", known)
    x = as_symbols("known", x[None] if x.ndim == 1 else x, chain.states)
    if x.shape[1] != shape[1] or len(x) not in (1, shape[0]):
        raise ValueError(
            f"known must have shape ({shape[1]},) or {shape}, but has {tuple(as_tensor('known', known).shape)}."
        )
    return x.expand(shape)


def _drawn(model: ChainModel, plan: Plan, index: Tensor, known: Tensor) -> Solution:
    r"""The samples of some indices, with shape (B, L), as that of the symbols that are known."""

    device, chain, length = plan.device, model.chain, known.shape[1]
    index, known = index.to(device), known.to(device)
    u = keyed_uniform(plan.seed, index, START, 0, length)
    x = draw(chain.noise.to(device).expand(len(index), length, -1), u)
    x = torch.where(known < chain.vocabulary, known, x)
    states = [x]
    if plan.solver == "first_hitting":
        u, v = (keyed_uniform(plan.seed, index, STEP, k, length) for k in (0, 1))
        x, calls = reveal(model, x, u, v, plan.tolerance, plan.most, plan.progress)
    else:
        for i in bar(range(len(plan.times) - 1), desc=plan.solver, shown=plan.progress):
            x = _stepped(model, plan, index, x, i, known)
            states += [x] if plan.path else []
        x, more = _cleaned(model, plan, index, x)
        calls = more + plan.calls
    calls = calls.cpu()
    taken = torch.full_like(calls, len(plan.times) - 1)
    return Solution(
        x=x,
        times=plan.times,
        reached=plan.times[-1].expand(len(x)),
        calls=calls,
        accepted=taken,
        rejected=torch.zeros_like(calls),
        status=("ok",) * len(x),
        path=torch.stack(states) if plan.path else None,
        provenance={
            "solver": plan.solver,
            "corrections": plan.corrections,
            "correction_size": plan.size,
            "tolerance": plan.tolerance,
            "seed": plan.seed,
            "noise_version": VERSION,
            "process": repr(chain),
            "model": type(model).__name__,
        },
    )


def _stepped(
    model: ChainModel, plan: Plan, index: Tensor, x: Tensor, i: int, known: Tensor
) -> Tensor:
    r"""The state after step i and its corrections."""

    t, s = (plan.times[j].to(x.device).expand(len(x)) for j in (i, i + 1))
    u = keyed_uniform(plan.seed, index, STEP, i, x.shape[1])
    x = draw(STEPS[plan.solver](model, x, t, s), u)
    last = i + 2 == len(plan.times)
    for j in range(0 if last else plan.corrections):
        u = keyed_uniform(plan.seed, index, FRESH, i * plan.corrections + j, x.shape[1])
        x = draw(correction(model, x, s, plan.size * (t - s)), u)
        x = torch.where(known < model.chain.vocabulary, known, x)
    return x


def _cleaned(model: ChainModel, plan: Plan, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The state without noise, and which samples needed a call for it."""

    chain = model.chain
    masked = (x >= chain.vocabulary).any(1)
    noisy = bool(chain.shares(plan.times[-1])[1] > 0) and chain.states == chain.vocabulary
    needed = torch.ones_like(masked) if noisy else masked
    if not bool(needed.any()):
        return x, needed.long()
    rows = needed.nonzero()[:, 0]
    u = keyed_uniform(plan.seed, index[rows], STEP, len(plan.times) - 1, x.shape[1])
    t = plan.times[-1].to(x.device).expand(len(rows))
    return x.index_copy(0, rows, draw(model.rows(rows).symbols(x[rows], t), u)), needed.long()
