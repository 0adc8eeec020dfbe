r"""The pages of the documentation, and the formulas in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
FENCE = "`" * 3
CODE = re.compile(r"^```.*?^```$|^    .*?$|(`+)[^`].*?\1", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$")


def name_of(page: Path) -> str:
    r"""Returns the name of a page, from the folder of pages on."""

    return str(page.relative_to(ROOT).as_posix()).removeprefix("docs/")


def snippets(page: Path, kind: str = "python") -> list[str]:
    r"""Returns the blocks of code of a page: "python", or "py" for those that need other libraries."""

    return re.findall(rf"{FENCE}{kind}\n(.*?){FENCE}", page.read_text(), re.DOTALL)


def largest_difference(said: str) -> float:
    r"""Returns the largest number that code printed after "difference", at least one of which there must be."""

    found = re.findall(r"difference (?:tensor\()?([-+\d.e]+|nan|inf)", said)
    assert found, said
    return max(map(float, found))


def prose(text: str) -> str:
    r"""Returns a page without its code."""

    return CODE.sub("code", text)


def formulas(text: str) -> list[str]:
    r"""Returns the formulas of a page."""

    return [(shown or inline).strip() for shown, inline in FORMULA.findall(prose(text))]


def models_of_others() -> list[str]:
    r"""Returns what "Your model says X, write Y" says to write, each once."""

    text = (ROOT / "docs" / "your_model.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return list(dict.fromkeys(row[1].strip("`") for row in rows if row[1].startswith("`ss.")))
