"""Figures and tables: one palette, one look."""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import plotly.io
import polars as pl
from IPython.display import HTML
from plotly.subplots import make_subplots

plotly.io.renderers.default = "plotly_mimetype"

PALETTE = {"encodec": "#0072B2", "speechtokenizer": "#D55E00", "logmel_rvq": "#4D4D4D"}
"""Colours of known codecs; others draw from ``SPARE``. All of Okabe and Ito's set, told apart by the colour-blind."""
SPARE = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
METRIC_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "r2": "R²", "mae_hz": "mean absolute error (Hz)"}
LOOKS = {"linear": "solid", "lookup": "dash", "chance": "dot"}


def style(codecs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the marker of each codec."""
    spare = (colour for colour in SPARE * len(codecs))
    return {c: (PALETTE.get(c) or next(spare), SYMBOLS[i % len(SYMBOLS)]) for i, c in enumerate(codecs)}


def finish(figure: go.Figure, title: str, height: int = 420) -> go.Figure:
    """Give a figure its title and the common look."""
    figure.update_layout(
        template="simple_white", title={"text": title, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top"}, height=height,
        font={"size": 13}, margin={"l": 70, "r": 20, "t": 90, "b": 60}, barmode="group", bargap=0.15,
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=True)
    return figure


def by_layer(metrics: pl.DataFrame, task: str, title: str) -> go.Figure:
    """Draw the two metrics of ``task`` over the RVQ layers, all codecs: linear solid, lookup dashed, chance dotted."""
    mine = metrics.filter(task=task, input="layer")
    names, codecs = mine["metric"].unique(maintain_order=True), mine["codec"].unique(maintain_order=True).to_list()
    figure = make_subplots(rows=1, cols=max(1, len(names)), horizontal_spacing=0.11)
    looks = style(codecs)
    for column, metric in enumerate(names, 1):
        for codec in codecs:
            colour, symbol = looks[codec]
            of_codec = mine.filter(metric=metric, codec=codec).sort("layer")
            chance = of_codec.filter(probe="linear").with_columns(probe=pl.lit("chance"), value="chance")
            for probe, rows in [
                *((kind, of_codec.filter(probe=kind)) for kind in ("linear", "lookup")),
                ("chance", chance),
            ]:
                figure.add_scatter(
                    x=rows["layer"].to_list(), y=rows["value"].to_list(), name=f"{codec}, {probe}", legendgroup=f"{codec} {probe}",
                    showlegend=column == 1, mode="lines" if probe == "chance" else "lines+markers",
                    line={"color": colour, "dash": LOOKS[probe], "width": 1.5 if probe == "chance" else 2},
                    marker={"symbol": symbol if probe == "linear" else f"{symbol}-open", "size": 8},
                    hovertemplate="layer %{x}: %{y:.4f}", row=1, col=column,
                )  # fmt: skip
        figure.update_yaxes(title_text=METRIC_NAMES[metric], row=1, col=column)
        if metric != "r2":
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
    figure.update_xaxes(title_text="RVQ layer", dtick=1 if mine.is_empty() or mine["layer"].max() <= 16 else 5)
    return finish(figure, title)


def bars(table: pl.DataFrame, x: str, y: str, colour: str, title: str) -> go.Figure:
    """Draw bars of column ``y`` over column ``x``, one series a value of column ``colour``."""
    figure = go.Figure()
    greys = ("#4D4D4D", "#E69F00", "#56B4E9", "#009E73")
    for fill, (name, rows) in zip(greys, table.group_by(colour, maintain_order=True), strict=False):
        figure.add_bar(x=rows[x].to_list(), y=rows[y].to_list(), name=str(name[0]), marker_color=fill)
    figure.update_xaxes(title_text=x, type="category")
    figure.update_yaxes(title_text=y)
    return finish(figure, title, 360)


def f0_histogram(f0: pl.Series, title: str) -> go.Figure:
    """Draw how often which F0 (Hz) occurs."""
    count, edges = np.histogram(f0.drop_nulls().to_numpy(), bins=np.arange(50, 425, 5))
    figure = go.Figure(go.Bar(x=((edges[1:] + edges[:-1]) / 2).tolist(), y=count.tolist(), marker_color="#4D4D4D"))
    figure.update_xaxes(title_text="F0 (Hz), in bins of 5 Hz")
    figure.update_yaxes(title_text="voiced tokens")
    return finish(figure, title, 320).update_layout(bargap=0, showlegend=False)


def code_use(use: np.ndarray, title: str) -> go.Figure:
    """Draw the share of tokens of the most used codes, layer by layer; ``use`` is (L, K) tokens a code."""
    share = np.sort(use, axis=1)[:, ::-1] / use.sum(axis=1, keepdims=True).clip(1)
    figure = go.Figure()
    for layer in range(len(share)):
        shade = int(200 * layer / max(1, len(share) - 1))
        figure.add_scatter(
            x=list(range(1, share.shape[1] + 1)), y=np.cumsum(share[layer]).tolist(), mode="lines", name=f"layer {layer + 1}",
            line={"color": f"rgb({shade},{shade},{shade})"}, showlegend=layer in (0, len(share) - 1),
        )  # fmt: skip
    figure.update_xaxes(title_text="most used codes", type="log")
    figure.update_yaxes(title_text="share of tokens", range=[0, 1.02])
    return finish(figure, title, 360)


def folded(title: str, *tables: pl.DataFrame) -> HTML:
    """Return tables as HTML under a ``title`` that opens and closes them."""
    return HTML(f"<details><summary>{html.escape(title)}</summary>{''.join(table(t).data for t in tables)}</details>")


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
