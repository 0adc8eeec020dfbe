r"""Formulas of the pages are written as both the forge and the site read them."""

import re
from pathlib import Path

import pytest

from .pages import FORMULA, PAGES, formulas, name_of, prose

INLINE = re.compile(r"(?:^|(?<=[\s(|]))\$(?=[^\s$])[^$]*(?<=\S)\$(?![0-9A-Za-z])", re.MULTILINE)
SHOWN = re.compile(r"(?<=\n\n)\$\$ [^$\n]+ \$\$(?=\n\n)")


def faults(text: str) -> list[str]:
    r"""Returns what one of both readers would not take for a formula, or would read otherwise."""

    found, text = [], prose(text)
    found += re.findall(r"\\[()\[\]].*", text)
    found += re.findall(r".*\$.*", INLINE.sub("", SHOWN.sub("", text)))
    inside = [match[0] for match in FORMULA.finditer(text)]
    found += [formula for formula in inside if re.search(r"\\[^A-Za-z]|[<>|*]", formula)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_formulas_are_read_by_forge_and_site(page: Path) -> None:
    assert faults(page.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        r"For \(\eta = 0\) it is",  # an escape on the forge
        "\\[ x = 1 \\]",
        "costs 5$ and $x$",  # one dollar without its other
        "the $x $ of",  # not closed for the forge
        "the$x$ of",
        "$x$s",
        r"$a \, b$",  # the forge shows a comma
        r"$p(y | x)$",  # a cell of a table ends there
        "text\n$$ x = 1 $$\n\n",  # a line of the paragraph
        "$$\nx = 1\n$$",
    ],
)
def test_what_one_of_them_would_not_read_is_found(text: str) -> None:
    assert faults(text)


def test_code_and_formulas_are_told_apart() -> None:
    text = (
        "Of `$HOME` and $x_0$:\n\n$$ y = 1 . $$\n\n    $ make docs\n\n```bash\necho $HOME\n```\n"
    )
    assert faults(text) == []
    assert formulas(text) == ["x_0", "y = 1 ."]
