r"""What the field calls things is found where they are: in docstrings, and in the glossary, whose names exist."""

import re
from functools import reduce
from pathlib import Path

import pytest

import scoresde as ss
import solvers
from scoresde import metrics
from scoresde.losses.weights import WEIGHTS, as_weight
from scoresde.models.predictions import PREDICTIONS
from scoresde.runs.grids import spacing

from .pages import PAGES, ROOT, name_of
from .test_reference import SPACES, named

PLACES = {
    "CFG": "scoresde.classifier_free",
    "CFG++": "scoresde.guidance.plus_plus",
    "CFG-Zero*": "scoresde.guidance.zero_star",
    "APG": "scoresde.guidance.adaptive_projected",
    "DPS": "scoresde.guidance.posterior_sampling",
    "PiGDM": "scoresde.guidance.pseudoinverse",
    "MMPS": "scoresde.guidance.moment_matching",
    "DDNM": "scoresde.guidance.replacement",
    "TDS": "scoresde.twisted_sample",
    "SDEdit": "scoresde.edit",
    "DDIB": "scoresde.edit",
    "FlowEdit": "scoresde.edit",
    "RePaint": "scoresde.inpaint",
    "DDIM": "solvers.ExponentialMultistep",
    "DDPM": "solvers.ExponentialMultistep",
    "DPM-Solver++": "solvers.ExponentialMultistep",
    "UniPC": "solvers.ExponentialMultistep",
    "S_churn": "solvers.Churn",
    "AYS": "scoresde.tune",
    "eta": "scoresde.reverse_sde",
    "EMA": "scoresde.train",
    "NFE": "solvers.Solution",
    "PF-ODE": "scoresde.probability_flow",
}
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in GLOSSARY.splitlines() if line.startswith("| ")]
CODE = re.findall(r"`([^`]+)`", "\n".join(row[2] for row in ROWS))
ROOMS = {"ss": ss, "solvers": solvers, "guidance": ss.guidance, "losses": ss.losses, "metrics": metrics,
         "chains": ss.chains}  # fmt: skip
CHECKS = {
    "solver": solvers.get,
    "grid": spacing,
    "weight": as_weight,
    "method": {*ss.editing.METHODS, "replacement", "resampling", "gradient"}.__contains__,
    "predicts": PREDICTIONS.__contains__,
}
INNER = re.compile(
    r"_(\d|bh1|published|heun|isotropic|euler|midpoint|rk4).*$"
)  # of solvers of one family


def values(option: str) -> list[str]:
    r"""The values of an option in the glossary: of `option="..."`, and those after it in its cell."""

    found = []
    for row in ROWS:
        if f'`{option}="' in row[2] or f', {option}="' in row[2]:
            found += re.findall(rf'{option}="([^"]+)"|`"([^"]+)"', row[2])
    return [one or other for one, other in found]


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_names_of_the_field_stand_where_they_are(name: str, place: str) -> None:
    whole = re.compile(rf"(?<![\w+*]){re.escape(name)}(?![\w+*])")
    docstring = named(place).__doc__ or ""
    assert whole.search(docstring), f"the docstring of {place} does not say {name}"
    rows = [row for row in ROWS if row[0] == name]
    assert len(rows) == 1, f"the glossary has {len(rows)} rows for {name}"


def test_glossary_rows_say_what_where_and_lead_on() -> None:
    for row in ROWS:
        assert len(row) == 4, row
        if row[0] != "name":
            assert re.fullmatch(r"\[[^]]+\]\(\w+\.md\)", row[3]), row
    names = [row[0] for row in ROWS if row[0] != "name"]
    assert len(set(names)) == len(names) > 100


def resolve(path: str) -> object:
    r"""What a dotted name stands for, as in code that imports the rooms."""

    room, *names = path.split(".")
    return reduce(getattr, names, ROOMS[room])


def dotted(code: str) -> list[str]:
    r"""The dotted names in code, without those of files."""

    found = re.findall(rf"(?<![\w.])((?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)", code)
    return [path for path in found if not path.endswith((".png", ".md"))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_lines_of_every_page_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`\n]+)`", text):
        for path in dotted(code):
            resolve(path)
        for name in re.findall(r'\bsolver="([^"]+)"', code):
            solvers.get(name)


def test_glossary_names_much() -> None:
    assert len({path for code in CODE for path in dotted(code)}) > 70


@pytest.mark.parametrize("option", CHECKS)
def test_values_of_options_in_the_glossary_exist(option: str) -> None:
    found = values(option)
    assert len(found) > 2
    for value in found:
        assert CHECKS[option](value) is not False, f"{option}={value!r}"


def test_glossary_has_every_family_process_loss_weight_and_guidance() -> None:
    families = {INNER.sub("", name) for name in solvers.available() if "/" not in name}
    assert families <= {INNER.sub("", name.split(":")[0]) for name in values("solver")}
    said = " ".join(CODE)
    assert [name for name in WEIGHTS if f'"{name}' not in said] == []
    for space in ("scoresde.losses", "scoresde.guidance", "scoresde.distilling"):
        verbs = [name for name in SPACES[space].__all__ if name.islower()]
        assert [name for name in verbs if f".{name}" not in said] == []
    processes = [name for name in ss.__all__ if isinstance(getattr(ss, name), type)]
    processes = [name for name in processes if issubclass(getattr(ss, name), ss.Process)]
    assert [name for name in processes if f"ss.{name}" not in said and name != "Process"] == []
