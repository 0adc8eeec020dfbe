r"""The required content of a comparison's file."""

from collections.abc import Mapping
from typing import Any

from ..files import Entry, check_entries, each, finite, mapping, or_none, pair, real, text, whole

NUMBER = Entry("a finite number or null", or_none(finite), needed=False)
ROW = {
    "solver": Entry("the name of a solver", text),
    "grid": Entry("the name of a grid", text),
    "budget": Entry("a finite number", finite),
    "options": Entry("options by name", mapping),
    "stochastic": Entry("true or false", lambda value: isinstance(value, bool)),
    "calls": Entry(NUMBER.words, NUMBER.fits),
    "most_calls": Entry("a whole number or null", or_none(whole), needed=False),
    **dict.fromkeys(("backward", "rejected", "seconds", "mebibytes"), NUMBER),
    "error": Entry(
        "numbers by the names median, q90 and max, or null",
        or_none(lambda e: mapping(e) and set(e) == {"median", "q90", "max"} and each(real)(e)),
    ),
    "distances": Entry(
        "pairs of a finite number and its error, by name", lambda d: mapping(d) and each(pair)(d)
    ),
    "status": Entry("text", text),
}
SETUP = {
    **dict.fromkeys(("model", "process"), Entry("text", text)),
    "identity": Entry("text", text, needed=False),
    "samples": Entry("a whole number", whole),
    "seed": Entry("a whole number", lambda value: isinstance(value, int)),
    "reference tolerance": Entry("a number", real),
    "metrics": Entry(
        "names of metrics",
        lambda names: isinstance(names, list) and bool(names) and each(text)(names),
    ),
    "conditions": Entry("text by name", mapping),
    "functions": Entry("a list", lambda value: isinstance(value, list)),
}
REFERENCE = {
    "made": Entry("text", text),
    **dict.fromkeys(("calls", "median", "q90", "max"), Entry("a number", real)),
    "precision": Entry("text", text, needed=False),
    "floor": Entry("a number", real, needed=False),
}
PAIRS = Entry("pairs of a number and its error, by name", lambda d: mapping(d) and each(pair)(d))
ENTRIES = {
    "setup": Entry("entries by name", mapping),
    "references": Entry("entries by name", lambda r: mapping(r) and each(mapping)(r)),
    "floors": PAIRS,
    "exact": PAIRS,
    "rows": Entry("a list of rows", lambda rows: isinstance(rows, list)),
}


def check_content(content: Mapping[str, Any]) -> None:
    r"""Refuses content that is not that of a comparison, and names the wrong entry."""

    check_entries(content, ENTRIES)
    setup = content["setup"]
    check_entries({name: setup[name] for name in SETUP if name in setup}, SETUP, "setup: ")
    for kind, made in content["references"].items():
        known = {"failed": Entry("text", text)} if "failed" in made else REFERENCE
        check_entries(made, known, f"references, {kind}: ")
    for number, row in enumerate(content["rows"]):
        check_entries(row, ROW, f"row {number}: ")
