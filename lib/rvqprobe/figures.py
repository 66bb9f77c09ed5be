"""Figures and tables: one palette, one look."""

import html
import json
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl
from IPython import get_ipython
from IPython.display import HTML, display
from plotly.subplots import make_subplots

MIME = "application/vnd.plotly.v1+json"


def _show(figure: go.Figure) -> None:
    display({MIME: json.loads(figure.to_json())}, raw=True)


if shell := get_ipython():  # plotly's own renderers do the same, but cost each notebook 1.5 s of imports
    shell.display_formatter.ipython_display_formatter.for_type(go.Figure, _show)

PALETTE = {"encodec": "#0072B2", "speechtokenizer": "#D55E00", "logmel_rvq": "#4D4D4D"}
"""Colours of known codecs; others draw from ``SPARE``. All of Okabe and Ito's set, told apart by the colour-blind."""
UNTRAINED = "-untrained"
"""Ending of an untrained codec's name."""
SPARE = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
METRIC_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "r2": "R²", "mae_hz": "mean absolute error (Hz)"}
LOOKS = {"linear": "solid", "lookup": "dash", "chance": "dot"}


def style(codecs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the marker of each codec; an untrained one has its codec's colour, half as strong."""
    spare = iter(SPARE * len(codecs))
    families = dict.fromkeys(codec.removesuffix(UNTRAINED) for codec in codecs)
    colours = {family: PALETTE.get(family) or next(spare) for family in families}
    looks = {}
    for number, codec in enumerate(codecs):
        colour = colours[codec.removesuffix(UNTRAINED)]
        looks[codec] = (_pale(colour) if codec.endswith(UNTRAINED) else colour, SYMBOLS[number % len(SYMBOLS)])
    return looks


def _pale(colour: str) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{(part + 255) // 2:02X}" for part in parts)


def finish(figure: go.Figure, title: str, height: int = 420) -> go.Figure:
    """Give a figure its title and the common look."""
    figure.update_layout(
        template="simple_white", title={"text": title, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top"}, height=height,
        font={"size": 13}, margin={"l": 70, "r": 20, "t": 60, "b": 110}, barmode="group", bargap=0.15,
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0, "entrywidth": 0},
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
            for (probe,), rows in pl.concat([of_codec, chance]).group_by("probe", maintain_order=True):
                figure.add_scatter(
                    x=rows["layer"].to_list(), y=rows["value"].to_list(), name=codec if probe == "linear" else f"{codec}, {probe}",
                    legendgroup=codec, showlegend=column == 1 and probe == "linear",
                    mode="lines" if probe == "chance" else "lines+markers",
                    line={"color": colour, "dash": LOOKS[probe], "width": 1.5 if probe == "chance" else 2},
                    marker={"symbol": symbol if probe == "linear" else f"{symbol}-open", "size": 8},
                    hovertemplate="layer %{x}: %{y:.4f}", row=1, col=column,
                )  # fmt: skip
        figure.update_yaxes(title_text=METRIC_NAMES[metric], row=1, col=column)
        if metric != "r2":
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
    for probe, dash in LOOKS.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=probe, line={"color": "#000000", "dash": dash, "width": 1.5}
        )
    figure.update_xaxes(title_text="RVQ layer", dtick=1 if mine.is_empty() or mine["layer"].max() <= 16 else 5)
    return finish(figure, title, 460)


def bars(table: pl.DataFrame, x: str, y: str, colour: str, title: str) -> go.Figure:
    """Draw bars of column ``y`` over column ``x``, one series a value of column ``colour``."""
    figure = go.Figure()
    greys = ("#4D4D4D", "#E69F00", "#56B4E9", "#009E73")
    for fill, (name, rows) in zip(greys, table.group_by(colour, maintain_order=True), strict=False):
        figure.add_bar(x=rows[x].to_list(), y=rows[y].to_list(), name=str(name[0]), marker_color=fill)
    figure.update_xaxes(title_text=x, type="category")
    figure.update_yaxes(title_text=y)
    return finish(figure, title, 360)


def f0_histograms(f0: pl.DataFrame, title: str) -> go.Figure:
    """Draw each speaker's distribution of F0 as one row, lowest voice first; columns ``speaker``, ``f0_hz`` (null: unvoiced)."""
    voiced = f0.drop_nulls()
    order = voiced.group_by("speaker").agg(pl.col("f0_hz").median()).sort("f0_hz")["speaker"].to_list()
    edges = np.arange(50, 425, 5)
    shares = [np.histogram(voiced.filter(speaker=speaker)["f0_hz"], edges, density=True)[0] * 5 for speaker in order]
    figure = go.Figure(
        go.Heatmap(
            x=((edges[1:] + edges[:-1]) / 2).tolist(), y=order, z=np.round(shares, 4).tolist(), colorscale="Greys",
            colorbar={"title": "share of<br>voiced tokens"}, hovertemplate="speaker %{y}, %{x} Hz: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="F0 (Hz), in bins of 5 Hz")
    figure.update_yaxes(title_text="speaker, by median F0", type="category")
    return finish(figure, title, max(320, min(900, 140 + 22 * len(order)))).update_layout(margin_b=60)


def utterance(
    waveform: np.ndarray, sample_rate: int, tokens: pl.DataFrame, frame_rate: float, layers: int, title: str
) -> go.Figure:
    """Draw one utterance over time: waveform (samples,), F0, phones, and the codes of its first ``layers``.

    The first four seconds are shown; the rest is there to be dragged into view.

    ``tokens`` are the utterance's rows of the token table. A code's shade is its number: equal shades, equal codes.
    """
    step = max(1, len(waveform) // 4000)
    times = ((tokens["frame"].to_numpy() + 0.5) / frame_rate).round(4).tolist()
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, row_heights=[0.3, 0.35, 0.35], vertical_spacing=0.04)
    figure.add_scatter(
        x=(np.arange(0, len(waveform), step) / sample_rate).round(4).tolist(), y=waveform[::step].round(4).tolist(),
        mode="lines", line={"color": "#4D4D4D", "width": 1}, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=tokens["f0_hz"].to_list(), mode="markers", marker={"color": "#0072B2", "size": 5}, row=2, col=1
    )
    runs = tokens.with_columns(run=pl.col("phone").rle_id()).group_by("run", maintain_order=True)
    spans = runs.agg(pl.first("phone"), pl.min("frame").alias("first"), pl.max("frame").alias("last"))
    edges = [(phone or "–", first / frame_rate, (last + 1) / frame_rate) for _, phone, first, last in spans.iter_rows()]
    line = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "#CCCCCC", "width": 1},
        "layer": "below",
    }
    name = {"yref": "y2 domain", "y": 0.98, "showarrow": False, "font": {"size": 10}}
    figure.update_layout(
        shapes=[{**line, "x0": begin, "x1": begin} for _, begin, _ in edges],
        annotations=[{**name, "x": (begin + end) / 2, "text": phone} for phone, begin, end in edges],
    )
    codes = tokens.select(f"q{layer}" for layer in range(1, layers + 1)).to_numpy().T
    figure.add_heatmap(
        x=times, y=[f"layer {layer}" for layer in range(1, layers + 1)], z=codes.tolist(), colorscale="Phase", showscale=False,
        hovertemplate="%{y}, %{x} s: code %{z}<extra></extra>", row=3, col=1,
    )  # fmt: skip
    figure.update_yaxes(title_text="amplitude", row=1, col=1)
    highest = tokens["f0_hz"].max() or 100  # above it stand the phones
    figure.update_yaxes(title_text="F0 (Hz)", range=[0, 1.35 * highest], row=2, col=1)
    figure.update_yaxes(title_text="code", autorange="reversed", row=3, col=1)
    figure.update_xaxes(range=[0, min(4, len(waveform) / sample_rate)])
    figure.update_xaxes(title_text="time (s)", row=3, col=1)
    return finish(figure, title, 560).update_layout(showlegend=False, margin_b=60)


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
