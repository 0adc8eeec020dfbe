r"""The pages of the documentation, and the formulas in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
CODE = re.compile(r"^```.*?^```$|^    .*?$|(`+)[^`].*?\1", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$")


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
