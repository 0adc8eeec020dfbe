r"""Score-based generative models as differential equations, with the solver chosen at sampling time."""

from . import editing, geometry, guidance, plots, spectra
from .classifiers import Classifier
from .compare import Comparison, compare, suggest
from .conditions import Given
from .custom import CustomProcess, LinearProcess, NonlinearProcess
from .editing import edit, fit_null, inpaint, interpolate
from .guidance import classifier_free
from .latents import (
    LatentStatistics,
    NoisePath,
    Reconstruction,
    encode,
    encode_noise,
    latent_statistics,
    load_latents,
    reconstruct,
    save_latents,
)
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
    quantize,
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
from .weighted import Weighted, twisted_sample, weighted_sample
from .zoo import load, load_classifier, save, save_classifier

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Bound",
    "Classifier",
    "Comparison",
    "Cosine",
    "CustomProcess",
    "GaussianOracle",
    "Geometric",
    "Given",
    "Interpolant",
    "Karras",
    "KernelOracle",
    "LatentStatistics",
    "Likelihood",
    "LinearBeta",
    "LinearProcess",
    "Logit",
    "MixtureOracle",
    "Moments",
    "NetworkScore",
    "NoisePath",
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
    "Weighted",
    "bits_per_dim",
    "classifier_free",
    "classify",
    "compare",
    "decode",
    "dequantize",
    "discrete_log_likelihood",
    "edit",
    "editing",
    "elbo",
    "encode",
    "encode_noise",
    "fit_noise",
    "fit_null",
    "geometry",
    "guidance",
    "inpaint",
    "interpolate",
    "latent_statistics",
    "load",
    "load_classifier",
    "load_latents",
    "log_likelihood",
    "moments",
    "path_density",
    "plots",
    "probability_flow",
    "quantize",
    "reconstruct",
    "reverse_sde",
    "sample",
    "save",
    "save_classifier",
    "save_latents",
    "spectra",
    "suggest",
    "tune",
    "twisted_sample",
    "views",
    "weighted_sample",
]
