r"""A comparison as rows of text."""

import math

from .measured import Measured
from .row import Row, text, with_error_text


def entries(c: Measured) -> list[dict[str, str]]:
    r"""Returns the table, row by row, as text."""

    names = [name for name in c.setup["metrics"] if name != "error"]
    fronts = {name: {point.row.key for point in c.front(name)} for name in c.setup["metrics"]}
    table = []
    for row in sorted(c.rows, key=lambda r: (r.calls is None, r.calls or 0, r.solver)):
        entry = row.words
        errors = row.error or dict.fromkeys(("median", "q90", "max"))
        for name, value in errors.items() if "error" in c.setup["metrics"] else ():
            entry["error" if name == "median" else name] = text(value)
        if row.error is not None and row.error["median"] < c.resolution(row):
            entry["error"] = f"≤ {text(c.resolution(row))}"
        for name in names:
            entry[name] = with_error_text(*row.distances.get(name, (None, None)))
        if any(other.backward for other in c.rows):
            entry["backward"] = text(row.backward)
        entry |= {"rejected": text(row.rejected), "s": text(row.seconds),
                  "MiB": text(row.mebibytes)}  # fmt: skip
        entry["note"] = _note(c, row, fronts)
        table.append(entry if row.status == "ok" else {**entry, "note": row.status})
    return table


def _note(c: Measured, row: Row, fronts: dict[str, set[tuple[str, str, float]]]) -> str:
    r"""The metrics by which a row is the best, or within a standard error of the best."""

    words = {
        name: "best" if row.key in front else _tie(c, row, name) for name, front in fronts.items()
    }
    if len(fronts) == 1:
        return next(iter(words.values()))
    found = []
    for kind in ("best", "alike"):
        names = [name for name, word in words.items() if word == kind]
        found += [f"{kind} by {', '.join(names)}"] if names else []
    return "; ".join(found)


def _tie(c: Measured, row: Row, metric: str) -> str:
    r"""Whether a row is within a standard error of the best at its calls, in words."""

    if metric not in row.distances or row.calls is None:
        return ""
    value, error = row.distances[metric]
    better = [p for p in c.front(metric) if p.calls <= row.calls]
    if not better:
        return ""
    rival = better[-1].row.distances[metric]
    return "alike" if value - rival[0] < math.hypot(error, rival[1]) else ""


def notes(c: Measured) -> list[str]:
    r"""Returns the notes that belong to the table."""

    words = [f"{c.setup['samples']} samples of {c.setup['model']} on {c.setup['process']}, "
             f"seed {c.setup['seed']}"]  # fmt: skip
    if c.rows:
        words.append(
            "error: median, quantile of 0.9 and largest over samples, in units of the data; best: "
            "nothing has less at as many calls or fewer; alike: within a standard error of that"
        )
    for kind, made in c.references.items():
        if "failed" in made:
            words.append(f"no errors against the {kind}, which failed: {made['failed']}")
            continue
        words.append(
            f"errors against the {kind}: {made['made']}, {made['calls']:.0f} calls; a looser run "
            f"is {made['median']:.1e} (median) to {made['max']:.1e} (most) away"
        )
        if "floor" in made:
            words.append(
                f"the network computes in {made['precision']}, so errors have a floor of {made['floor']:.1e} "
                "(median): its own flow is that far away, and more calls do not help"
            )
    for name, found in c.floors.items():
        at_best = f"{name}: {with_error_text(*found)} of data from data (standard deviation)"
        if name in c.exact:
            exact = with_error_text(*c.exact[name])
            at_best += f", {exact} of the exact flow from data (standard error)"
        words.append(at_best)
    return words
