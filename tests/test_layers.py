r"""The order of the modules: each may import only those listed before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = {
    "solvers": """doors signatures shapes calls problem errors solution brownian path controller solver record
        march adapt stepper weights runge_kutta exponential singlestep adams reversible interaction twostep
        fixed_point stochastic renoise divergence backends catalogue solve""",
    "scoresde": """progress amounts warning autocast stored data running process schedules processes
        quadrature custom moments models scale conditions checks closures complaints predictions
        network_score derivative steady known_data oracles quantiles classifiers guidance watched
        frames reverse grids plans settings noises listener transport trial bitwise repeats
        ending sampling geometry spectra weighted latents editing likelihood metrics
        networks zoo plots compare tuning training demo cli""",
}
CYCLES = {("models", "conditions"), ("errors", "solution")}  # for `given`, and for types alone


def modules(package: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT / package).with_suffix("").parts
        if parts != ("__init__",):
            found.setdefault(parts[0], []).append(file)
    return found


def imported(file: Path, package: str) -> set[str]:
    r"""The modules of the package that a file imports, by the first part of their names."""

    depth, names = len(file.relative_to(ROOT / package).parts), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            if node.module:
                names.add(node.module.split(".")[0])
            else:
                names.update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package: str) -> None:
    order, found = ORDER[package].split(), modules(package)
    assert set(found) == set(order)
    for i, module in enumerate(order):
        for file in found[module]:
            for name in imported(file, package) - {module}:
                assert name in order[:i] or (module, name) in CYCLES, f"{file} imports {name}"


def test_solvers_know_nothing_of_scores() -> None:
    for file in (ROOT / "solvers").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "scoresde" for name in names), file


@pytest.mark.parametrize("package", ORDER)
def test_files_and_functions_fit(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        text = file.read_text()
        assert text.count("\n") <= 400, f"{file} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                lines = (node.end_lineno or 0) - node.lineno - (doc.count("\n") + 1 if doc else 0)
                arguments = len(node.args.args) + len(node.args.kwonlyargs)
                assert lines - arguments <= 40, f"{file}: {node.name} has {lines} lines"
