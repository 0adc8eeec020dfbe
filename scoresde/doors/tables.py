r"""Results as tables in notebooks."""

from collections.abc import Mapping, Sequence
from html import escape

STYLE = "text-align: left; white-space: nowrap"


def html_table(
    rows: Sequence[Mapping[str, object]], title: str = "", notes: Sequence[str] = ()
) -> str:
    r"""Returns a table in HTML, with the names of the columns above it.

    Arguments:
        rows: The rows, which have the same columns; numbers are written with four digits.
        title: Words above the table.
        notes: Sentences below it.
    """

    head = "".join(
        f"<th style='{STYLE}'>{escape(name)}</th>" for name in (rows[0] if rows else ())
    )
    body = "".join(
        "<tr>" + "".join(f"<td style='{STYLE}'>{_shown(v)}</td>" for v in row.values()) + "</tr>"
        for row in rows
    )
    above = f"<p>{escape(title)}</p>" if title else ""
    below = "".join(f"<p>{escape(words)}</p>" for words in notes)
    return f"{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _shown(value: object) -> str:
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
