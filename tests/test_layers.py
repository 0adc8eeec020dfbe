r"""The order of the rooms, folders and loose files: each may import only those listed before it."""

import ast
import importlib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = {
    "solvers": """doors shapes kept network_calls noise problem rows controller control abilities settings solver
        gradients errors chart divergence loops methods catalogue integrate""",
    "scoresde": """doors files networks metrics processes models oracles reverse runs likelihood symbols guidance
        sampling chains adapters geometry latents weighted zoo editing plots checking inference jobs comparing
        losses training distilling autoencoders tuning playground cli __main__""",
}
EXTRAS = {
    "scoresde.adapters.diffusers_scheduler": "diffusers",
    "scoresde.playground.page": "gradio",
}  # what they need


@cache
def modules(package: str) -> dict[str, Path]:
    r"""The files of a package by the names of their modules."""

    found = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imported(module: str) -> frozenset[str]:
    r"""The modules of its package that a module imports anywhere, for types alone too."""

    package = module.split(".")[0]
    known, file = modules(package), modules(package)[module]
    here = module.split(".")[: None if file.name == "__init__.py" else -1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = here[: len(here) - node.level + 1] + (node.module or "").split(".")
        base = [part for part in base if part]
        for alias in node.names:
            whole = ".".join([*base, alias.name])
            names.add(whole if whole in known else ".".join(base))
    return frozenset(names - {module})


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package: str) -> None:
    order = ORDER[package].split()
    rooms = {name: name.split(".")[1] for name in modules(package) if name != package}
    assert set(rooms.values()) == set(order)
    for module, room in rooms.items():
        before = {*order[: order.index(room) + 1]}
        for name in imported(module):
            assert rooms.get(name) in before, f"{module} imports {name}"


@pytest.mark.parametrize("package", ORDER)
def test_files_import_each_other_one_way(package: str) -> None:
    try:
        TopologicalSorter({name: imported(name) for name in modules(package)}).prepare()
    except CycleError as error:
        pytest.fail(f"an import circle: {error.args[1]}")


@pytest.mark.parametrize("package", ORDER)
def test_no_function_hides_a_module(package: str) -> None:
    for name in modules(package):
        parent, _, last = name.rpartition(".")
        missing = name in EXTRAS and not find_spec(EXTRAS[name])
        if parent and not missing:
            module = importlib.import_module(name)
            assert getattr(importlib.import_module(parent), last) is module, name


def test_solvers_know_nothing_of_scores() -> None:
    for file in (ROOT / "solvers").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "scoresde" for name in names), file


@pytest.mark.parametrize("package", ORDER)
def test_files_and_functions_fit(package: str) -> None:
    for file in modules(package).values():
        text = file.read_text()
        assert text.count("\n") <= 400, f"{file} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                lines = (node.end_lineno or 0) - node.lineno - (doc.count("\n") + 1 if doc else 0)
                arguments = len(node.args.args) + len(node.args.kwonlyargs)
                assert lines - arguments <= 40, f"{file}: {node.name} has {lines} lines"
