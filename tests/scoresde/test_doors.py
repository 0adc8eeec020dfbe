r"""What cannot be data gets one sentence of ours, which names the argument, from every public function."""

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde import editing, guidance, metrics, plots
from scoresde.geometry import spectra
from scoresde.guidance.noisy_classifier import Classifier

P = ss.EDM()
M = ss.NetworkScore(lambda x, t, label=None: 0.1 * x, P, "data", conditions=["label"], shape=(2,))
G = ss.GaussianOracle(torch.zeros(2), 0.5)
Q = ss.QuantileOracle(torch.zeros(2, 1), torch.ones(2, 1))
I = ss.NetworkScore(lambda x, t: 0.1 * x, P, "data", shape=(1, 4, 4))
C = Classifier(torch.nn.Flatten(), P, data_std=1.0, levels=(0.1, 1.0))
X, T2 = torch.randn(4, 2), torch.ones(4)
PICTURE = Path("never.png")


def bad_data() -> dict[str, Callable[[], Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.randn(2), torch.randn(3)])
    return {
        "None": lambda: None,
        "text": lambda: "data",
        "a dictionary": lambda: {"x": X},
        "texts": lambda: [["a", "b"]],
        "objects": lambda: np.array([[None, 1]], dtype=object),
        "lists that differ": lambda: [[0.0, 1.0], [0.0]],
        "no dimension": lambda: torch.tensor(0.5),
        "an empty batch": lambda: torch.empty(0, 2),
        "sparse": lambda: X.to_sparse(),
        "nested": lambda: nested,
        "on meta": lambda: X.to("meta"),
        "quantised": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
        "float8": lambda: X.to(torch.float8_e4m3fn),
        "complex": lambda: X.to(torch.complex64),
        "NaN": lambda: torch.full((4, 2), torch.nan),
    }  # fmt: skip


BAD = bad_data()
ONE_NUMBER = ("no dimension",)  # a number may stand for all rows
CONDITION = (*ONE_NUMBER, "a dictionary")  # of tensors, for a network that takes one
NONE_OR_ONE = ("no dimension", "an empty batch")  # times of no grid, or of one
NO_VALUES = ("NaN",)  # where nothing is computed yet, or values are the network's


def loss(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)


def operator(x: Tensor) -> Tensor:
    return x


# what is called; the argument that its errors name; what it may take
SUBJECTS: dict[str, tuple[Callable[[Any], object], str, tuple[str, ...]]] = {
    "GaussianOracle": (lambda d: ss.GaussianOracle(d, 0.5), "mean", ()),
    "GaussianOracle, covariance": (lambda d: ss.GaussianOracle(torch.zeros(2), d), "covariance", ONE_NUMBER),
    "MixtureOracle": (lambda d: ss.MixtureOracle(d, 0.5), "means", ()),
    "MixtureOracle, covariances": (lambda d: ss.MixtureOracle(X, d), "covariances", ONE_NUMBER),
    "MixtureOracle, weights": (lambda d: ss.MixtureOracle(X, 0.5, d), "weights", ("None",)),
    "KernelOracle": (lambda d: ss.KernelOracle(d, 0.1), "data", ()),
    "KernelOracle, labels": (lambda d: ss.KernelOracle(X, 0.1, labels=d), "labels", ("None",)),
    "QuantileOracle": (lambda d: ss.QuantileOracle(d, X), "means", ()),
    "QuantileOracle, stds": (lambda d: ss.QuantileOracle(X, d), "stds", ()),
    "QuantileOracle, weights": (lambda d: ss.QuantileOracle(X, X.abs() + 1, d), "weights", ("None",)),
    "QuantileOracle, rotation": (
        lambda d: ss.QuantileOracle(X, X.abs() + 1, None, d), "rotation", ("None",)),
    "QuantileOracle.flow": (lambda d: Q.flow(d, 1.0, 0.1), "x", ()),
    "GaussianOracle.flow": (lambda d: G.flow(d, 1.0, 0.1), "x", ()),
    "log_prob": (lambda d: G.log_prob(d, torch.tensor(1.0)), "x", ()),
    "log_prob, t": (lambda d: G.log_prob(X, d), "t", ONE_NUMBER),
    "log_density": (lambda d: G.log_density(d, 0.01), "x", ()),
    "scales": (lambda d: P.scales(d), "t", NONE_OR_ONE),
    "log_snr": (lambda d: P.log_snr(d), "t", NONE_OR_ONE),
    "time": (lambda d: P.time(d), "log_snr", NONE_OR_ONE),
    "a schedule": (lambda d: ss.Cosine()(d), "t", NONE_OR_ONE),
    "moments": (lambda d: ss.moments(d), "data", ()),
    "moments, basis": (lambda d: ss.moments(X, "diagonal", basis=d), "basis", ("None",)),
    "Moments": (lambda d: ss.Moments(d, None, torch.ones(2)), "mean", ()),
    "Moments, variances": (lambda d: ss.Moments(torch.zeros(2), None, d), "variances", ()),
    "sample, times": (lambda d: ss.sample(G, 4, times=d), "times", ("None",)),
    "sample, noise": (lambda d: ss.sample(G, 4, solver="em", noise=d), "noise", ("None",)),
    "sample, a condition": (lambda d: ss.sample(M, 4, steps=1, label=d), "label", CONDITION),
    "given": (lambda d: M.given(label=d), "label", CONDITION),
    "decode": (lambda d: ss.decode(G, d), "z", ()),
    "encode": (lambda d: ss.encode(G, d), "x", ()),
    "encode_noise": (lambda d: ss.encode_noise(G, d), "x", ()),
    "reconstruct": (lambda d: ss.reconstruct(G, d), "x", ()),
    **{
        f"edit by {method}": (
            lambda d, method=method: ss.edit(G, G, d, method=method, noise_level=1.0), "x", ())
        for method in ("encode", "noise", "noise_path", "flow")
    },
    "edit by null": (lambda d: ss.edit(M, M, d, method="null", noise_level=1.0, pivot=M), "x", ()),
    "inpaint": (lambda d: ss.inpaint(G, d, torch.ones(2)), "x", ()),
    "inpaint, known": (lambda d: ss.inpaint(G, X, d), "known", ()),
    "latent_statistics": (lambda d: ss.latent_statistics(G, d), "z", ()),
    "log_likelihood": (lambda d: ss.log_likelihood(G, d), "x", ()),
    "discrete_log_likelihood": (lambda d: ss.discrete_log_likelihood(G, d, levels=2), "x", ()),
    "elbo": (lambda d: ss.elbo(G, d), "x", ()),
    "path_density": (lambda d: ss.path_density(G, d), "x", ()),
    "views": (lambda d: ss.views(G, d), "x", ()),
    "classify": (lambda d: ss.classify(M, d, [0, 1]), "x", ()),
    "classify, classes": (lambda d: ss.classify(M, X, d), "classes", ()),
    "classify, prior": (lambda d: ss.classify(M, X, [0, 1], prior=d), "prior", ("None",)),
    "dequantize": (lambda d: ss.dequantize(d, levels=2), "x", ()),
    "quantize": (lambda d: ss.quantize(d, levels=2), "x", ("no dimension", "an empty batch")),
    "compare": (lambda d: ss.compare(G, ["ddim"], [4], data=d, progress=False), "data", ("None",)),
    "tune": (lambda d: ss.tune(G, 4, metric="energy", data=d, progress=False), "data", ()),
    "classifier_free": (lambda d: ss.classifier_free(M, 2.0, label=d), "label", CONDITION),
    "classifier_free, scale": (lambda d: ss.classifier_free(M, d, label=1), "scale", ONE_NUMBER),
    "classifier_free, negative": (
        lambda d: ss.classifier_free(M, 2.0, negative=d, label=1), "negative", ("None", "a dictionary")),
    "interpolate": (lambda d: ss.interpolate(d, X, 3), "a", ()),
    "interpolate, b": (lambda d: ss.interpolate(X, d, 3), "b", ()),
    "interpolate, shares": (lambda d: ss.interpolate(X, X + 1, d), "shares", ()),
    "along": (lambda d: editing.along(d, 3), "latents", ()),
    "direction": (lambda d: editing.direction(d, X), "source", ()),
    "direction, target": (lambda d: editing.direction(X, d), "target", ()),
    "grid": (lambda d: editing.grid(d, 2, 2), "corners", ()),
    "move": (lambda d: editing.move(d, X[0], torch.ones(1)), "latents", ()),
    "move, direction": (lambda d: editing.move(X, d, torch.ones(1)), "direction", ()),
    "move, amounts": (lambda d: editing.move(X, X[0], d), "amounts", ONE_NUMBER),
    "principal_directions": (lambda d: editing.principal_directions(d, 1), "latents", ()),
    "weighted": (lambda d: editing.weighted(d, torch.ones(1, 4)), "latents", ()),
    "weighted, weights": (lambda d: editing.weighted(X, d), "weights", ()),
    **{
        name: (lambda d, make=make: make(G, operator, d), "y", ())
        for name, make in {
            "posterior_sampling": guidance.posterior_sampling,
            "pseudoinverse": guidance.pseudoinverse,
            "moment_matching": lambda m, A, y: guidance.moment_matching(m, A, y, noise=1.0),
            "replacement": guidance.replacement,
        }.items()
    },
    "joined": (lambda d: guidance.joined([operator], [d], [1.0]), "ys", ()),
    "universal": (lambda d: guidance.universal(G, loss, y=d), "y", ONE_NUMBER),
    "optimised": (lambda d: guidance.optimised(G, loss, 0.1, y=d), "y", ONE_NUMBER),
    "classifier": (lambda d: guidance.classifier(G, lambda x, t, y: x.sum(1), y=d), "y", ONE_NUMBER),
    "plus_plus": (lambda d: guidance.plus_plus(M, 0.5, d, label=1), "times", ("None",)),
    "plus_plus, a condition": (
        lambda d: guidance.plus_plus(M, 0.5, torch.tensor([1.0, 0.5]), label=d), "label", CONDITION),
    "experts, levels": (lambda d: guidance.experts([G, G], d), "levels", ()),
    "product, weights": (lambda d: guidance.product(G, [G, G], d), "weights", ("None", "lists that differ")),
    "energy_distance": (lambda d: metrics.energy_distance(d, X), "x", ()),
    "energy_distance, y": (lambda d: metrics.energy_distance(X, d), "y", ()),
    "sliced_wasserstein": (lambda d: metrics.sliced_wasserstein(d, X), "x", ()),
    "c2st": (lambda d: metrics.c2st(X, d), "y", ()),
    "fid": (lambda d: metrics.fid(torch.nn.Identity())(d, X), "x", ()),
    "kid": (lambda d: metrics.kid(torch.nn.Identity())(X, d), "y", ()),
    "with_error": (lambda d: metrics.with_error(metrics.energy_distance, d, X), "x", ()),
    "floor": (lambda d: metrics.floor(d, 2, repeats=2), "data", ()),
    "nearest": (lambda d: metrics.nearest(d, X), "x", ()),
    "nearest, data": (lambda d: metrics.nearest(X, d), "data", ()),
    "spectrum": (lambda d: spectra.spectrum(d), "x", ()),
    "plots.tile": (lambda d: plots.tile(d), "x", ()),
    "plots.images": (lambda d: plots.images(PICTURE, {"a": d}), "a", ()),
    "plots.spectrum": (lambda d: plots.spectrum(PICTURE, d), "x", ()),
    "plots.histogram": (lambda d: plots.histogram(PICTURE, {"a": (d, "red")}, "x"), "a", ONE_NUMBER),
    "plots.animate": (lambda d: plots.animate(Path("never.gif"), d), "path", ()),
    "losses.denoising": (lambda d: ss.losses.denoising(M, d, torch.zeros(4), X), "x", NO_VALUES),
    "losses.denoising, z": (lambda d: ss.losses.denoising(M, X, torch.zeros(4), d), "z", NO_VALUES),
    "losses.denoising, log_snr": (lambda d: ss.losses.denoising(M, X, d, X), "log_snr", ONE_NUMBER),
    "perturb": (lambda d: P.perturb(d, torch.tensor(1.0), X), "x", NO_VALUES),
    "perturb, z": (lambda d: P.perturb(X, torch.tensor(1.0), d), "z", NO_VALUES),
    "perturb, t": (lambda d: P.perturb(X, d, X), "t", ONE_NUMBER),
    "prior_log_prob": (lambda d: P.prior_log_prob(d), "z", NO_VALUES),
    **{
        f"{name} of a network": (lambda d, name=name: getattr(M, name)(d, T2), "x", NO_VALUES)
        for name in ("denoise", "noise", "score", "velocity")
    },
    "denoise of an oracle": (lambda d: G.denoise(d, T2), "x", NO_VALUES),
    "denoise, t": (lambda d: M.denoise(X, d), "t", ONE_NUMBER),
    "Classifier.log_prob": (lambda d: C.log_prob(d, T2, label=torch.zeros(4).long()), "x", NO_VALUES),
    "solve": (lambda d: solvers.solve(solvers.ODE(lambda t, x: -x), d, torch.tensor([0.0, 1.0]), "rk4"), "x",
              ("complex",)),
    "solve, times": (lambda d: solvers.solve(solvers.ODE(lambda t, x: -x), X, d, "rk4"), "times", ()),
    "Solution.rows": (lambda d: ss.sample(G, 4, steps=1).rows(d), "rows", ()),
}  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_no_data_gets_a_sentence_that_names_the_argument(subject: str) -> None:
    call, name, taken = SUBJECTS[subject]
    wrong = []
    for kind, make in BAD.items():
        if kind in taken:
            continue
        try:
            call(make())
        except (ValueError, TypeError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1].filename
            words = str(error)
            ours = any(f"/{package}/" in last for package in ("scoresde", "solvers"))
            if (
                not ours
                or name not in words.replace("=", " ").replace("'", " ").replace(",", " ").split()
            ):
                wrong.append(
                    f"{kind}: {type(error).__name__} {words.splitlines()[0][:110]} ({last[-30:]})"
                )
        except Exception as error:
            wrong.append(f"{kind}: {type(error).__name__} {str(error).splitlines()[0][:110]}")
        else:
            wrong.append(f"{kind}: taken")
    assert not wrong, "\n".join(wrong)
