"""Tables and lists for a notebook."""

import html
from collections.abc import Iterable

import polars as pl
from IPython.display import HTML, Markdown


def folded(title: str, *tables: pl.DataFrame, decimals: int = 3) -> HTML:
    """Return tables as HTML under a ``title`` that opens and closes them."""
    inside = "".join(table(t, decimals).data for t in tables)
    return HTML(f"<details><summary>{html.escape(title)}</summary>{inside}</details>")


def table(content: pl.DataFrame, decimals: int = 3) -> HTML:
    """Return a table as HTML, numbers right-aligned with ``decimals``."""

    def cell(value: object, side: str) -> str:
        text = "–" if value is None else str(value)
        if isinstance(value, float):
            text = f"{value:,.{decimals}f}".replace("-", "−")
        elif side == "right" and isinstance(value, int) and value >= 10_000:
            text = f"{value:,}"
        return f"<td style='text-align:{side}'>{html.escape(text)}</td>"

    sides = ["right" if dtype.is_numeric() else "left" for dtype in content.dtypes]
    head = "".join(
        f"<th style='text-align:{s}'>{html.escape(n)}</th>" for n, s in zip(content.columns, sides, strict=True)
    )
    rows = "".join(f"<tr>{''.join(map(cell, row, sides))}</tr>" for row in content.iter_rows())
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def listed(lines: Iterable[str]) -> Markdown:
    """Return sentences as a list."""
    return Markdown("\n".join(f"- {line}" for line in lines))
