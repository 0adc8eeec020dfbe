r"""Importing needs no extra and little time; the contract's names are there."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import scoresde as ss

ROOT = Path(__file__).parent.parent
IMPORTED_AS = {"scikit-learn": "sklearn", "pot": "ot", "pillow": "pil", "grpcio": "grpc"}

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
    "joblib",
    "cloudpickle",
    "pyarrow",
    "ray",
    "accelerate",
    "tensorboard",
    "gradio",
    "IPython",
    "ipykernel",
    "ipywidgets",
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


def test_sampling_does_not_import_the_compiler() -> None:
    code = (
        "import sys, scoresde as ss; ss.sample(ss.load('digits'), 1, solver='em', steps=2, denoise=False);"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [
        project["dependencies"],
        *(
            extras[name]
            for name in (
                "cli",
                "plots",
                "metrics",
                "train",
                "accelerate",
                "jobs",
                "ray",
                "diffusers",
                "playground",
            )
        ),
    ]
    names = {re.split(r"[^\w-]", entry)[0].lower() for entries in lists for entry in entries}
    declared = {IMPORTED_AS.get(name, name) for name in names}
    for file in [*ROOT.glob("scoresde/**/*.py"), *ROOT.glob("solvers/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            used = {module.split(".")[0].lower() for module in modules}
            used -= sys.stdlib_module_names | {"scoresde", "solvers"}
            assert used <= declared, f"{file} imports {used - declared}"


def test_names_are_those_that_users_write() -> None:
    assert sorted(dir(ss)) == sorted(ss.__all__)
