r"""Diffusion of symbols: Markov chains in continuous time, with known laws forwards and networks backwards."""

from .bound import elbo, loss, stratified_times
from .chain import Absorbing, Chain, Uniform
from .model import ChainModel
from .oracle import TableOracle
from .sampling import sample
from .schedule import Linear

__all__ = [
    "Absorbing",
    "Chain",
    "ChainModel",
    "Linear",
    "TableOracle",
    "Uniform",
    "elbo",
    "loss",
    "sample",
    "stratified_times",
]
