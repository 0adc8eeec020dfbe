r"""Solvers for initial value problems in PyTorch."""

from .adams import AdaptiveAdams
from .brownian import Brownian, Increments
from .calls import count_backward, count_call, counting
from .catalogue import available, get
from .controller import Controller
from .errors import Failure, SolverError
from .exponential import ExponentialMultistep
from .path import Path
from .problem import ODE, SDE, ConstantRate, Linear, Problem, SemiLinear
from .renoise import Ancestral, Churn, Langevin
from .runge_kutta import RungeKutta, Tableau
from .singlestep import ExponentialRungeKutta, Stages
from .solution import Solution
from .solve import solve
from .solver import Control, Event, Solver, Step
from .stepper import Stepper
from .stochastic import NoisyTableau, StochasticRungeKutta

__all__ = [
    "ODE",
    "SDE",
    "AdaptiveAdams",
    "Ancestral",
    "Brownian",
    "Churn",
    "ConstantRate",
    "Control",
    "Controller",
    "Event",
    "ExponentialMultistep",
    "ExponentialRungeKutta",
    "Failure",
    "Increments",
    "Langevin",
    "Linear",
    "NoisyTableau",
    "Path",
    "Problem",
    "RungeKutta",
    "SemiLinear",
    "Solution",
    "Solver",
    "SolverError",
    "Stages",
    "Step",
    "Stepper",
    "StochasticRungeKutta",
    "Tableau",
    "available",
    "count_backward",
    "count_call",
    "counting",
    "get",
    "solve",
]
