r"""The page of reference: every public name stands on it, and its docstrings become Markdown."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from types import ModuleType

import pytest

import scoresde as ss
import solvers
from scoresde import metrics, networks
from scoresde.runs.options import GROUPS

from .pages import ROOT

PAGE = ROOT / "docs" / "api.md"
SPACES = {
    "scoresde": ss,
    "scoresde.adapters": ss.adapters,
    "scoresde.autoencoders": ss.autoencoders,
    "scoresde.chains": ss.chains,
    "scoresde.distilling": ss.distilling,
    "scoresde.editing": ss.editing,
    "scoresde.geometry": ss.geometry,
    "scoresde.guidance": ss.guidance,
    "scoresde.inference": ss.inference,
    "scoresde.jobs": ss.jobs,
    "scoresde.losses": ss.losses,
    "scoresde.losses.levels": ss.losses.levels,
    "scoresde.plots": ss.plots,
    "scoresde.spectra": ss.spectra,
    "scoresde.symbols": ss.symbols,
    "scoresde.training": ss.training,
    "scoresde.metrics": metrics,
    "scoresde.networks": networks,
    "solvers": solvers,
}
INLINE = re.compile(r":math:`([^`]+)`")
ALONE = re.compile(r"^( *)\.\. math:: *(.*(?:\n\1 +.+)*(?:\n\n\1 +.+)*)", re.MULTILINE)


def module() -> ModuleType:
    r"""Returns what the site puts docstrings into Markdown with."""

    pytest.importorskip("griffe", reason="is of the extra docs")
    file = ROOT / "docs" / "scripts" / "docstrings.py"
    found = importlib.util.spec_from_file_location("docstrings", file)
    assert found is not None
    assert found.loader is not None
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


SHOWN = re.findall(r"^::: (\S+)$", PAGE.read_text(), re.MULTILINE)


def named(name: str) -> object:
    if name in SPACES:
        return SPACES[name]
    space, _, last = name.rpartition(".")
    return getattr(SPACES.get(space) or importlib.import_module(space), last)


def shown_formulas(name: str) -> set[str]:
    r"""The formulas of the docstring of something by name."""

    text = inspect.getdoc(named(name)) or ""
    every = INLINE.findall(text) + [formula for _, formula in ALONE.findall(text)]
    return {" ".join(formula.split()) for formula in every}


# ---- names


@pytest.mark.parametrize("space", SPACES)
def test_every_public_name_stands_in_the_reference(space: str) -> None:
    there = [named(name) for name in SHOWN]
    for name in SPACES[space].__all__:
        value = getattr(SPACES[space], name)
        assert any(value is other for other in there), f"docs/api.md lacks {space}.{name}"


def test_reference_shows_public_names_once() -> None:
    assert len(set(SHOWN)) == len(SHOWN)
    for name in SHOWN:
        space, _, last = name.rpartition(".")
        group = named(name) in GROUPS  # of options, whose names users need not know
        public = name in SPACES or group or last in SPACES[space].__all__
        assert public, f"{name} is not public"


# ---- options


def functions() -> dict[str, Callable[..., object]]:
    r"""The functions of the reference by name."""

    found = {name: named(name) for name in SHOWN}
    return {name: of for name, of in found.items() if inspect.isfunction(inspect.unwrap(of))}  # type: ignore[arg-type, misc]


def documented(of: object) -> set[str]:
    r"""The arguments that the docstring of something explains."""

    text = inspect.getdoc(of) or ""
    part = re.search(r"^Arguments:\n((?: {4}.*\n|\n)+)", f"{text}\n", re.MULTILINE)
    return set(re.findall(r"^ {4}\*{0,2}(\w+):", part[1], re.MULTILINE)) if part else set()


def options(name: str) -> set[str]:
    r"""What a function takes by name."""

    return {p.name for p in inspect.signature(functions()[name]).parameters.values()}


IN_GROUPS = {
    option for name in SHOWN if named(name) in GROUPS for option in documented(named(name))
}


def test_every_group_of_options_stands_in_the_reference() -> None:
    assert [group for group in GROUPS if group not in map(named, SHOWN)] == []


@pytest.mark.parametrize("name", functions())
def test_every_option_of_a_function_is_explained(name: str) -> None:
    there = documented(functions()[name]) | IN_GROUPS
    if name == "solvers.steps":
        there |= documented(solvers.solve)  # to which it refers
    assert options(name) <= there


@pytest.mark.parametrize("name", functions())
def test_functions_that_raise_say_when(name: str) -> None:
    whole = inspect.unwrap(functions()[name])
    text = whole.__doc__ or ""
    if re.search(r"^ +raise ", inspect.getsource(whole).replace(text, ""), re.MULTILINE):
        assert re.search("Raises:|[Rr]aise|refus", text)


# ---- docstrings


def test_docstrings_become_markdown() -> None:
    text = r"""Returns :math:`a
of b`, as of :func:`sample`, :func:`hidden` and :func:`scoresde.x.other`.

.. math:: x = 1 ,
    \qquad y = 2

as said.

    .. math::

        z = 3

    Indented.

References:
    | A paper (One and Two, 2020),
    | section 4
    | https://a.org/1
    | Another (Three, 2021)
    | https://a.org/2
"""
    assert module().markdown(text, ["scoresde.sample", "scoresde.other"]) == (
        "Returns $a of b$, as of [`sample`][scoresde.sample], `hidden` and `scoresde.x.other`.\n\n"
        "\n$$ x = 1 , \\qquad y = 2 $$\n\nas said.\n\n"
        "\n    $$ z = 3 $$\n\n    Indented.\n\n"
        "**References:**\n\nA paper (One and Two, 2020), section 4, <https://a.org/1>\n\n"
        "Another (Three, 2021), <https://a.org/2>"
    )


def test_examples_stay_sections() -> None:
    docstrings, griffe = module(), pytest.importorskip("griffe", reason="is of the extra docs")
    example = ">>> x = 2 * 3  # 2 x 3\n>>> x\n6"
    indented = "".join(f"    {line}\n" for line in example.splitlines())
    text = f"Returns :math:`a`.\n\nReferences:\n    | A paper\n    | https://a.org/1\n\nExamples:\n{indented}"
    made = docstrings.markdown(text, SHOWN)
    assert made.endswith(f"<https://a.org/1>\n\nExamples:\n{indented.rstrip()}")
    last = griffe.Docstring(made).parse("google")[-1]
    assert (last.kind.value, [code for _, code in last.value]) == ("examples", [example])


def test_every_example_is_a_section_of_the_site() -> None:
    docstrings, griffe = module(), pytest.importorskip("griffe", reason="is of the extra docs")
    count = 0
    for name in SHOWN:
        text = inspect.cleandoc(getattr(named(name), "__doc__", None) or "")
        if "\nExamples:\n" in text:
            sections = griffe.Docstring(docstrings.markdown(text, SHOWN)).parse("google")
            assert sections[-1].kind.value == "examples", name
            count += 1
    assert count > 170


def test_every_docstring_of_the_packages_becomes_markdown() -> None:
    docstrings, count = module(), 0
    for package in ("scoresde", "solvers"):
        for file in (ROOT / package).rglob("*.py"):
            for text in re.findall(r'r"""(.*?)"""', file.read_text(), re.DOTALL):
                made = docstrings.markdown(inspect.cleandoc(text), SHOWN)
                assert not re.search(r":\w+:`|^ *\.\. \w+|^ *\| ", made, re.MULTILINE), made
                count += made.count("$$") // 2
    assert count > 50
