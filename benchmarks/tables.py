r"""Fills the tables of the docs from what the benchmarks measured, and from the catalogue.

A page holds its prose, and marks between which its tables stand:

    <!-- run: grids -->                                 the command and its machine
    <!-- table: grids | grid != asinh | without error -->
    <!-- beside: distance | problem = digits -->        what has no budget, in one line
    <!-- by calls: distance | problem = digits -->      a row for each solver, a column for each budget
    <!-- members by calls: frontier | problem = ... -->  the same of members, and of their errors:
    <!-- errors by calls: frontier | problem = ... -->
    <!-- catalogue -->                                  every solver
    <!-- aliases -->

each with `<!-- end -->` after it. Conditions keep rows, `column = this; that`, `column != this`, `with column`
(which is not empty), or hide columns, `without this; that`; columns that are empty in all rows are hidden, too.

python -m benchmarks.tables
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import solvers
from solvers.catalogue import ALIASES, REFUSED, describe

from . import report
from .report import Row

DOCS = Path(__file__).parent.parent / "docs"
MARK = re.compile(r"<!-- (?!end -->)(.+?) -->\n(.*?)<!-- end -->", re.DOTALL)
CONDITION = re.compile(r"(?P<word>with|without) (?P<columns>.+)|(?P<column>.+?) (?P<sign>!?=) (?P<values>.+)")  # fmt: skip
BUDGETS = (5, 6, 8, 10, 15, 20, 40)
DISTANCE = "energy distance x 1000"
WAYS = {(1, 1): "steps or tolerances", (0, 1): "steps", (1, 0): "tolerances"}  # adaptive, fixed


def filled(page: str) -> str:
    r"""Returns a page with all its tables written anew."""

    if page.count("<!--") != 2 * len(MARK.findall(page)):
        raise ValueError("a mark lacks its <!-- end -->, or an end its mark.")
    return MARK.sub(lambda found: f"<!-- {found[1]} -->\n\n{body(found[1])}\n\n<!-- end -->", page)


def body(mark: str) -> str:
    r"""Returns what stands at a mark."""

    kind, _, of = mark.partition(": ")
    if kind not in KINDS:
        raise ValueError(f"the mark {mark!r} must be one of {', '.join(KINDS)}, not {kind!r}.")
    return KINDS[kind](of).strip()


def marks(page: str) -> Iterator[tuple[str, str]]:
    r"""Yields the marks of a page that are of results: their kinds, and names with conditions."""

    for mark, _ in MARK.findall(page):
        kind, _, of = mark.partition(": ")
        if of:
            yield kind, of


def known(name: str) -> Row:
    r"""Returns how a benchmark was run."""

    runs = report.runs()
    if name not in runs:
        raise ValueError(f"no result is called {name!r}; there are {', '.join(runs)}.")
    return runs[name]


def chosen(of: str) -> list[Row]:
    r"""Returns the rows of a benchmark that meet all conditions of a mark, `NAME | CONDITION | ...`."""

    name, *conditions = of.split(" | ")
    known(name)
    rows = report.load(name)
    for condition in conditions:
        rows = meeting(rows, condition)
        if not rows:
            raise ValueError(f"no row of {name} is left by {condition!r}.")
    filled = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    return [{column: row[column] for column in filled} for row in rows]


def meeting(rows: list[Row], condition: str) -> list[Row]:
    r"""Returns the rows that meet a condition, without what it hides."""

    found = CONDITION.fullmatch(condition)
    if found is None:
        raise ValueError(
            f"{condition!r} must be of the form 'column = value' or 'without column'."
        )
    columns = (found["columns"] or found["column"]).split("; ")
    for column in columns:
        if column not in rows[0]:
            raise ValueError(f"no column is called {column!r}; there are {', '.join(rows[0])}.")
    if found["word"] == "without":
        return [{name: row[name] for name in row if name not in columns} for row in rows]
    if found["word"] == "with":
        return [row for row in rows if all(row[column] is not None for column in columns)]
    values, wanted = found["values"].split("; "), found["sign"] == "="
    there = {report.cell(row[columns[0]]) for row in rows}
    if not there.issuperset(values):
        raise ValueError(f"{condition!r} names what no row has; there are {', '.join(there)}.")
    return [row for row in rows if (report.cell(row[columns[0]]) in values) == wanted]


def table(rows: list[Row]) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(report.text(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines)


def run(name: str) -> str:
    r"""Returns the command of a benchmark, and the machine it ran on."""

    found = known(name)
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    return f"`{found['command']}` (torch {found['torch']}, {threads}):"


def beside(rows: list[Row]) -> str:
    r"""Returns the distances that no solver has part in."""

    floors = [row for row in rows if row["calls"] is None]
    return (
        "For comparison: "
        + ", ".join(f"{row['solver']} {row[DISTANCE]:.2f}" for row in floors)
        + "."
    )


def by_solver(
    rows: list[Row], of: str = "solver", figure: str = DISTANCE
) -> dict[str, dict[int, float]]:
    r"""Returns the distances of each solver, or another figure, by its network calls."""

    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["calls"]:
            found.setdefault(row[of], {})[row["calls"]] = row[figure]
    return found


def by_calls(rows: list[Row], of: str = "solver", figure: str = DISTANCE) -> str:
    r"""Returns a table of the distances, with a row for each solver and a column for each budget that some meet."""

    lines = by_solver(rows, of, figure)
    budgets = [b for b in BUDGETS if any(b in calls for calls in lines.values())]
    return table([
        {of: name, **{str(b): nearest(calls, b) for b in budgets}} for name, calls in lines.items()
    ])  # fmt: skip


def nearest(calls: dict[int, float], budget: int) -> float | None:
    r"""The figure at the largest number of calls within a budget, unless that is far below it."""

    within = [c for c in calls if 0.7 * budget <= c <= budget]
    return calls[max(within)] if within else None


def catalogue() -> str:
    r"""Returns a table of every solver."""

    rows = []
    for name in solvers.available():
        row = describe(solvers.get(name))
        order, cold = row["order"], row["order on an even grid"]
        rows.append({
            "solver": f"`{name}`", "solves": row["solves"],
            "order": f"{order:g}" + (f" ({cold:g})" if cold != order else ""),
            "noise": "yes" if row["stochastic"] else "", "takes": WAYS[row["adaptive"], row["fixed"]],
            "calls per step": row["calls per step"], "note": row["note"],
        })  # fmt: skip
    rows += [{**dict.fromkeys(rows[0], ""), "solver": f"`{name}`", "takes": "refused", "note": reason}
             for name, reason in REFUSED.items()]  # fmt: skip
    return table(rows)


def aliases() -> str:
    return (
        f"Other names: {', '.join(f'`{alias}` is `{name}`' for alias, name in ALIASES.items())}."
    )


KINDS: dict[str, Callable[[str], str]] = {
    "run": run,
    "table": lambda of: table(chosen(of)),
    "beside": lambda of: beside(chosen(of)),
    "by calls": lambda of: by_calls(chosen(of)),
    "members by calls": lambda of: by_calls(chosen(of), "member"),
    "errors by calls": lambda of: by_calls(chosen(of), "member", "error"),
    "catalogue": lambda _: catalogue(),
    "aliases": lambda _: aliases(),
}


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text()
        if before != (after := filled(before)):
            page.write_text(after)
            print(f"{page.name} is written anew.")


if __name__ == "__main__":
    main()
