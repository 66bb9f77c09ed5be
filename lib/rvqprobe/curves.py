"""Curves: panels of a value over RVQ layers or lags, one curve a codec, with bands and chance lines."""

from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from rvqprobe.look import finish, rgb, style

LOOKS = {
    "linear": "solid",
    "difference": "solid",
    "mutual information": "solid",
    "lookup": "dash",
    "128 components": "dash",
    "V-information": "dash",
    "chance": "dot",
}


def curves(panels: dict[str, pl.DataFrame], x: str, title: str, columns: int = 3) -> go.Figure:
    """Draw ``panels`` (by what they show): a curve a codec and look over column ``x`` ("layer" or "lag_ms").

    Columns ``codec, look`` (one of ``LOOKS``), ``value`` and, as null where there is none, ``low, high`` (the 95 % interval,
    drawn as a band about solid curves, cut where it is wider than all that the curves span) and ``chance`` (dotted).
    """
    drawn = pl.concat([rows.select("codec", "look") for rows in panels.values()])
    looks = style(drawn["codec"].unique(maintain_order=True).to_list())
    across, down = min(columns, len(panels)), -(-len(panels) // columns)
    figure = make_subplots(
        rows=down,
        cols=across,
        horizontal_spacing=0.17 / across,
        vertical_spacing=0.3 / down,
        subplot_titles=list(panels),
    )
    figure.update_annotations(font_size=13)
    for number, rows in enumerate(panels.values()):
        where = {"row": number // across + 1, "col": number % across + 1}
        for (codec, look), curve in rows.sort(x).group_by("codec", "look", maintain_order=True):
            colour, symbol = looks[str(codec)]
            name, at = (codec if LOOKS[str(look)] == "solid" else f"{codec}, {look}"), curve[x].to_list()
            common: dict[str, Any] = {"x": at, "legendgroup": codec, "showlegend": False, **where}
            if LOOKS[str(look)] == "solid" and curve["low"].null_count() == 0:
                edge = {
                    **common,
                    "mode": "lines",
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "fillcolor": _veil(colour),
                }
                figure.add_scatter(y=curve["high"].to_list(), **edge)
                figure.add_scatter(y=curve["low"].to_list(), fill="tonexty", **edge)
            figure.add_scatter(
                y=curve["value"].to_list(), name=name, mode="lines+markers", line={"color": colour, "dash": LOOKS[str(look)], "width": 2},
                marker={"symbol": symbol if LOOKS[str(look)] == "solid" else f"{symbol}-open", "size": 7},
                hovertemplate=f"{x.split('_')[0]} %{{x}}: %{{y:.4f}}", **common,
            )  # fmt: skip
            if LOOKS[str(look)] == "solid" and curve["chance"].null_count() == 0:
                dotted = {"color": colour, "dash": LOOKS["chance"], "width": 1.5}
                figure.add_scatter(
                    y=curve["chance"].to_list(), name=f"{codec}, chance", mode="lines", line=dotted, **common
                )
        if x == "layer":
            figure.update_xaxes(dtick=1 if rows.is_empty() or rows["layer"].max() <= 16 else 5, **where)
        figure.update_yaxes(range=_reach(rows), **where)
    levels = ["chance"] if any(rows["chance"].count() for rows in panels.values()) else []
    _legend(figure, looks, [*drawn["look"].unique(maintain_order=True), *levels])
    figure.update_xaxes(title_text="RVQ layer" if x == "layer" else "label taken at (ms from the token's centre)")
    numbers = pl.concat([_numbers(name, rows, x) for name, rows in panels.items()])
    finish(figure, title, 190 + 300 * down, " ".join(_told(panels, x)), numbers)
    return figure.update_layout(margin_t=90)


def _numbers(panel: str, rows: pl.DataFrame, x: str) -> pl.DataFrame:
    """Return the numbers of one panel of ``curves``."""
    floats = [pl.col(name).cast(pl.Float64) for name in ("value", "low", "high", "chance")]
    return rows.sort("codec", "look", x).select(pl.lit(panel).alias("panel"), "codec", "look", x, *floats)


def _told(panels: dict[str, pl.DataFrame], x: str) -> Iterator[str]:
    """Yield a sentence a panel: where each codec's main curve begins, ends and is highest."""
    unit = "layer" if x == "layer" else "lag in ms,"
    for name, rows in panels.items():
        solid = rows.filter(pl.col("look").replace_strict(LOOKS) == "solid").drop_nulls("value").sort(x)
        said = []
        for (codec,), curve in solid.group_by("codec", maintain_order=True):
            at, values = curve[x].to_list(), curve["value"].to_list()
            top = max(range(len(at)), key=values.__getitem__)
            ends = f"{values[0]:.3f} at {unit} {at[0]:g} to {values[-1]:.3f} at {at[-1]:g}"
            said.append(f"{codec} from {ends}, highest {values[top]:.3f} at {at[top]:g}")
        levels = rows["chance"].drop_nulls()
        chance = f" Chance is {levels.min():.3f} to {levels.max():.3f}." if len(levels) else ""
        yield f"{name}: {'; '.join(said) or 'no number'}.{chance}"


def _reach(rows: pl.DataFrame) -> list[float] | None:
    """Return the range of an axis that holds all curves, and of their bands as much again."""
    drawn = [v for name in ("value", "chance") for v in rows[name].drop_nulls()]
    if not drawn:
        return None
    bottom, top = min(drawn), max(drawn)
    span = max(top - bottom, 1e-3)
    low, high = (rows[name].drop_nulls().to_list() for name in ("low", "high"))
    bottom, top = max(min([bottom, *low]), bottom - span), min(max([top, *high]), top + span)
    return [bottom - 0.05 * span, top + 0.05 * span]


def _veil(colour: str) -> str:
    return f"rgba{(*rgb(colour), 0.18)}"


def _legend(figure: go.Figure, looks: dict[str, tuple[str, str]], dashes: list[str]) -> None:
    for codec, (colour, symbol) in looks.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=codec, legendgroup=codec, line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 7},
        )  # fmt: skip
    for look in dashes:
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=look, line={"color": "#000000", "dash": LOOKS[look], "width": 1.5}
        )
