r"""One valid call of every public function, and things that are no valid argument of most."""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers
from scoresde import (
    autoencoders,
    chains,
    distilling,
    editing,
    geometry,
    guidance,
    inference,
    jobs,
    losses,
    metrics,
    plots,
)
from scoresde.geometry import spectra


class Flat(nn.Module):
    r"""A network of images and noise levels that sees three classes."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) * torch.ones(3).to(x)


class Shift(nn.Module):
    r"""A network that teaches noise its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean + 0 * x, 0 * x


class Shrink(nn.Module):
    r"""A network of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.share * x


PROCESS = ss.EDM()
LINEAR = ss.LinearProcess(0.0, 1.0)
OWN = ss.CustomProcess(lambda t: 1 - t / 2, lambda t: t)
NETWORK = ss.NetworkScore(
    lambda x, t, label=None: 0.1 * x, PROCESS, "data", conditions=["label"], shape=(2,)
)
RECALLS = ss.NetworkScore(
    lambda x, t, estimate: 0.1 * estimate, PROCESS, "data", conditions=["estimate"], shape=(2,)
)
ANCHORED = ss.NetworkScore(Shrink(), PROCESS, "data", shape=(2,), data_scale=0.5)
TABLE = ss.MixtureOracle(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), 0.3)
GAUSS = ss.GaussianOracle(torch.zeros(2), 0.5)
KERNEL = ss.KernelOracle(torch.eye(4, 2), 0.3, labels=torch.tensor([0, 1, 0, 1]))
QUANTILE = ss.QuantileOracle(torch.zeros(2, 1), torch.ones(2, 1))
BOX = ss.UniformOracle(torch.zeros(2), torch.ones(2))
PICTURES = ss.GaussianOracle(torch.zeros(1, 4, 4), 0.5)
CLASSIFIER = ss.Classifier(
    Flat(),
    PROCESS,
    data_std=1.0,
    levels=(0.1, 1.0),
    classes=3,
)
X = torch.tensor([[0.0, 0.5], [1.0, -0.5], [0.25, 0.75], [-1.0, -0.25]])
SEVERAL = torch.linspace(-1, 1, 16).reshape(8, 2).sin()
ON = torch.tensor([[0.0, 1.0], [1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])
DIGITS, SEES = ss.load("digits"), ss.load_classifier("digits")
IMAGES = torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4)
ONE = torch.tensor(1.0)
SOLUTION = ss.sample(GAUSS, 4, steps=3)
STOPPED = ss.sample(GAUSS, 4, steps=5, callback=lambda event: True)
NOISY = ss.sample(GAUSS, 4, solver="ancestral", steps=3, path=True)
WAY = ss.encode(NETWORK.given(label=1), X, solver="ddim", steps=2, path=True)
LIKELIHOOD = ss.log_likelihood(GAUSS, X, solver="heun", steps=4, nodes=8)
COMPARISON = ss.compare(
    GAUSS, ["ddim"], [3, 5], samples=8, reference_tolerance=0.01, progress=False
)
FOLLOWED = geometry.follow(PICTURES, 2, steps=3)
FEW = {"solver": "heun", "steps": 2}
FIELD = solvers.ODE(lambda t, x: -x)


def operator(x: Tensor) -> Tensor:
    return x[:, :1]


def loss(x: Tensor, target: Tensor) -> Tensor:
    return (x[:, 0] - target).square()


def logits(x: Tensor, level: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, 2)) * torch.exp(-level)[:, None, None]


WORDS = ss.symbols.EmbeddedScore(logits, ss.symbols.Embedding(5, 3), PROCESS, shape=(2,))
SYMBOLS = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1]])


def ratio(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return x[:, 0] * label


def log_prob(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return -x.square().sum(1) * label


def likely(D: Tensor, level: Tensor, target: Tensor) -> Tensor:
    return -(D[:, 0] - target).square()


def fit_noise(noise: Any, **others: Any) -> float:
    r"""The first step of noise that others have not taught."""

    return next(
        ss.fit_noise(copy.deepcopy(noise) if isinstance(noise, nn.Module) else noise, **others)
    )


Call = tuple[Callable[..., object], dict[str, Any]]


def of_processes() -> dict[str, Call]:
    found: dict[str, Call] = {
        "EDM": (ss.EDM, {"schedule": ss.Karras(), "t_min": 0.01, "t_max": 50.0}),
        "VE": (ss.VE, {"schedule": ss.Geometric(), "t_min": 0.01, "t_max": 1.0}),
        "VP": (ss.VP, {"schedule": ss.Cosine(), "t_min": 0.01, "t_max": 0.99}),
        "SubVP": (ss.SubVP, {"schedule": ss.LinearBeta(), "t_min": 0.01, "t_max": 1.0}),
        "Interpolant": (ss.Interpolant, {"schedule": ss.Logit(), "t_min": 0.01, "t_max": 0.99}),
        "Cosine": (ss.Cosine, {"offset": 0.01}),
        "Geometric": (ss.Geometric, {"sigma_min": 0.01, "sigma_max": 10.0}),
        "Karras": (ss.Karras, {"sigma_min": 0.01, "sigma_max": 10.0}),
        "LinearBeta": (ss.LinearBeta, {"beta_min": 0.1, "beta_max": 10.0}),
        "LinearProcess": (ss.LinearProcess, {"f": 0.0, "g": 1.0, "t_min": 0.001, "t_max": 1.0}),
        "NonlinearProcess": (ss.NonlinearProcess, {
            "f": lambda x, t: -x, "g": 1.0, "std": 1.0, "t_min": 0.001, "t_max": 1.0,
            "mean": 0.0, "conditions": ()}),
        "CustomProcess": (ss.CustomProcess, {
            "alpha": 1.0, "sigma": lambda t: t, "t_min": 0.01, "t_max": 10.0, "f": 0.0,
            "g": lambda t: (2 * t).sqrt()}),
    }  # fmt: skip
    found |= {
        "CLD": (ss.CLD, {
            "beta": 4.0, "mass": 0.25, "gamma": 0.04, "t_min": 0.001, "t_max": 1.0}),
        "Blurring": (ss.Blurring, {
            "shape": (2,), "process": ss.VP(), "blur": 1.0, "floor": 0.01}),
        "CorrelatedNoise": (ss.CorrelatedNoise, {
            "process": ss.VP(), "covariance_matrix": torch.eye(2)}),
        "MatrixProcess": (ss.MatrixProcess, {
            "F": -torch.eye(2), "G": torch.eye(2), "data_size": 1, "start": torch.eye(1),
            "t_min": 0.001, "t_max": 4.0}),
    }  # fmt: skip
    for process in (ss.VP(), ss.SubVP(), ss.VE(), ss.EDM(), ss.Interpolant(), LINEAR, OWN):
        name = type(process).__name__
        for method in ("log_scales", "scales", "log_snr", "rates", "diffusion"):
            found[f"{name}.{method}"] = (getattr(process, method), {"t": 0.5})
        found[f"{name}.time"] = (process.time, {"log_snr": 0.0})
        found[f"{name}.drift"] = (process.drift, {"x": X, "t": 0.5})
    for schedule in (ss.Cosine(), ss.Geometric(), ss.Karras(), ss.LinearBeta(), ss.Logit()):
        name = type(schedule).__name__
        found[f"{name}.__call__"] = (schedule, {"t": 0.5})
        found[f"{name}.inverse"] = (schedule.inverse, {"log_snr": 0.0})
    any_drift = ss.NonlinearProcess(lambda x, t: -x, 1.0)
    found |= {
        "NonlinearProcess.drift": (any_drift.drift, {"x": X, "t": 0.5}),
        "NonlinearProcess.diffusion": (any_drift.diffusion, {"t": 0.5}),
        "NonlinearProcess.describe": (any_drift.describe, {"t": 0.5}),
        "NonlinearProcess.prior_sample": (any_drift.prior_sample, {
            "shape": (4, 2), "seed": 0, "first_index": 0, "dtype": None, "device": None}),
        "Process.perturb": (PROCESS.perturb, {"x": X, "t": ONE, "z": X}),
        "Process.prior_sample": (PROCESS.prior_sample, {
            "shape": (4, 2), "seed": 0, "first_index": 0, "dtype": None, "device": None}),
        "Process.prior_log_prob": (PROCESS.prior_log_prob, {"z": X}),
        "Process.prior_gap": (PROCESS.prior_gap, {"data_std": 1.0}),
        "Process.noise_level": (PROCESS.noise_level, {"t": 1.0}),
        "Process.at_noise_level": (PROCESS.at_noise_level, {"level": 1.0}),
        "Process.start_of": (PROCESS.start_of, {"use": "sampling"}),
        "Process.describe": (PROCESS.describe, {"t": 1.0}),
    }  # fmt: skip
    return found


def of_models() -> dict[str, Call]:
    found: dict[str, Call] = {
        "GaussianOracle": (ss.GaussianOracle, {"mean": X[0], "covariance": 0.5, "process": PROCESS}),
        "MixtureOracle": (ss.MixtureOracle, {
            "means": X, "covariances": 0.5, "weights": torch.ones(4), "process": PROCESS}),
        "KernelOracle": (ss.KernelOracle, {
            "data": X, "width": 0.5, "process": PROCESS, "labels": torch.arange(4)}),
        "QuantileOracle": (ss.QuantileOracle, {
            "means": X.T, "stds": X.T.abs() + 1, "weights": torch.ones(2, 4), "rotation": torch.eye(2),
            "process": PROCESS}),
        "UniformOracle": (ss.UniformOracle, {"low": X[0], "high": X[0] + 1, "process": PROCESS}),
        "Masked": (ss.Masked, {"model": GAUSS, "mask": ON * 0 + 1}),
        "SelfConditioned": (ss.SelfConditioned, {"model": RECALLS, "mode": "twice"}),
        "Standardized": (ss.Standardized, {"mean": X[0], "std": 2.0, "form": None}),
        "Standardized of": (ss.Standardized.of, {"data": X, "form": None}),
        "NamedParts": (ss.NamedParts, {"shapes": {"a": (2,), "b": (1, 2)}}),
        "ComplexPairs network": (ss.ComplexPairs().network, {"network": lambda x, t: x}),
        "NamedParts network": (ss.NamedParts({"a": (2,)}).network, {"network": lambda x, t: x}),
        "Moments": (ss.Moments, {
            "mean": X[0], "basis": torch.eye(2), "variances": torch.ones(2), "rest": None,
            "curves": None}),
        "Curves": (ss.Curves, {
            "levels": torch.tensor([2.0, 1.0]), "rates": torch.ones(2, 2), "sizes": torch.ones(2, 2)}),
        "statistics": (ss.statistics, {
            "model": GAUSS, "data": X, "rates": "slope", "levels": 3, "samples": 4, "seed": 0, "batch_size": 2}),
        "moments": (ss.moments, {"data": X, "kind": "full", "basis": None, "rank": None}),
        "moments, low rank": (ss.moments, {"data": X, "kind": "low_rank", "rank": 1}),
        "NetworkScore": (ss.NetworkScore, {
            "network": nn.Identity(), "process": PROCESS, "predicts": "data", "conditions": [], "shape": (2,),
            "data_std": 1.0, "data_scale": 1.0}),
        "Classifier": (ss.Classifier, {
            "network": nn.Identity(), "process": PROCESS, "data_std": 1.0, "levels": (0.1, 1.0), "classes": 0}),
        "Classifier.log_prob": (CLASSIFIER.log_prob, {"x": X, "t": ONE, "label": torch.zeros(4).long()}),
        "Classifier.log_ratio": (CLASSIFIER.log_ratio, {"x": X, "t": ONE, "label": torch.zeros(4).long()}),
        "reverse_sde": (ss.reverse_sde, {"model": GAUSS, "eta": 1.0}),
        "probability_flow": (ss.probability_flow, {"model": GAUSS}),
        "Given": (ss.Given, {"model": NETWORK, "bound": {"label": torch.tensor([1])}}),
        "ScoreModel.given": (NETWORK.given, {"label": 1}),
        "ScoreModel.rows": (NETWORK.given(label=[0, 1, 2, 3]).rows, {"index": torch.tensor([0, 1])}),
    }  # fmt: skip
    oracles = {
        "GaussianOracle": GAUSS,
        "MixtureOracle": TABLE,
        "KernelOracle": KERNEL,
        "QuantileOracle": QUANTILE,
        "UniformOracle": BOX,
    }
    for name, model in {**oracles, "NetworkScore": NETWORK}.items():
        for method in ("denoise", "noise", "score", "velocity", "raw"):
            label = {"label": torch.zeros(4).long()} if model.conditions else {}
            found[f"{name}.{method}"] = (getattr(model, method), {"x": X, "t": 1.0, **label})
    for name, oracle in oracles.items():
        found[f"{name}.log_prob"] = (oracle.log_prob, {"x": X, "t": 1.0})
        found[f"{name}.log_density"] = (oracle.log_density, {"x": X, "t_min": 0.01})
        found[f"{name}.data"] = (oracle.data, {"count": 4, "seed": 0})
    for name, known in (("GaussianOracle", GAUSS), ("QuantileOracle", QUANTILE)):
        found[f"{name}.flow"] = (known.flow, {"x": X, "start": 1.0, "stop": 0.1})
    return found


OPTIONS: dict[str, Any] = {
    "solver": "em", "steps": 2, "grid": "rho", "clock": "t", "eta": 0.5, "eta_convention": "canonical",
    "noise": "increments", "seed": 0, "first_index": 0, "batch_size": 4, "dtype": None, "device": None,
    "path": False, "callback": None, "progress": False, "max_calls": 100, "on_failure": "raise", "grad": "none",
    "t_min": 0.01, "denoise": True,
}  # fmt: skip


def of_verbs() -> dict[str, Call]:
    return {
        "Settings": (ss.Settings, OPTIONS),
        "Settings, tolerances": (ss.Settings, {
            "rtol": 0.1, "atol": 0.1, "max_step": 1.0, "first_step": 0.1, "noise": "path"}),
        "Settings, seeds": (ss.Settings, {"seeds": [1, 2], "times": [80.0, 1.0, 0.1]}),
        "sample": (ss.sample, {"model": GAUSS, "shape": (4, 2), **OPTIONS}),
        "sample, by level": (ss.sample, {
            "model": GAUSS, "shape": 2, "solver": "em", "eta": lambda level: level / (1 + level),
            "levels": [80.0, 1.0, 0.1, 0.0]}),
        "sample, between levels": (ss.sample, {
            "model": GAUSS, "shape": 2, "steps": 2, "grid": "rho:5", "sigma_min": 0.1, "sigma_max": 10.0}),
        "sample, a condition": (ss.sample, {"model": NETWORK, "shape": 4, "steps": 2, "label": 1}),
        "sample, seeds": (ss.sample, {
            "model": GAUSS, "shape": 2, "seeds": [1, 2], "times": [80.0, 1.0, 0.1]}),
        "decode": (ss.decode, {"model": GAUSS, "z": X, "t_max": 80.0, **FEW}),
        "encode": (ss.encode, {"model": GAUSS, "x": X, "t_max": 80.0, **FEW}),
        "encode, by level": (ss.encode, {"model": GAUSS, "x": X, "solver": "heun", "levels": [80.0, 1.0, 0.1]}),
        "encode, between levels": (ss.encode, {
            "model": GAUSS, "x": X, "steps": 2, "sigma_min": 0.1, "sigma_max": 10.0}),
        "log_likelihood, by level": (ss.log_likelihood, {
            "model": GAUSS, "x": X, "solver": "heun", "nodes": 8, "levels": [80.0, 1.0, 0.1]}),
        "discrete_log_likelihood, between levels": (ss.discrete_log_likelihood, {
            "model": GAUSS, "x": ON, "levels": 3, "nodes": 8, "sigma_min": 0.1}),
        "edit, between levels": (ss.edit, {
            "source": GAUSS, "target": GAUSS, "x": X, "noise_level": 1.0, "steps": 2, "sigma_min": 0.1}),
        "encode_noise": (ss.encode_noise, {
            "model": GAUSS, "x": X, "t_max": 80.0, "chain": "forward", "solver": "ancestral", "steps": 2}),
        "reconstruct": (ss.reconstruct, {"model": GAUSS, "x": X, "one_state": False, **FEW}),
        "edit": (ss.edit, {
            "source": NETWORK.given(label=0), "target": NETWORK.given(label=1), "x": X, "noise_level": 1.0,
            "strength": None, "method": "encode", **FEW}),
        "edit, strength": (ss.edit, {
            "source": NETWORK.given(label=0), "target": NETWORK.given(label=1), "x": X, "strength": 0.5, **FEW}),
        "edit, several strengths": (ss.edit, {
            "source": GAUSS, "target": GAUSS, "x": X, "strength": torch.tensor([0.2, 0.5]), **FEW}),
        "inpaint": (ss.inpaint, {
            "model": GAUSS, "x": X, "known": torch.tensor([True, False]), "method": "resampling", "repeats": 1,
            "t_max": 80.0, "steps": 2}),
        "latent_statistics": (ss.latent_statistics, {"model": GAUSS, "z": X}),
        "log_likelihood": (ss.log_likelihood, {
            "model": GAUSS, "x": X, "divergence": "auto", "probes": 1, "nodes": 8, "target_stderr": None, **FEW}),
        "log_likelihood, target": (ss.log_likelihood, {
            "model": GAUSS, "x": X, "nodes": 8, "target_stderr": 0.1, **FEW}),
        "discrete_log_likelihood": (ss.discrete_log_likelihood, {
            "model": GAUSS, "x": ON, "levels": 3, "low": -1.0, "high": 1.0, "dequantization": "uniform",
            "draws": 1, "importance": False, "nodes": 8, **FEW}),
        "find_modes": (ss.find_modes, {
            "model": GAUSS, "x": X, "tolerance": 1e-6, "max_calls": 30, "density": False}),
        "elbo": (ss.elbo, {"model": GAUSS, "x": X, "steps": None, "nodes": 2, "draws": 2}),
        "transition_log_prob": (ss.transition_log_prob, {"model": GAUSS, "solution": NOISY}),
        "path_density": (ss.path_density, {"model": GAUSS, "x": X, "steps": 4, "paths": 2}),
        "views": (ss.views, {"model": GAUSS, "x": X}),
        "classify": (ss.classify, {
            "model": TABLE, "x": X, "classes": [0, 1], "condition": "label", "prior": torch.ones(2), "by": "elbo",
            "draws": 1, "nodes": 2}),
        "bits_per_dim": (ss.bits_per_dim, {"likelihood": LIKELIHOOD, "levels": 9, "low": -1.0, "high": 1.0}),
        "dequantize": (ss.dequantize, {
            "x": ON, "levels": 3, "low": -1.0, "high": 1.0, "seed": 0, "first_index": 0}),
        "quantize": (ss.quantize, {"x": X, "levels": 3, "low": -1.0, "high": 1.0}),
        "interpolate": (ss.interpolate, {"a": X, "b": X + 1, "shares": 3, "way": "slerp"}),
        "check_score": (ss.check_score, {
            "model": GAUSS, "data": SEVERAL, "against": None, "one_step": False, "seed": 0, "dtype": None,
            "device": None, "batch_size": 8}),
        "residuals": (ss.residuals, {
            "model": GAUSS, "data": SEVERAL, "levels": [1.0], "probes": 2, "step": 0.1, "derivatives": True,
            "seed": 0, "dtype": None, "device": None, "batch_size": 8}),
        "compare": (ss.compare, {
            "model": GAUSS, "solvers": ["ddim"], "budgets": [3], "grids": ["rho"], "tolerances": [0.1],
            "metrics": ["energy"], "data": X, "features": None, "samples": 4, "seed": 0,
            "reference_tolerance": 0.1, "file": None, "workers": None, "progress": False}),
        "suggest": (ss.suggest, {"model": GAUSS, "budget": 5}),
        "tune": (ss.tune, {
            "model": GAUSS, "budget": 3, "solvers": ["ddim"], "grids": ["rho"], "metric": "energy", "data": X,
            "samples": 4, "seed": 0, "held_out": 4, "learned": False, "stochastic": False,
            "reference_tolerance": 0.1, "file": None, "workers": None, "progress": False}),
        "weighted_sample": (ss.weighted_sample, {
            "models": [GAUSS, GAUSS], "exponents": [1.0, 1.0], "count": 4, "shape": (2,), "steps": 40,
            "grid": "log_snr", "seed": 0, "threshold": 0.5, "t_min": 0.01, "progress": False}),
        "twisted_sample": (ss.twisted_sample, {
            "model": GAUSS, "log_prob": likely, "count": 4, "shape": (2,), "steps": 3, "grid": "log_snr",
            "seed": 0, "threshold": 0.5, "t_min": 0.01, "progress": False, "target": 0.5}),
        "fit_null": (ss.fit_null, {"model": NETWORK, "path": WAY}),
        "fit_noise": (fit_noise, {
            "noise": ss.VariationalNoise(Shift()), "model": GAUSS, "data": ON, "levels": 3,
            "low": -1.0, "high": 1.0, "steps": 1, "batch": 2, "lr": 0.01, "seed": 0}),
        "fine_tune": (ss.fine_tune, {
            "model": ANCHORED, "reward": lambda x: x[:, 0], "updates": 1, "batch_size": 2, "solver": "ddim",
            "steps": 2, "grid": "rho", "last": 1, "grad": "checkpoint", "anchor": 1.0, "lr": 0.01,
            "average": 0.5, "seed": 0, "checkpoint": None, "every": 1}),
        "fine_tune, data": (ss.fine_tune, {
            "model": ANCHORED, "data": X, "updates": 1, "batch_size": 2, "solver": "ddim", "steps": 2}),
        "VariationalNoise": (ss.VariationalNoise, {"network": lambda x: (0 * x, 0 * x)}),
        "load": (ss.load, {"name": "digits", "device": None, "dtype": None}),
        "load_classifier": (ss.load_classifier, {"name": "digits", "device": None}),
        "load_solution": (ss.load_solution, {"file": "never.npz"}),
        "save_solution": (ss.save_solution, {"file": "never.npz", "solution": SOLUTION}),
        "resume": (ss.resume, {
            "model": GAUSS, "solution": STOPPED, "batch_size": 2, "max_calls": 9, "on_failure": "partial",
            "progress": False, "callback": None}),
        "load_latents": (ss.load_latents, {"file": "never.npz"}),
        "save_latents": (ss.save_latents, {"file": "never.npz", "z": SOLUTION}),
        "save": (ss.save, {"model": DIGITS, "file": "never", "card": None, "dtype": None}),
        "save_classifier": (ss.save_classifier, {
            "classifier": SEES, "file": "never", "card": SEES.card, "dtype": None}),
        "Plan": (ss.Plan, {"options": {"solver": "ddim", "steps": 3}}),
        "Plan.load": (ss.Plan.load, {"file": "never.json"}),
        "Comparison.best": (COMPARISON.best, {"budget": 5, "metric": "error"}),
        "Comparison.best, error": (COMPARISON.best, {"error": 10.0}),
        "Comparison.points": (COMPARISON.points, {"metric": None}),
        "Comparison.front": (COMPARISON.front, {"metric": None}),
        "ScoreCheck.plot": (ss.check_score(GAUSS, SEVERAL).plot, {"file": "never.png"}),
        "Residuals.plot": (ss.residuals(TABLE, SEVERAL, levels=[1.0]).plot, {"file": "never.png"}),
        "Comparison.plot": (COMPARISON.plot, {"file": "never.png", "metric": None}),
        "Comparison.save": (COMPARISON.save, {"file": "never.json"}),
        "Comparison.load": (ss.Comparison.load, {"file": "never.json"}),
        "Weighted.mean": (
            ss.weighted_sample([GAUSS], [1.0], 4, steps=2).mean, {"function": lambda x: x[:, 0]}),
    }  # fmt: skip


def of_guidances() -> dict[str, Call]:
    G = guidance
    inverse = {"model": GAUSS, "operator": operator, "y": torch.zeros(1, 1), "max_level": 1.0}
    return {
        "classifier_free": (ss.classifier_free, {
            "model": NETWORK, "scale": 2.0, "interval": (0.1, 1.0), "negative": None, "label": 1}),
        "adaptive_projected": (G.adaptive_projected, {
            "model": NETWORK, "other": NETWORK, "scale": 2.0, "parallel": 0.0, "norm": 1.0}),
        "autoguidance": (G.autoguidance, {"model": NETWORK, "weak": NETWORK, "scale": 2.0}),
        "classifier": (G.classifier, {"model": GAUSS, "log_prob": log_prob, "scale": 1.0, "label": 1}),
        "experts": (G.experts, {"models": [GAUSS, GAUSS], "levels": [1.0]}),
        "feedback": (G.feedback, {"model": NETWORK, "log_ratio": ratio, "share": 0.5, "limit": 10.0, "label": 1}),
        "joined": (G.joined, {"operators": [operator], "ys": [torch.zeros(1, 1)], "noises": [1.0]}),
        "mixture": (G.mixture, {"models": [GAUSS, GAUSS], "log_weights": lambda x, t: torch.zeros(len(x), 2)}),
        "moment_matching": (G.moment_matching, {**inverse, "noise": 0.1, "iterations": 2}),
        "optimised": (G.optimised, {"model": GAUSS, "loss": loss, "rate": 0.1, "iterations": 2, "target": 1.0}),
        "plus_plus": (G.plus_plus, {"model": NETWORK, "scale": 0.5, "times": [80.0, 1.0, 0.1], "label": 1}),
        "posterior_sampling": (G.posterior_sampling, {**inverse, "strength": 1.0}),
        "product": (G.product, {"model": GAUSS, "parts": [GAUSS, GAUSS], "weights": [1.0, 1.0]}),
        "pseudoinverse": (G.pseudoinverse, {**inverse, "noise": 0.1, "iterations": 2}),
        "replacement": (G.replacement, {
            "model": GAUSS, "operator": operator, "y": torch.zeros(1, 1), "iterations": 2}),
        "rescaled": (G.rescaled, {"guided": NETWORK, "model": NETWORK, "share": 0.5}),
        "thresholded": (G.thresholded, {"model": GAUSS, "limit": 1.0, "quantile": 0.9}),
        "universal": (G.universal, {"model": GAUSS, "loss": loss, "scale": 1.0, "max_level": 1.0, "target": 1.0}),
        "within": (G.within, {"guided": NETWORK, "model": NETWORK, "interval": (0.1, 1.0)}),
        "zero_star": (G.zero_star, {"model": NETWORK, "other": NETWORK, "scale": 2.0}),
    }  # fmt: skip


def of_losses() -> dict[str, Call]:
    L = losses.levels
    given = {"x": X, "log_snr": torch.zeros(4), "z": X}
    known = {"model": GAUSS, **given}
    level = {"process": PROCESS, "log_snr": [0.0, 1.0]}
    found: dict[str, Call] = {
        "denoising": (losses.denoising, {"model": NETWORK, **given, "weight": "min_snr:5", "label": 1}),
        "implicit_score": (losses.implicit_score, {**known, "weight": "noise"}),
        "sliced_score": (losses.sliced_score, {
            **known, "probes": 2, "reduced": True, "weight": "noise", "seed": 0}),
        "martingale": (losses.martingale, {**known, "step": 0.1, "draws": 2, "seed": 0}),
        "flow_consistency": (losses.flow_consistency, {**known, "probes": 2, "seed": 0}),
        "fokker_planck": (losses.fokker_planck, {**known, "probes": 2, "seed": 0}),
        "discrete_elbo": (losses.discrete_elbo, {**known, "steps": 10}),
        "continuous_elbo": (losses.continuous_elbo, {**known, "levels": L.LogUniform()}),
        "interpolant": (losses.interpolant, {**known, "gamma": 1.0, "target": "velocity", "seed": 0}),
        "self_conditioned": (losses.self_conditioned, {"loss": losses.denoising, "share": 0.5}),
        "Uncertainty": (losses.Uncertainty, {"loss": losses.denoising, "features": 4, "seed": 0}),
        "pair": (losses.pair, {"x": X, "z": X.flip(0), "groups": [0, 1, 0, 1]}),
        "reflow_pairs": (losses.reflow_pairs, {
            "model": NETWORK, "shape": (4, 2), "solver": "ddim", "steps": 2, "batch_size": 2, "seed": 0,
            "first_index": 0, "progress": False, "label": 1}),
        "LogNormal": (L.LogNormal, {"mean": 0.0, "std": 1.0}),
        "LogUniform": (L.LogUniform, {"sigma_min": 0.1, "sigma_max": 1.0}),
        "TimeLogitNormal": (L.TimeLogitNormal, {"mean": 0.0, "std": 1.0}),
        "Between": (L.Between, {"levels": L.LogUniform(), "interval": (0.1, 1.0)}),
        "Importance": (L.Importance, {"chances": [1.0, 2.0], "base": L.TimeUniform()}),
        "importance": (L.importance, {
            **level, "loss": [1.0, 2.0], "base": L.TimeUniform(), "bins": 2, "floor": 0.1}),
        "time_warp": (L.time_warp, {
            **level, "loss": [1.0, 2.0], "base": L.TimeUniform(), "bins": 2, "floor": 0.1}),
        "cross_entropy": (losses.cross_entropy, {
            "model": WORDS, "x": SYMBOLS, "log_snr": torch.zeros(4), "z": torch.zeros(4, 2, 3)}),
    }  # fmt: skip
    for law in (
        L.LogNormal(),
        L.LogUniform(),
        L.TimeUniform(),
        L.Between(L.LogUniform(), (0.1, 1.0)),
        L.Importance([1.0], L.TimeUniform()),
    ):
        name = type(law).__name__
        found[f"{name}.log_snr"] = (law.log_snr, {"process": PROCESS, "share": [0.2, 0.7]})
        found[f"{name}.share"] = (law.share, level)
        found[f"{name}.density"] = (law.density, level)
    return found


def of_symbols() -> dict[str, Call]:
    S = ss.symbols
    return {
        "Bits": (S.Bits, {"count": 5, "gray": True, "shape": (2,)}),
        "Embedding": (S.Embedding, {"count": 5, "width": 3, "seed": 0}),
        "Vectors": (S.Vectors, {"embedding": S.Embedding(5, 3), "shape": (2, 3)}),
        "EmbeddedScore": (S.EmbeddedScore, {
            "network": logits, "embedding": S.Embedding(5, 3), "process": PROCESS, "conditions": [],
            "shape": (2,), "evidence": True}),
        "probabilities": (S.probabilities, {
            "model": WORDS, "solution": ss.sample(WORDS, 2, steps=2, path=True)}),
        "symbols.elbo": (S.elbo, {
            "model": WORDS, "x": SYMBOLS, "nodes": 2, "draws": 2, "seed": 0, "seeds": None, "first_index": 0,
            "dtype": torch.float64, "device": "cpu", "batch_size": 2, "t_min": 0.01}),
    }  # fmt: skip


def of_jobs() -> dict[str, Call]:
    place = Path(tempfile.mkdtemp())
    job = {"workers": None, "shard_size": 2, "threads": torch.get_num_threads(), "progress": False}
    done = jobs.sample(GAUSS, 4, out=place / "done", shard_size=2, steps=2, progress=False)
    keyed = {**job, "seed": 0}
    return {
        "jobs.sample": (jobs.sample, {"model": GAUSS, "n": 4, "out": place / "a", **keyed}),
        "jobs.likelihood": (jobs.likelihood, {"model": GAUSS, "x": X, "out": place / "b", **keyed}),
        "jobs.encode": (jobs.encode, {"model": GAUSS, "x": X, "out": place / "c", **job}),
        "jobs.decode": (jobs.decode, {"model": GAUSS, "z": X, "out": place / "d", **keyed}),
        "jobs.edit": (jobs.edit, {
            "source": GAUSS, "target": GAUSS, "x": X, "out": place / "e", **keyed, "strength": 0.5,
            "method": "noise", "steps": 2}),
        "jobs.open": (jobs.open, {"out": place / "done"}),
        "Folder.shard": (done.shard, {"number": 0}),
        "Folder.tensor": (done.tensor, {"name": "x"}),
        "Folder.save_table": (done.save_table, {"file": place / "table.csv"}),
    }  # fmt: skip


def of_chains() -> dict[str, Call]:
    masks = chains.Absorbing(3)
    x, t = torch.tensor([[0, 1], [2, 0]]), torch.tensor([0.3, 0.6])
    model = chains.TableOracle(torch.eye(3) + 0.1, masks)
    run = {"seed": 0, "first_index": 0}
    network = chains.ChainModel(ss.networks.MLP(size=3), masks, "symbols")
    card = {"network": {"settings": {"size": 3}}}
    file = ss.save(network, Path(tempfile.mkdtemp()) / "chain", card)
    return {
        "Absorbing": (chains.Absorbing, {
            "vocabulary": 3, "schedule": ss.Cosine(), "t_min": 0.01, "t_max": 0.9}),
        "Uniform": (chains.Uniform, {"vocabulary": 3, "schedule": ss.Cosine(), "t_min": 0.01, "t_max": 0.9}),
        "Absorbing.perturb": (masks.perturb, {"x": x, "t": t, **run}),
        "Absorbing.prior_sample": (masks.prior_sample, {"shape": (2, 3), **run}),
        "ChainModel": (chains.ChainModel, {
            "network": lambda x, t: x, "chain": masks, "predicts": "symbols", "length": 2,
            "conditions": ["label"]}),
        "ChainModel.given": (model.given, {}),
        "ChainModel.rows": (model.rows, {"index": torch.tensor([0])}),
        "TableOracle": (chains.TableOracle, {"probabilities": torch.ones(3, 3), "chain": masks}),
        "TableOracle.log_prob": (model.log_prob, {"x": x}),
        "chains.sample": (chains.sample, {
            "model": model, "shape": (2, 2), "solver": "euler", "steps": 2, "grid": "t", "times": None,
            "corrections": 1, "correction_size": 0.1, "tolerance": None, "known": [0, 3], **run, "device": "cpu",
            "batch_size": 1, "max_calls": 9, "t_min": 0.1, "path": False, "progress": False}),
        "chains.sample, times": (chains.sample, {"model": model, "shape": 2, "times": [1.0, 0.5, 0.1]}),
        "chains.sample, tolerance": (chains.sample, {
            "model": model, "shape": 2, "solver": "first_hitting", "tolerance": 0.1}),
        "chains.elbo": (chains.elbo, {
            "model": model, "x": x, "steps": 2, "nodes": 1, "draws": 2, **run, "batch_size": 2}),
        "chains.log_likelihood": (chains.log_likelihood, {
            "model": model, "x": x, "draws": 2, **run, "batch_size": 2}),
        "load_chain": (ss.load_chain, {"name": file, "device": None, "dtype": None, "trust": False}),
        "chains.loss": (chains.loss, {"model": model, "x": x, "t": t, **run}),
        "stratified_times": (chains.stratified_times, {"chain": masks, "count": 3, "seed": 0}),
    }  # fmt: skip


def of_inference() -> dict[str, Call]:
    samples, several = SEVERAL.repeat(20, 1).reshape(10, 16, 2), SEVERAL.repeat(2, 1)[:10]
    calibration = inference.sbc(samples, several)
    given = {"model": NETWORK, "prior": GAUSS}
    return {
        "draw": (inference.draw, {
            "model": NETWORK, "count": 2, "low": -9.0, "high": 9.0, "max_draws": 10.0, "solver": "em", "steps": 2,
            "grid": "rho", "clock": "t", "eta": 0.5, "eta_convention": "canonical", "seed": 0, "dtype": None,
            "device": None, "batch_size": 4, "max_calls": 100, "progress": False, "t_min": 0.01,
            "label": [0, 1]}),
        "factors": (inference.factors, {**given, "label": [0, 1]}),
        "iid": (inference.iid, {
            **given, "covariances": torch.eye(2)[None] / 9, "draws": 8, "seed": 0, "at_once": 1, "label": [0, 1]}),
        "sbc": (inference.sbc, {"samples": samples, "parameters": several, "level": 0.05, "seed": 0}),
        "tarp": (inference.tarp, {
            "samples": samples, "parameters": several, "references": several + 1, "level": 0.05, "seed": 0}),
        "Calibration.plot": (calibration.plot, {"file": "never.png"}),
        "Coverage.plot": (inference.tarp(samples, several).plot, {"file": "never.png"}),
        "Draws.renormalised": (inference.draw(GAUSS, 4, low=-1.0, steps=3, seed=0).renormalised, {
            "likelihood": LIKELIHOOD, "x": X}),
    }  # fmt: skip


def of_training() -> dict[str, Call]:
    place = Path(tempfile.mkdtemp()) / "run"
    small = {"width": 8, "multipliers": [1], "blocks": 1}
    short = {"steps": 2, "batch_size": 4, "assessed": False, "settings": small}
    done = ss.train("UNet", IMAGES.repeat(8, 1, 1, 1), validation=0.25, out=place, **short)
    return {
        "train": (ss.train, {
            "model": "UNet", "data": IMAGES, "process": PROCESS, "predicts": "edm", **short, "loss": "denoising",
            "levels": None, "coupling": "independent", "learned": "score", "bins": None, "low": -9.0, "high": 9.0,
            "lr": 0.01, "warmup": 1, "schedule": "constant", "clip": 1.0, "ema": 0.1, "dropped": None,
            "null": None, "validation": 0, "patience": None, "every": 1, "snapshots": 1, "precision": "float32",
            "compile": False, "accelerate": False, "tensorboard": False, "out": None, "name": "model",
            "card": None, "seed": 0, "device": "cpu", "progress": False}),
        "training.reconstruct": (ss.training.reconstruct, {"folder": place, "width": 0.2, "trust": False}),
        "Trained.plot": (done.plot, {"file": "never.png"}),
    }  # fmt: skip


class Shrink(nn.Module):
    r"""A network that learns how far to shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.factor * x / (1 + t[:, None])


def of_distilling() -> dict[str, Call]:
    learner = ss.NetworkScore(Shrink(), PROCESS, "data", conditions=["label"], shape=(2,))
    shared = {
        "student": learner, "calls": 2, "steps": 1, "batch_size": 2, "lr": 0.01, "average": 0.9, "seed": 0,
        "checkpoint": None, "progress": False}  # fmt: skip
    taught = {"model": NETWORK, "data": X, **shared, "label": [0, 1, 0, 1]}
    drawn = {
        "model": NETWORK, "count": 2, "nodes": 2, "solver": "ddim", "seed": 0, "first_index": 0, "batch_size": 2,
        "progress": False, "label": [0, 1]}  # fmt: skip
    paths = distilling.trajectories(**drawn)
    return {
        "trajectories": (distilling.trajectories, drawn),
        "Trajectories.save": (paths.save, {"file": "never.safetensors"}),
        "Trajectories.load": (distilling.Trajectories.load, {"file": "never.safetensors"}),
        "flow_map": (distilling.flow_map, {"model": NETWORK, "paths": paths, **shared, "first": 0.5}),
        "consistency": (distilling.consistency, {
            **taught, "levels": 3, "solver": "ddim", "tolerance": 0.1}),
        "progressive": (distilling.progressive, {
            **taught, "rounds": 1, "grid": "tan", "tolerance": 0.1}),
    }  # fmt: skip


def of_pictures() -> dict[str, Call]:
    file = "never.png"
    band = torch.tensor([[0.25, 0.5, 0.75], [0.1, 0.3, 0.6], [0.4, 0.7, 0.9]])
    ranked = {"groups": {"a": torch.arange(4)}, "draws": 3, "band": band}
    return {
        "animate": (plots.animate, {
            "file": "never.gif", "path": torch.zeros(2, 4, 1, 4, 4), "columns": 2, "seconds": 1.0,
            "zoom": 1}),
        "before_after": (plots.before_after, {"file": file, "before": X, "after": X + 1, "columns": 2}),
        "samples": (plots.samples, {"file": file, "groups": {"a": X}, "across": 1}),
        "bars": (plots.bars, {"file": file, "values": {"a": 1.0}, "label": "x"}),
        "curves": (plots.curves, {"file": file, "lines": {"a": [(1.0, 2.0)]}, "x_label": "x", "y_label": "y"}),
        "plots.density": (plots.density, {
            "file": file, "model": GAUSS, "box": torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), "over": X, "side": 3}),
        "errors": (plots.errors, {"file": file, "lines": {"a": [(1.0, 2.0)]}}),
        "losses": (plots.losses, {"file": file, "lines": {"a": [(1.0, 2.0)]}}),
        "film": (plots.film, {"file": "never.png", "followed": FOLLOWED, "sample": 0, "columns": 2}),
        "geometry": (plots.geometry, {
            "file": file, "trajectory": FOLLOWED, "sample": 0, "step": 1, "dimensions": 2, "highest": 1.0,
            "density": None, "seconds": 1.0}),
        "paths": (plots.paths, {"file": file, "trajectory": FOLLOWED, "step": 1, "density": None, "seconds": 1.0}),
        "histogram": (plots.histogram, {"file": file, "groups": {"a": (X, "red")}, "label": "x", "bins": 4}),
        "images": (plots.images, {
            "file": file, "groups": {"a": IMAGES}, "columns": 2, "across": 1, "low": -1.0, "high": 1.0}),
        "ranks": (plots.ranks, {"file": file, **ranked}),
        "coverage": (plots.coverage, {"file": file, **ranked}),
        "scatter": (plots.scatter, {"file": file, "groups": {"a": X}, "behind": X, "across": 1}),
        "plots.spectrum": (plots.spectrum, {
            "file": file, "x": IMAGES, "levels": (0.1, 1.0), "followed": None, "seed": 0}),
        "plots.decided": (plots.decided, {
            "file": file, "found": spectra.decided(PICTURES, IMAGES, [0.1, 1.0])}),
        "tile": (plots.tile, {"x": IMAGES, "columns": 2, "gap": 0}),
        "trajectory": (plots.trajectory, {"file": file, "followed": FOLLOWED}),
        "work_precision": (plots.work_precision, {
            "file": file, "lines": {"a": [(1.0, 2.0, 0.1)]}, "front": [(1.0, 2.0)], "label": "x", "base": None}),
    }  # fmt: skip


def of_measures() -> dict[str, Call]:
    pair = {"x": X, "y": X + 0.1}
    six = {"x": torch.randn(8, 2), "y": torch.randn(8, 2)}
    fid, kid = metrics.fid(nn.Identity()), metrics.kid(nn.Identity())
    return {
        "energy_distance": (metrics.energy_distance, pair),
        "sliced_wasserstein": (metrics.sliced_wasserstein, {**pair, "projections": 4}),
        "c2st": (metrics.c2st, {**six, "trees": 2}),
        "fid": (metrics.fid, {"network": nn.Identity()}),
        "kid": (metrics.kid, {"network": nn.Identity()}),
        "fid, distance": (lambda x, y: fid(x, y), six),
        "kid, distance": (lambda x, y: kid(x, y), six),
        "metrics.get": (metrics.get, {"name": "energy", "features": None}),
        "with_error": (metrics.with_error, {"distance": metrics.energy_distance, **six}),
        "floor": (metrics.floor, {
            "data": X, "size": 2, "distance": metrics.energy_distance, "repeats": 2, "seed": 0}),
        "nearest": (metrics.nearest, {"x": X, "data": X}),
        "spectra.spectrum": (spectra.spectrum, {"x": IMAGES}),
        "hinge": (spectra.hinge, {"data": spectra.spectrum(IMAGES), "level": 1.0}),
        "power_law": (spectra.power_law, {"data": spectra.spectrum(IMAGES)}),
        "decided": (spectra.decided, {
            "model": PICTURES, "x": IMAGES, "levels": [1.0], "seed": 0, "dtype": None, "device": None,
            "batch_size": 2}),
        "coarse_to_fine": (spectra.coarse_to_fine, {"trajectory": FOLLOWED}),
        "follow": (geometry.follow, {"model": GAUSS, "shape": (2, 2), "parts": None, "steps": 2}),
        "high_dimensions": (geometry.high_dimensions, {"trajectory": FOLLOWED, "draws": 8, "seed": 0}),
        "measure": (geometry.measure, {"trajectory": FOLLOWED}),
    }  # fmt: skip


def of_latents() -> dict[str, Call]:
    return {
        "along": (editing.along, {"latents": X, "count": 3, "way": "slerp"}),
        "direction": (editing.direction, {"source": X, "target": X + 1}),
        "frames": (editing.frames, {"model": GAUSS, "e": ss.sample(GAUSS, 2, steps=2, path=True)}),
        "grid": (editing.grid, {"corners": X, "rows": 2, "columns": 2}),
        "move": (editing.move, {
            "latents": X, "direction": X[1], "amounts": torch.ones(1), "keep_norm": True}),
        "principal_directions": (editing.principal_directions, {"latents": X, "count": 1}),
        "weighted": (editing.weighted, {"latents": X, "weights": torch.ones(1, 4)}),
    }  # fmt: skip


def fit_autoencoder(autoencoder: Any, **others: Any) -> Any:
    r"""The fit of a copy."""

    fresh = copy.deepcopy(autoencoder) if isinstance(autoencoder, nn.Module) else autoencoder
    return autoencoders.fit_autoencoder(fresh, **others)


CODED = ss.GaussianOracle(torch.zeros(1, 2, 2), 0.5)
CODED.transform = ss.Latent(ss.networks.VAE(latent=1, size=4, width=8))
LAYERED = ss.NetworkScore(nn.Sequential(nn.Identity()), PROCESS, "data", shape=(2,))
LAYERED.network.forward = lambda x, t: LAYERED.network[0](x)


def of_autoencoders() -> dict[str, Call]:
    A, vae, vqvae = autoencoders, CODED.transform.autoencoder, ss.networks.VQVAE(size=4, width=8)
    seen = {
        "model": LAYERED,
        "x": SEVERAL,
        "pool": "mean",
        "noise": True,
        "seed": 0,
        "batch_size": 4,
    }
    known = A.Probe((0.1,), ("0",), torch.tensor([[0.9]]), 10, 0.5)
    return {
        "Latent": (ss.Latent, {
            "autoencoder": vae, "data_shape": (1, 4, 4), "mean": 0.0, "std": 1.0, "shape": (1, 2, 2)}),
        "Latent of": (ss.Latent.of, {"autoencoder": vae, "data": IMAGES, "batch_size": 2}),
        "representation": (ss.representation, {**seen, "noise_level": 0.1, "layer": "0", "first_index": 0}),
        "layers": (A.layers, {"model": LAYERED}),
        "linear_probe": (A.linear_probe, {
            **seen, "classes": [0, 1] * 4, "levels": [0.1], "layer": ["0"], "held_out": 0.5, "penalty": 1.0}),
        "Probe.plot": (known.plot, {"file": "never.png"}),
        "pixel_elbo": (A.pixel_elbo, {
            "model": CODED, "x": IMAGES, "draws": 1, "by": "elbo", "seed": 0, "first_index": 0,
            "options": {"nodes": 1}}),
        "variational_loss": (A.variational_loss, {
            "autoencoder": vae, "x": IMAGES, "weight": 1.0, "seed": 0, "first_index": 0}),
        "quantization_loss": (A.quantization_loss, {"autoencoder": vqvae, "x": IMAGES, "commitment": 0.25}),
        "fit_autoencoder": (fit_autoencoder, {
            "autoencoder": ss.networks.VAE(size=4, width=8), "data": IMAGES, "loss": None, "levels": None,
            "steps": 1, "batch_size": 2, "lr": 1e-3, "seed": 0, "progress": False}),
    }  # fmt: skip


def of_solvers() -> dict[str, Call]:
    return {
        "solvers.get": (solvers.get, {"solver": "heun"}),
        "solve": (solvers.solve, {
            "problem": FIELD, "x": X, "times": torch.tensor([0.0, 1.0]), "solver": "heun", "seed": 0,
            "path": False, "callback": None, "pause": 0.0, "max_calls": None, "max_steps": 100,
            "on_failure": "raise", "grad": "none", "parameters": (), "companion": None, "seam": None,
            "noise": None}),
        "solve, tolerances": (solvers.solve, {
            "problem": FIELD, "x": X, "times": [0.0, 1.0], "solver": "dopri5", "rtol": 0.1, "atol": 0.1,
            "max_step": 1.0, "first_step": 0.1}),
        "steps": (lambda **given: list(solvers.steps(**given)), {
            "problem": FIELD, "x": X, "times": [0.0, 1.0], "solver": "rk4", "seed": 0, "path": False,
            "max_calls": 99, "max_steps": 100, "on_failure": "raise", "grad": "none", "companion": None,
            "seam": None, "noise": None}),
        "Controller": (solvers.Controller, {
            "rtol": 0.1, "atol": 0.1, "max_steps": 100, "max_step": 1.0, "first_step": 0.1}),
        "Solution.rows": (SOLUTION.rows, {"index": [0, 1]}),
        "Solution.stack": (solvers.Solution.stack, {"parts": [SOLUTION]}),
        "ODE": (solvers.ODE, {"drift": lambda t, x: -x}),
        "SDE": (solvers.SDE, {"drift": lambda t, x: -x, "diffusion": lambda t: t}),
    }  # fmt: skip


class Standin(nn.Module):
    r"""A network or denoiser with the attributes by which other libraries say what theirs are."""

    img_channels, img_resolution, label_dim, sigma_min, sigma_max = 1, 4, 0, 0.0, 80.0
    self_condition, objective, channels, image_size = False, "pred_v", 1, (4, 4)
    alphas_cumprod = torch.linspace(0.999, 0.01, 20)
    config = {"in_channels": 1, "sample_size": 4, "prediction_type": "v_prediction"}
    betas, model_mean_type = torch.linspace(1e-4, 0.2, 20), SimpleNamespace(name="EPSILON")
    input_shape, t_min, t_max = (2,), 1e-3, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0 * x

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - 0.99 * t, 0.01 + 0.99 * t

    def mean_t_fn(self, t: Tensor) -> Tensor:
        return torch.exp(-5 * t)

    def std_fn(self, t: Tensor) -> Tensor:
        return (1 - torch.exp(-10 * t)).sqrt()

    def score(self, input: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        return -input


class Unet(Standin):
    r"""The same, called as networks of diffusers are."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return 0 * sample


class Ends(nn.Module):
    r"""An autoencoder that changes nothing."""

    def decode(self, z: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=z)


STANDIN = Standin()
LATENT = ss.NetworkScore(nn.Identity(), PROCESS, "data", shape=(1, 4, 4))
LATENT.autoencoder = ss.adapters.Autoencoder(Ends())
VPSDE = type("VPSDE", (), {"beta_0": 0.1, "beta_1": 20.0, "N": 1000})()


def of_sources() -> dict[str, Call]:
    shape = {"shape": (1, 4, 4)}
    found: dict[str, Call] = {
        "Tabulated": (ss.Tabulated, {"log_snr": [3.0, 0.0, -3.0]}),
        "Tabulated.from_betas": (ss.Tabulated.from_betas, {"betas": [0.01, 0.1, 0.9]}),
        "Tabulated.from_alphas_cumprod": (ss.Tabulated.from_alphas_cumprod, {"alphas_cumprod": [0.9, 0.1]}),
        "Tabulated.from_sigmas": (ss.Tabulated.from_sigmas, {"sigmas": [0.01, 1.0, 50.0]}),
        "Rescheduled": (ss.Rescheduled, {"model": GAUSS, "process": ss.VP()}),
        "Label": (ss.Label, {"of": "t", "factor": 999.0, "offset": 1.0}),
        "from_callable": (ss.from_callable, {
            "network": lambda x, t: x, "process": PROCESS, "predicts": "data", "label": 999, "order": "x, t",
            "factor": 1.0, "constants": {}, "null": {}, "conditions": [], "shape": (2,), "data_std": 1.0}),
        "from_edm": (ss.from_edm, {"network": STANDIN}),
        "from_k_diffusion": (ss.from_k_diffusion, {
            "denoiser": lambda x, sigma: x, "sigma_min": 0.01, "sigma_max": 50.0, "conditions": [], **shape}),
        "from_score_sde": (ss.from_score_sde, {"network": STANDIN, "sde": VPSDE, **shape}),
        "from_guided_diffusion": (ss.from_guided_diffusion, {"network": STANDIN, "diffusion": STANDIN, **shape}),
        "from_flow": (ss.from_flow, {
            "network": lambda x, t: x, "order": "x, t", "data_at": 1, "conditions": [], "shape": (2,)}),
        "from_azula": (ss.from_azula, {"denoiser": STANDIN, "conditions": [], **shape}),
        "from_lucidrains": (ss.from_lucidrains, {"diffusion": STANDIN, "clip": True}),
        "from_sbi": (ss.from_sbi, {"estimator": STANDIN, "shape": (2,)}),
        "from_diffusers": (ss.from_diffusers, {
            "source": Unet(), "scheduler": STANDIN, "conditions": [], "constants": {}, "null": {}, "clip": True,
            **shape}),
        "register_network": (ss.register_network, {"constructor": nn.Linear}),
        "pictures": (ss.pictures, {"model": LATENT, "latents": torch.zeros(1, 1, 4, 4)}),
    }  # fmt: skip
    return found


CALLS: dict[str, Call] = {
    **of_processes(), **of_models(), **of_verbs(), **of_guidances(), **of_inference(), **of_losses(), **of_jobs(),
    **of_symbols(), **of_training(), **of_distilling(), **of_chains(),
    **of_pictures(), **of_measures(), **of_latents(), **of_autoencoders(), **of_solvers(), **of_sources(),
}  # fmt: skip


def odd_things() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.randn(2), torch.randn(3)])
        csr = X.to_sparse_csr()
        quantised = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
    masked: Any = np.ma.masked_array(X.numpy(), X.numpy() > 0.4)
    return {
        "None": None, "text": "a", "an imaginary number": 1j, "NaN": float("nan"), "inf": float("inf"), "-1": -1,
        "0": 0, "2**70": 2**70, "10**9": 10**9, "an object": object(), "no entries": [], "a dictionary": {},
        "a bool": True, "a tensor": torch.tensor(1.0), "sparse": X.to_sparse(), "CSR": csr, "nested": nested,
        "meta": X.to("meta"), "a number on meta": torch.tensor(1.0, device="meta"), "quantised": quantised,
        "complex": X.to(torch.complex64), "bools": X > 0, "empty": torch.empty(0, 2),
        "a sparse number": torch.tensor(1.0).to_sparse(), "NaNs": torch.full((4, 2), torch.nan),
        "masked": masked, "objects": np.array([None, 1], dtype=object), "cuda:9": "cuda:9", "mps": "mps",
        "an array": np.array(1.0), "a function": lambda *a, **k: None, "path": Path("never"),
    }  # fmt: skip


ODD = odd_things()
