r"""Diffusion of symbols: Markov chains in continuous time, with known laws forwards and networks backwards."""

from . import answers as answers
from .bound import elbo, loss, stratified_times
from .chain import Absorbing, Chain, Uniform
from .likelihood import log_likelihood
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
    "log_likelihood",
    "loss",
    "sample",
    "stratified_times",
]
