r"""Solvers for initial value problems in PyTorch."""

from .abilities import Abilities
from .catalogue import available, get
from .chart import Chart
from .control import Control, Event
from .controller import Controller
from .errors import Failure, SolverError
from .integrate import solve, steps
from .loops.steps import Steps
from .methods.adams import AdaptiveAdams
from .methods.exponential import ExponentialMultistep
from .methods.foresight import Foresight
from .methods.renoise import Ancestral, Churn, Langevin, Redrawn
from .methods.runge_kutta import RungeKutta, Tableau
from .methods.singlestep import ExponentialRungeKutta, Stages
from .methods.stochastic import NoisyTableau, StochasticRungeKutta
from .network_calls import count_backward, count_call, counting
from .noise.brownian import Brownian, Increments
from .noise.path import Path
from .problem import ODE, SDE, ConstantRate, Linear, Problem, SemiLinear
from .solver import Solution, Solver, Step

__all__ = [
    "ODE",
    "SDE",
    "Abilities",
    "AdaptiveAdams",
    "Ancestral",
    "Brownian",
    "Chart",
    "Churn",
    "ConstantRate",
    "Control",
    "Controller",
    "Event",
    "ExponentialMultistep",
    "ExponentialRungeKutta",
    "Failure",
    "Foresight",
    "Increments",
    "Langevin",
    "Linear",
    "NoisyTableau",
    "Path",
    "Problem",
    "Redrawn",
    "RungeKutta",
    "SemiLinear",
    "Solution",
    "Solver",
    "SolverError",
    "Stages",
    "Step",
    "Steps",
    "StochasticRungeKutta",
    "Tableau",
    "available",
    "count_backward",
    "count_call",
    "counting",
    "get",
    "solve",
    "steps",
]
