r"""Solvers for initial value problems in PyTorch."""

from .brownian import Brownian, Increments
from .calls import count_call, counting
from .catalogue import available, get
from .controller import Controller
from .errors import Failure, SolverError
from .exponential import ExponentialMultistep
from .problem import ODE, SDE, Problem, SemiLinear
from .runge_kutta import RungeKutta, Tableau
from .solution import Solution
from .solve import solve
from .solver import Control, Event, Solver, Step
from .stepper import Stepper
from .stochastic import EulerMaruyama

__all__ = [
    "ODE",
    "SDE",
    "Brownian",
    "Control",
    "Controller",
    "EulerMaruyama",
    "Event",
    "ExponentialMultistep",
    "Failure",
    "Increments",
    "Problem",
    "RungeKutta",
    "SemiLinear",
    "Solution",
    "Solver",
    "SolverError",
    "Step",
    "Stepper",
    "Tableau",
    "available",
    "count_call",
    "counting",
    "get",
    "solve",
]
