r"""Importing needs no extra and little time; the contract's names are there."""

import subprocess
import sys

import scoresde as ss

EXTRAS = (
    "matplotlib",
    "rich",
    "typer",
    "sklearn",
    "torchmetrics",
    "ot",
    "jinja2",
    "torchdiffeq",
    "torchsde",
    "scipy",
    "PIL",
)
CONTRACT = """VP LinearBeta Cosine SubVP VE Geometric EDM Interpolant reverse_sde probability_flow NetworkScore
    load classifier_free sample encode decode reconstruct edit log_likelihood bits_per_dim dequantize
    GaussianOracle MixtureOracle KernelOracle QuantileOracle""".split()


def test_names_of_the_contract() -> None:
    assert set(CONTRACT) <= set(ss.__all__)
    assert all(hasattr(ss, name) for name in ss.__all__)


def test_import_takes_no_extra() -> None:
    code = f"import sys, scoresde; print([m for m in {EXTRAS} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
