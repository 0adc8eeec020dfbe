r"""What the field calls things is found where they are: in docstrings, and in the table of the first page."""

import re

import pytest

from .pages import ROOT
from .test_reference import named

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
INDEX = (ROOT / "docs" / "index.md").read_text()


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_names_of_the_field_stand_where_they_are(name: str, place: str) -> None:
    whole = re.compile(rf"(?<![\w+*]){re.escape(name)}(?![\w+*])")
    docstring = named(place).__doc__ or ""
    assert whole.search(docstring), f"the docstring of {place} does not say {name}"
    rows = [row for row in INDEX.splitlines() if row.startswith(f"| {name} |")]
    assert len(rows) == 1, f"the table of docs/index.md has {len(rows)} rows for {name}"
    assert "](" in rows[0]
