r"""Score-based generative models as differential equations, with the solver chosen at sampling time."""

from . import (
    adapters,
    autoencoders,
    chains,
    distilling,
    editing,
    geometry,
    guidance,
    inference,
    jobs,
    losses,
    networks,
    plots,
    symbols,
    training,
)
from .adapters import (
    Label,
    from_azula,
    from_callable,
    from_diffusers,
    from_edm,
    from_flow,
    from_guided_diffusion,
    from_k_diffusion,
    from_lucidrains,
    from_sbi,
    from_score_sde,
    pictures,
)
from .autoencoders import representation
from .checking import Residuals, ScoreCheck, check_score, residuals
from .comparing import Comparison, compare, suggest
from .editing import edit, fit_null, inpaint, interpolate
from .geometry import spectra
from .guidance import classifier_free
from .guidance.noisy_classifier import Classifier
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
    Modes,
    VariationalNoise,
    bits_per_dim,
    classify,
    dequantize,
    discrete_log_likelihood,
    elbo,
    find_modes,
    fit_noise,
    log_likelihood,
    path_density,
    quantize,
    transition_log_prob,
    views,
)
from .models.curves import Curves
from .models.data_moments import Moments, moments
from .models.latent import Latent
from .models.masked import Masked
from .models.network import NetworkScore
from .models.rescheduled import Rescheduled
from .models.score_model import Given, ScoreModel
from .models.self_conditioned import SelfConditioned
from .models.statistics import statistics
from .models.transforms import ComplexPairs, NamedParts, Standardized, Transform
from .oracles.mixture import GaussianOracle, KernelOracle, MixtureOracle, Oracle
from .oracles.quantile import QuantileOracle
from .oracles.uniform import UniformOracle
from .processes.blocks.diagonal import Blurring, CorrelatedNoise
from .processes.blocks.langevin import CLD
from .processes.blocks.matrix import MatrixProcess
from .processes.blocks.process import BlockProcess
from .processes.custom import CustomProcess, LinearProcess, NonlinearProcess
from .processes.process import Process
from .processes.schedules import Cosine, Geometric, Karras, LinearBeta, Logit, Schedule
from .processes.standard import EDM, VE, VP, Interpolant, SubVP
from .processes.tabulated import Tabulated
from .reverse.problems import probability_flow, reverse_sde
from .runs.files import load_solution, save_solution
from .runs.plan import Plan
from .runs.resumed import resume
from .runs.settings import Settings
from .runs.stepwise import StepByStep, Stepwise
from .sampling import decode, sample
from .training import train
from .training.finetune import Tuned, fine_tune
from .tuning.verb import tune
from .weighted import Weighted, twisted_sample, weighted_sample
from .zoo import load, load_chain, load_classifier, register_network, save, save_classifier

__all__ = [
    "CLD",
    "EDM",
    "VE",
    "VP",
    "BlockProcess",
    "Blurring",
    "Bound",
    "Classifier",
    "Comparison",
    "ComplexPairs",
    "CorrelatedNoise",
    "Cosine",
    "Curves",
    "CustomProcess",
    "GaussianOracle",
    "Geometric",
    "Given",
    "Interpolant",
    "Karras",
    "KernelOracle",
    "Label",
    "Latent",
    "LatentStatistics",
    "Likelihood",
    "LinearBeta",
    "LinearProcess",
    "Logit",
    "Masked",
    "MatrixProcess",
    "MixtureOracle",
    "Modes",
    "Moments",
    "NamedParts",
    "NetworkScore",
    "NoisePath",
    "NonlinearProcess",
    "Oracle",
    "Plan",
    "Process",
    "QuantileOracle",
    "Reconstruction",
    "Rescheduled",
    "Residuals",
    "Schedule",
    "ScoreCheck",
    "ScoreModel",
    "SelfConditioned",
    "Settings",
    "Standardized",
    "StepByStep",
    "Stepwise",
    "SubVP",
    "Tabulated",
    "Transform",
    "Tuned",
    "UniformOracle",
    "VariationalNoise",
    "Weighted",
    "adapters",
    "autoencoders",
    "bits_per_dim",
    "chains",
    "check_score",
    "classifier_free",
    "classify",
    "compare",
    "decode",
    "dequantize",
    "discrete_log_likelihood",
    "distilling",
    "edit",
    "editing",
    "elbo",
    "encode",
    "encode_noise",
    "find_modes",
    "fine_tune",
    "fit_noise",
    "fit_null",
    "from_azula",
    "from_callable",
    "from_diffusers",
    "from_edm",
    "from_flow",
    "from_guided_diffusion",
    "from_k_diffusion",
    "from_lucidrains",
    "from_sbi",
    "from_score_sde",
    "geometry",
    "guidance",
    "inference",
    "inpaint",
    "interpolate",
    "jobs",
    "latent_statistics",
    "load",
    "load_chain",
    "load_classifier",
    "load_latents",
    "load_solution",
    "log_likelihood",
    "losses",
    "moments",
    "networks",
    "path_density",
    "pictures",
    "plots",
    "probability_flow",
    "quantize",
    "reconstruct",
    "register_network",
    "representation",
    "residuals",
    "resume",
    "reverse_sde",
    "sample",
    "save",
    "save_classifier",
    "save_latents",
    "save_solution",
    "spectra",
    "statistics",
    "suggest",
    "symbols",
    "train",
    "training",
    "transition_log_prob",
    "tune",
    "twisted_sample",
    "views",
    "weighted_sample",
]


def __dir__() -> list[str]:
    return __all__
