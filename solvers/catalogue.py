r"""The catalogue: the names of solvers and what they stand for, as data."""

import dataclasses
import difflib

from .doors.settings import Setting, parsed
from .doors.signatures import checked
from .methods import torchdiffeq, torchsde
from .methods.adams import AdaptiveAdams
from .methods.exponential import ExponentialMultistep
from .methods.fitted import FittedAdams
from .methods.fixed_point import FixedPoint
from .methods.foresight import Foresight
from .methods.interaction import Interaction
from .methods.renoise import Ancestral, Churn, Langevin, Recurrent, Redrawn
from .methods.reversible import McCallumFoster, ReversibleHeun
from .methods.runge_kutta import TABLEAUS, RungeKutta, Tableau
from .methods.singlestep import ONE, THREE, TRAPEZOID, TWO, ExponentialRungeKutta
from .methods.stochastic import NOISY_TABLEAUS, StochasticRungeKutta
from .methods.two_step import Edict, TwoStep, bdia, belm
from .methods.weights import edge, even, exact, halved, midpoint
from .problem import SDE, SemiLinear
from .solver import Solver

BH1, BH2 = (exact, edge, exact), (exact, midpoint, exact)  # by the number of values
PUBLISHED = (exact, midpoint, halved)
LEVEL, TIME = "noise_level", "time"


_multistep = (
    ExponentialMultistep  # whose first arguments are its name, the number of values and the form
)
DETERMINISTIC: tuple[Solver, ...] = (
    *map(RungeKutta, TABLEAUS),
    _multistep("ddim", 1),
    *(_multistep(f"exponential_{k}", k) for k in (2, 3, 4)),
    _multistep("dpmpp_2m", 2, rules=(exact, midpoint)),
    _multistep("dpmpp_3m", 3, rules=BH2),
    _multistep("dpmpp_3m_published", 3, rules=PUBLISHED, known_order=2),
    _multistep("dpm_2m", 2, "noise", rules=(exact, midpoint)),
    _multistep("dpm_3m_published", 3, "noise", rules=PUBLISHED, known_order=2),
    *(_multistep(f"deis_{k}", k, "noise") for k in (2, 3, 4)),
    *(_multistep(f"deis_time_{k}", k, "noise", variable=TIME) for k in (2, 3, 4)),
    *(_multistep(f"lms_{k}", k, "noise", variable=LEVEL) for k in (2, 3, 4)),
    *(_multistep(f"ipndm_{k}", k, "noise", rules=(even,), known_order=2) for k in (2, 3, 4)),
    *(_multistep(f"unip_{k}", k, rules=BH2) for k in (3, 4)),
    _multistep("unipc", 2, rules=BH2, corrector=BH2, lower_order_final=True, known_order=2),
    *(_multistep(f"unipc_{k}", k, rules=BH2, corrector=BH2) for k in (1, 2, 3, 4)),
    *(_multistep(f"unipc_{k}_bh1", k, rules=BH1, corrector=BH1) for k in (1, 2, 3, 4)),
    *(_multistep(f"moment_{k}", k, "moments") for k in (1, 2, 3)),
    *(
        _multistep(f"moment_ipndm_{k}", k, "moments", rules=(even,), known_order=2)
        for k in (2, 3, 4)
    ),
    _multistep(
        "moment_ipndm_3_analytic", 3, "moments", (even,), known_order=2, analytic_first=True
    ),
    *(_multistep(f"measured_{k}", k, "measured") for k in (2, 3)),
    *(
        _multistep(f"measured_ipndm_{k}", k, "measured", rules=(even,), known_order=2)
        for k in (2, 3)
    ),
    *(Foresight(f"foresight_{k}", k, "isotropic") for k in (1, 2)),
    *(Foresight(f"moment_foresight_{k}", k) for k in (1, 2)),
    ExponentialRungeKutta("dpm_2", TWO),
    ExponentialRungeKutta("dpm_3", THREE),
    ExponentialRungeKutta("dpm_fast", THREE, ending=(TWO, ONE)),
    ExponentialRungeKutta("dpmpp_2s", TWO, "data"),
    ExponentialRungeKutta("dpmpp_3s", THREE, "data"),
    ExponentialRungeKutta("edm_heun", TRAPEZOID, variable=LEVEL),
    ExponentialRungeKutta("dpm_adaptive", THREE, adaptive=True),
    AdaptiveAdams("exponential"),
    FittedAdams("exponential_fitted"),
)
STOCHASTIC: tuple[Solver, ...] = (
    *map(StochasticRungeKutta, NOISY_TABLEAUS),
    _multistep("ancestral", 1, stochastic=True),
    _multistep("dpmpp_2m_sde", 2, rules=(exact, midpoint), stochastic=True),
    _multistep("dpmpp_2m_sde_heun", 2, stochastic=True),
    _multistep("dpmpp_3m_sde", 3, rules=(exact, exact, halved), stochastic=True),
    _multistep("er_sde", 3, variable=LEVEL, stochastic=True, profile="er_sde"),
    _multistep("sa", 3, rules=BH1, corrector=BH1, stochastic=True, profile="sa"),
    ExponentialRungeKutta("dpmpp_sde", TWO, "data", stochastic=True),
    Ancestral("dpm_2_ancestral", ExponentialRungeKutta("dpm_2", TWO)),
    Ancestral("dpmpp_2s_ancestral", ExponentialRungeKutta("dpmpp_2s", TWO, "data")),
    Churn("edm_churn", ExponentialRungeKutta("edm_heun", TRAPEZOID, variable=LEVEL)),
    Recurrent("recurrent", _multistep("ddim", 1)),
    Langevin("langevin_corrector", _multistep("ancestral", 1, stochastic=True)),
    Langevin("annealed_langevin", None, corrections=5, tau=0.1),
    Redrawn("consistency"),
    AdaptiveAdams("exponential_sde", highest=1, stochastic=True),
)
BITS = 32  # of a lattice: steps of 2e-10 in units of the last noise level, states up to 5e5


def _rex(tableau: Tableau, noise: bool = False) -> Solver:
    method = McCallumFoster(tableau.name, tableau)
    if noise:
        return Interaction(f"rex_noise_{tableau.name}", method, "noise", "noise_level")
    return Interaction(f"rex_{tableau.name}", method, "data", "signal_to_noise")


def _lattice(name: str, form: str) -> Solver:
    return Interaction(name, ReversibleHeun(name, BITS), form)


REX = [tableau for tableau in TABLEAUS if tableau.name in ("euler", "midpoint", "rk4")]
INVERTIBLE: tuple[Solver, ...] = (
    ReversibleHeun(),
    _lattice("lattice_heun", "floored"),
    _lattice("lattice_heun_isotropic", "isotropic"),
    TwoStep("o_belm", belm("noise_level")),
    TwoStep("moment_belm", belm("clock"), "floored"),
    TwoStep("leapfrog", bdia(1.0)),
    TwoStep("bdia", bdia(0.5), order=1, unstable="as the clock falls"),
    Edict(),
    *(_rex(tableau) for tableau in REX),
    *(_rex(tableau, noise=True) for tableau in REX),
    FixedPoint("fixed_point_ddim", _multistep("ddim", 1)),
    FixedPoint("anderson_ddim", _multistep("ddim", 1), depth=2),
    FixedPoint("renoise_ddim", _multistep("ddim", 1), average=3),
)
NATIVE = (*DETERMINISTIC, *INVERTIBLE, *STOCHASTIC)
CATALOGUE: dict[str, Solver] = {
    str(solver): solver for solver in (*NATIVE, *torchdiffeq.METHODS, *torchsde.METHODS)
}
SETTABLE = (
    "lower_order_final",
    "analytic_first",
    "amount",
    "low",
    "high",
    "noise",
    "corrections",
    "ratio",
    "repeats",
    "tau",
    "iterations",
    "depth",
    "average",
    "mix",
    "block",
)
NOTES = {
    "exponential": "variable order up to 6 of its predictor",
    "exponential_fitted": "the same up to 8, in a linear part fitted to each sample",
    "exponential_sde": "on one Brownian path",
    "dpmpp_3m_published": "lacks a factor 2, as published",
    "dpm_3m_published": "lacks a factor 2, as published",
    "foresight_1": "PFDiff about the scale of the data",
    "moment_foresight_1": "PFDiff in the axes of the data",
    "dpm_fast": "its last two steps are of order 2 and 1",
    "edm_churn": "order of its steps without churn: 2",
    "er_sde": "noise of ER-SDE-Solver by noise level",
    "sa": "noise between the noise levels 0.05 and 1",
    "moment_ipndm_3_analytic": "no call at the start, where Gaussian data is assumed",
    **{f"measured_{k}": "with ss.statistics(model, data)" for k in (2, 3)},
    **{f"measured_ipndm_{k}": "with ss.statistics(model, data)" for k in (2, 3)},
    "lattice_heun": "in the axes of the data",
    "moment_belm": "in the axes of the data",
    "leapfrog": "BDIA with gamma 1",
    "bdia": "gamma 1/2",
    "rex_euler": "McCallum and Foster around Lawson's method, as Rex",
    "fixed_point_ddim": "the inverse of ddim, by 5 iterations",
    "anderson_ddim": "the same, accelerated",
    "renoise_ddim": "the same, the last 3 iterates averaged",
    "recurrent": "takes each step 5 times, noised back in between",
    "langevin_corrector": "ancestral steps, each corrected once",
    "consistency": "new noise at each level, for consistency models",
    "annealed_langevin": "5 Langevin steps at each noise level",
    "torchdiffeq/implicit_adams": "corrects once",
    "torchdiffeq/fixed_adams": "the same as implicit_adams",
    "torchdiffeq/scipy_solver": "LSODA, one sample at a time",
    "torchsde/srk": "in its form for additive noise",
}
REFUSED: dict[str, str] = {**torchdiffeq.REFUSED, **torchsde.REFUSED}
ALIASES = {
    "deis_1": "ddim",
    "deis_rho_2": "lms_2",
    "deis_rho_3": "lms_3",
    "deis_rho_4": "lms_4",
    "dpmpp_2m_heun": "exponential_2",
    "euler_ancestral": "ancestral",
    "euler_maruyama": "em",
    "exponential_1": "ddim",
    "ipndm": "ipndm_4",
    "ipndm_v_2": "lms_2",
    "ipndm_v_3": "lms_3",
    "ipndm_v_4": "lms_4",
    "lms": "lms_4",
    "unip_2": "dpmpp_2m",
    "sa_solver": "sa",
    "deis": "deis_3",
}

WRITTEN = {  # as interfaces write them
    "dpm2": "dpm_2",
    "dpm2_a": "dpm_2_ancestral",
    "dpm2_ancestral": "dpm_2_ancestral",
    "dpmpp_2s_a": "dpmpp_2s_ancestral",
    "euler_a": "ancestral",
}


def available() -> tuple[str, ...]:
    r"""Returns the names of all solvers.

    Examples:
        >>> "dpmpp_2m" in solvers.available(), "torchdiffeq/dopri5" in solvers.available()
        (True, True)
    """

    return tuple(CATALOGUE)


@checked
def get(solver: str | Solver) -> Solver:
    r"""Returns the solver with the given name; a solver is returned unchanged.

    A name may be followed by settings, as in "dpmpp_3m:lower_order_final=True".

    Raises:
        ValueError: If no solver has this name; the message suggests similar names.
        TypeError: If `solver` is neither a name nor a solver.

    Examples:
        >>> solvers.get("dpmpp_3m:lower_order_final=True").lower_order_final
        True
    """

    if isinstance(solver, Solver):
        return solver
    if not isinstance(solver, str):
        raise TypeError(f"solver must be a name or a Solver, but is a {type(solver).__name__}.")
    if solver in CATALOGUE:
        return CATALOGUE[solver]
    name, settings = parsed(solver)
    if settings:
        return _changed(get(name), settings)
    name = _spelled(name)
    if name in REFUSED:
        raise ValueError(f"solver {name!r} cannot be used: {REFUSED[name]}.")
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, [*CATALOGUE, *ALIASES], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name is similar."
        raise ValueError(
            f"solver {name!r} is unknown; {hint} solvers.available() lists all {len(CATALOGUE)}."
        )
    return CATALOGUE[name]


def name_of(solver: Solver) -> str | None:
    r"""Returns the name, with settings, by which :func:`get` returns an equal solver, or `None`."""

    name = str(solver)
    try:
        known = get(name)
        if known == solver:
            return name
        fields = [f.name for f in dataclasses.fields(known) if f.name in SETTABLE]  # type: ignore[arg-type]
        changed = [n for n in fields if getattr(known, n) != getattr(solver, n, None)]
        name = ":".join([name, *(f"{n}={getattr(solver, n)}" for n in changed)])
        return name if dataclasses.replace(get(name), name=str(solver)) == solver else None  # type: ignore[type-var]
    except (ValueError, TypeError, AttributeError):
        return None


def label(solver: Solver) -> str:
    r"""Returns the label of a solver in tables and records; your own solvers are marked as such."""

    known = name_of(solver)
    if known is not None:
        return known
    named = _spelled(str(solver).split(":")[0]) in CATALOGUE
    return f"{solver} (own)" if named else str(solver)


def _spelled(name: str) -> str:
    r"""A name as the catalogue has it: "DPM++ 2M" and "dpmsolver++-2m" are "dpmpp_2m"."""

    plain = name.strip().lower().replace(" ", "_").replace("-", "_").replace("++", "pp")
    plain = plain.replace("dpm_solver", "dpm").replace("dpmsolver", "dpm")
    plain = name if name in CATALOGUE else plain
    return {**ALIASES, **WRITTEN}.get(plain, plain)


def _changed(solver: Solver, settings: list[Setting]) -> Solver:
    r"""The solver with changed settings, such as "lower_order_final=True"."""

    changes: dict[str, bool | int | float] = {}
    for setting in settings:
        known = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}  # type: ignore[arg-type]
        mine = [n for n in SETTABLE if n in known]
        if setting.text is None or setting.key not in mine:
            raise ValueError(
                f"{solver} has no setting {str(setting)!r}; it has {', '.join(mine) or 'none'}."
            )
        changes[setting.key] = _value(setting, known[setting.key])
    name = ":".join([solver.name, *map(str, settings)])
    return dataclasses.replace(solver, name=name, **changes)  # type: ignore[type-var]


def _value(setting: Setting, now: object) -> bool | int | float:
    name, text = setting
    if isinstance(now, bool):
        if str(text).lower() not in ("true", "false"):
            raise ValueError(f"{name} must be True or False, but is {text!r}.")
        return str(text).lower() == "true"
    value = setting.number(int if isinstance(now, int) else float)
    if value is None:
        raise ValueError(
            f"{name} must be a {'whole ' * isinstance(now, int)}number, but is {text!r}; ':' separates settings."
        )
    if value != value:
        raise ValueError(f"{name} must be a number, but is {text}.")
    return value


def describe(solver: Solver) -> dict[str, str | float | bool]:
    r"""Returns the entries of a table about a solver."""

    kinds = {SDE: "SDE", SemiLinear: "semi-linear"}
    return {
        "name": str(solver),
        "solves": kinds.get(solver.solves, "ODE"),
        "order": solver.order,
        "order on an even grid": solver.cold_order,
        "stochastic": solver.stochastic,
        "adaptive": solver.adaptive,
        "fixed": solver.fixed,
        "calls per step": solver.calls_per_step,
        "note": note(solver),
    }


def note(solver: Solver) -> str:
    r"""Returns what else a user should know about a solver, besides its order and cost, in words."""

    can = solver.can
    undone = "undone to the last bit" if can.exact else "undone from its companion"
    words = (
        NOTES.get(str(solver)),
        can.reversible and undone,
        can.unstable and f"unstable {can.unstable}",
        can.own_noise and "adds noise where the equation has none",
        can.even and "steps of equal size in its clock",
    )
    return "; ".join(word for word in words if word)
