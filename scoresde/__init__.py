r"""Score-based generative models as differential equations, with the solver chosen at sampling time."""

from .compare import Comparison, compare, suggest
from .conditions import Given
from .custom import CustomProcess, LinearProcess, NonlinearProcess
from .editing import edit
from .guidance import classifier_free
from .latents import Reconstruction, encode, reconstruct
from .likelihood import (
    Bound,
    Likelihood,
    VariationalNoise,
    bits_per_dim,
    classify,
    dequantize,
    discrete_log_likelihood,
    elbo,
    fit_noise,
    log_likelihood,
    path_density,
    views,
)
from .models import ScoreModel
from .moments import Moments, moments
from .network_score import NetworkScore
from .oracles import GaussianOracle, KernelOracle, MixtureOracle, Oracle
from .plans import Plan
from .process import Process
from .processes import EDM, VE, VP, Interpolant, SubVP
from .quantiles import QuantileOracle
from .reverse import probability_flow, reverse_sde
from .sampling import decode, sample
from .schedules import Cosine, Geometric, Karras, LinearBeta, Logit, Schedule
from .settings import Settings
from .tuning import tune
from .zoo import load, save

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Bound",
    "Comparison",
    "Cosine",
    "CustomProcess",
    "GaussianOracle",
    "Geometric",
    "Given",
    "Interpolant",
    "Karras",
    "KernelOracle",
    "Likelihood",
    "LinearBeta",
    "LinearProcess",
    "Logit",
    "MixtureOracle",
    "Moments",
    "NetworkScore",
    "NonlinearProcess",
    "Oracle",
    "Plan",
    "Process",
    "QuantileOracle",
    "Reconstruction",
    "Schedule",
    "ScoreModel",
    "Settings",
    "SubVP",
    "VariationalNoise",
    "bits_per_dim",
    "classifier_free",
    "classify",
    "compare",
    "decode",
    "dequantize",
    "discrete_log_likelihood",
    "edit",
    "elbo",
    "encode",
    "fit_noise",
    "load",
    "log_likelihood",
    "moments",
    "path_density",
    "probability_flow",
    "reconstruct",
    "reverse_sde",
    "sample",
    "save",
    "suggest",
    "tune",
    "views",
]
