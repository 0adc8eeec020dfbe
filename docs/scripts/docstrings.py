r"""Docstrings as the site reads them: formulas, roles and references become Markdown."""

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

INLINE = re.compile(r":math:`([^`]+)`")
SHOWN = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<first>.*)\n(?P<rest>(?:(?:(?P=indent) +.*)?\n)*)", re.MULTILINE
)
ROLE = re.compile(r":(?:func|class|meth|mod|data):`([^`]+)`")
REFERENCES = re.compile(
    r"^(?P<indent> *)References:\n(?P<lines>(?:(?P=indent) +\| .*\n?)+)", re.MULTILINE
)
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
API = Path(__file__).parent.parent / "api.md"


def names(page: str) -> list[str]:
    r"""Returns what a page shows by name."""

    return ENTRY.findall(page)


def markdown(docstring: str, known: list[str]) -> str:
    r"""Returns a docstring in Markdown.

    Arguments:
        docstring: The docstring, without indentation.
        known: The names that have a place to which a role can lead.
    """

    text = SHOWN.sub(_shown, docstring + "\n")
    text = INLINE.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    text = ROLE.sub(lambda found: _link(found[1], known), text)
    return REFERENCES.sub(_references, text).rstrip("\n")


def _shown(found: re.Match[str]) -> str:
    r"""A formula that stands alone, in a paragraph of its own."""

    formula = " ".join(f"{found['first']} {found['rest']}".split())
    return f"\n{found['indent']}$$ {formula} $$\n\n"


def _link(target: str, known: list[str]) -> str:
    r"""A name as code, which leads to its place, if there is one and no doubt about it."""

    places = [name for name in known if name == target] or [
        name for name in known if name.endswith(f".{target}")
    ]
    words = f"`{target.lstrip('.')}`"
    return f"[{words}][{places[0]}]" if len(places) == 1 else words


def _references(found: re.Match[str]) -> str:
    r"""Papers as a paragraph each, whose addresses are links. A paper begins after an address."""

    papers: list[list[str]] = [[]]
    for line in found["lines"].splitlines():
        words = line.strip().removeprefix("|").strip().rstrip(",")
        papers[-1].append(f"<{words}>" if words.startswith("http") else words)
        if words.startswith("http"):
            papers.append([])
    text = "\n\n".join(", ".join(paper) for paper in papers if paper)
    return textwrap.indent(f"**References:**\n\n{text}", found["indent"]) + "\n"


class Docstrings(griffe.Extension):
    r"""Puts each docstring into Markdown before it is taken apart."""

    def __init__(self) -> None:
        self.known = names(API.read_text())

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        r"""Is told of each module, class, function and attribute."""

        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, self.known)
