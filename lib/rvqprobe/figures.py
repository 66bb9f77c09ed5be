"""Figures: one palette, one look, and of each its numbers and what it shows in words."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from IPython import get_ipython
from IPython.display import display
from plotly.subplots import make_subplots

from rvqprobe.measures import NAMES, PRIMARY, TASK_METRICS

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
LOOKS = {
    "linear": "solid",
    "difference": "solid",
    "mutual information": "solid",
    "lookup": "dash",
    "128 components": "dash",
    "V-information": "dash",
    "chance": "dot",
}


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


def finish(figure: go.Figure, title: str, height: int, words: str, numbers: pl.DataFrame) -> go.Figure:
    """Give a figure its title and the common look; keep, as its layout's ``meta``, its ``words`` and its ``numbers`` as CSV.

    ``words`` is what a screen reader says in place of the figure.
    """
    figure.update_layout(
        meta={"words": words, "csv": numbers.write_csv()},
        template="simple_white", title={"text": title, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top"}, height=height,
        font={"size": 13}, margin={"l": 70, "r": 20, "t": 60, "b": 110}, barmode="group", bargap=0.15,
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0, "entrywidth": 0},
    )  # fmt: skip
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=True)
    return figure


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
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)"


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


def _rows(
    metrics: pl.DataFrame, task: str, metric: str, looks: dict[str, str], layer: int | None = None
) -> pl.DataFrame:
    """Return the rows of ``metric`` that are drawn, unlagged or of one ``layer``; ``looks`` names probes (or an input)."""
    name = pl.when(pl.col("input") == "layer").then(pl.col("probe")).otherwise(pl.col("input"))
    kept = metrics.filter(
        pl.col("lag_ms") == 0 if layer is None else pl.col("layer") == layer, task=task, metric=metric
    )
    return kept.with_columns(look=name.replace_strict(looks, default=None, return_dtype=pl.String)).drop_nulls("look")


def by_layer(metrics: pl.DataFrame, task: str, title: str) -> go.Figure:
    """Draw the metrics of ``task`` over the RVQ layers, all codecs: linear solid, lookup dashed, chance dotted."""
    names = [*TASK_METRICS[task], *(["utterance_accuracy"] if task == "speaker" else [])]
    looks = {"linear": "linear", "lookup": "lookup"}
    return curves({NAMES[name]: _rows(metrics, task, name, looks) for name in names}, "layer", title)


def information(metrics: pl.DataFrame, title: str) -> go.Figure:
    """Draw what codes and labels share, in bits, by layer: corrected mutual information solid, V-information dashed."""
    panels = {}
    for task in PRIMARY:
        of_counts = _rows(metrics, task, "mi_corrected", {"counts": "mutual information"})
        usable = _rows(metrics, task, "v_information", {"unbalanced": "V-information"})
        panels[f"{task} (bits a token)"] = pl.concat([of_counts, usable]).with_columns(chance=None)
    return curves(panels, "layer", title)


def capacity(metrics: pl.DataFrame, title: str) -> go.Figure:
    """Draw linear probes beside those on 128 components (above) and their selectivity (below), by layer."""
    looks = {"linear": "linear", "components": "128 components"}
    panels = {f"{task}, {NAMES[name]}": _rows(metrics, task, name, looks) for task, name in PRIMARY.items()}
    for task in PRIMARY:
        panels[f"{task}, selectivity"] = _rows(metrics, task, "selectivity", looks)
    return curves(panels, "layer", title)


def lags(metrics: pl.DataFrame, title: str) -> go.Figure:
    """Draw layer 1's scores for phones and F0 taken before and after the token's centre."""
    looks = {"linear": "linear"}
    panels = {
        f"{task}, {NAMES[PRIMARY[task]]}": _rows(metrics, task, PRIMARY[task], looks, layer=1)
        for task in ("phoneme", "pitch")
    }
    return curves(panels, "lag_ms", title)


def differences(table: pl.DataFrame, title: str) -> go.Figure:
    """Draw the differences of ``measures.compare`` between the first codec and each other one, by layer."""
    drawn = table.with_columns(
        value="difference", codec=pl.format("{} − {}", "codec", "minus"), look=pl.lit("difference"), chance=None
    )
    first = drawn.filter(pl.col("codec").str.starts_with(table["codec"][0] + " ")) if len(table) else drawn
    panels = {f"{task}, difference in {NAMES[name]}": first.filter(task=task) for task, name in PRIMARY.items()}
    return curves(panels, "layer", title).add_hline(0, line={"color": "#000000", "width": 1})


def broad_classes(recalls: pl.DataFrame, title: str) -> go.Figure:
    """Draw the recall of each broad class by layer, with intervals."""
    rows = recalls.filter(level="broad class").with_columns(value="recall", look=pl.lit("linear"), chance=None)
    names = rows["class"].unique(maintain_order=True)
    return curves({f"{name}, recall": rows.filter(pl.col("class") == name) for name in names}, "layer", title, 4)


def phones(recalls: pl.DataFrame, title: str) -> go.Figure:
    """Draw the recall of each phone (rows, by broad class) in each layer (columns), a panel a codec."""
    rows = recalls.filter(level="phone")
    codecs = rows["codec"].unique(maintain_order=True).to_list()
    figure = make_subplots(
        rows=1, cols=max(1, len(codecs)), shared_yaxes=True, subplot_titles=codecs, horizontal_spacing=0.02
    )
    order = rows["class"].unique(maintain_order=True).to_list()
    for column, codec in enumerate(codecs, 1):
        table = rows.filter(codec=codec).pivot(on="layer", index="class", values="recall")
        figure.add_heatmap(
            x=table.columns[1:], y=table["class"].to_list(), z=table.drop("class").rows(), zmin=0, zmax=1, coloraxis="coloraxis",
            hovertemplate="%{y}, layer %{x}: %{z:.3f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], dtick=1, tickfont_size=10)
    figure.update_xaxes(title_text="RVQ layer", type="category")
    figure.update_layout(coloraxis={"colorscale": "Greys", "cmin": 0, "cmax": 1, "colorbar_title_text": "recall"})
    told = []
    for codec in codecs:
        first = rows.filter(codec=codec, layer=1).sort("recall", descending=True)
        best, worst = (
            ", ".join(f"{n} {v:.2f}" for n, v in t["class", "recall"].iter_rows()) for t in (first[:3], first[-3:])
        )
        told.append(f"{codec}, layer 1: highest for {best}; lowest for {worst}.")
    finish(figure, title, 190 + 15 * max(10, len(order)), " ".join(told), rows.drop("level"))
    return figure.update_layout(margin={"b": 60, "t": 90})


def confusion(confusions: pl.DataFrame, task: str, layer: int, classes: Sequence[str], title: str) -> go.Figure:
    """Draw the confusion matrix of a ``task`` and ``layer``: of each true class's held-out tokens, the share said to be which."""
    mine = confusions.filter(task=task, layer=layer)
    number = {name: n for n, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)))
    for true, said, tokens in mine.select("true", "said", "tokens").iter_rows():
        matrix[number[true], number[said]] = tokens
    shares = np.round(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), 4)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, shares)
    most = [np.unravel_index(n, wrong.shape) for n in np.argsort(-wrong, axis=None, kind="stable")[:5]]
    pairs = ", ".join(f"{classes[i]} as {classes[j]} {wrong[i, j]:.2f}" for i, j in most if wrong[i, j])
    words = f"Right: {np.trace(matrix) / max(matrix.sum(), 1):.3f} of tokens. Most often wrong: {pairs or 'nothing'}."
    figure = go.Figure(
        go.Heatmap(
            x=list(classes), y=list(classes), z=shares.tolist(), colorscale="Greys", zmin=0, zmax=1, colorbar_title_text="share",
            hovertemplate="%{y} said to be %{x}: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="said", type="category", dtick=1, tickangle=-90, tickfont_size=10)
    figure.update_yaxes(title_text="true", type="category", dtick=1, tickfont_size=10, autorange="reversed")
    return finish(figure, title, 720, words, mine).update_layout(margin_b=60)


def bars(table: pl.DataFrame, x: str, y: str, colour: str, title: str) -> go.Figure:
    """Draw bars of column ``y`` over column ``x``, one series a value of column ``colour``."""
    figure = go.Figure()
    greys = ("#4D4D4D", "#E69F00", "#56B4E9", "#009E73")
    told = []
    for fill, (name, rows) in zip(greys, table.group_by(colour, maintain_order=True), strict=False):
        figure.add_bar(x=rows[x].to_list(), y=rows[y].to_list(), name=str(name[0]), marker_color=fill)
        least, most = (rows.sort(y, maintain_order=True).row(n, named=True) for n in (0, -1))
        told.append(f"{name[0]}: {len(rows)} bars from {least[y]:.3g} {y} ({least[x]}) to {most[y]:.3g} ({most[x]}).")
    figure.update_xaxes(title_text=x, type="category")
    figure.update_yaxes(title_text=y)
    return finish(figure, title, 360, " ".join(told), table.select(x, y, colour))


def f0_histograms(f0: pl.DataFrame, title: str) -> go.Figure:
    """Draw each speaker's distribution of F0 as one row, lowest voice first; columns ``speaker``, ``f0_hz`` (null: unvoiced)."""
    voiced = f0.drop_nulls()
    medians = voiced.group_by("speaker").agg(pl.col("f0_hz").median()).sort("f0_hz", "speaker")
    order = medians["speaker"].to_list()
    edges = np.arange(50, 425, 5)
    middles = (edges[1:] + edges[:-1]) / 2
    shares = [np.histogram(voiced.filter(speaker=speaker)["f0_hz"], edges, density=True)[0] * 5 for speaker in order]
    figure = go.Figure(
        go.Heatmap(
            x=middles.tolist(), y=order, z=np.round(shares, 4).tolist(), colorscale="Greys",
            colorbar={"title": "share of<br>voiced tokens"}, hovertemplate="speaker %{y}, %{x} Hz: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="F0 (Hz), in bins of 5 Hz")
    figure.update_yaxes(title_text="speaker, by median F0", type="category")
    ends = [f"{medians['f0_hz'][n]:.0f} Hz (speaker {order[n]})" for n in (0, -1)] if order else []
    words = (
        f"{len(order)} speakers, whose median F0 lies between {' and '.join(ends)}." if order else "No voiced token."
    )
    numbers = pl.DataFrame(dict(zip(order, shares, strict=True)) | {"hz": middles}).unpivot(
        index="hz", variable_name="speaker", value_name="share"
    )
    height = max(320, min(900, 140 + 22 * len(order)))
    return finish(figure, title, height, words, numbers).update_layout(margin_b=60)


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
    voiced = tokens["f0_hz"].drop_nulls()
    heights = f"F0 between {voiced.min():.0f} and {voiced.max():.0f} Hz" if len(voiced) else "no F0"
    words = f"{len(waveform) / sample_rate:.1f} s; {heights}; phones: {' '.join(phone for phone, *_ in edges)}."
    numbers = tokens.select(pl.Series("seconds", times), "phone", "f0_hz", pl.selectors.matches(r"^q\d+$"))
    return finish(figure, title, 560, words, numbers).update_layout(showlegend=False, margin_b=60)


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
    half = 1 + np.argmax(np.cumsum(share, axis=1) >= 0.5, axis=1)
    words = f"Half of the tokens have one of so many codes, layer by layer: {', '.join(map(str, half))}."
    return finish(
        figure, title, 360, words, pl.DataFrame(use.T, [f"q{n + 1}" for n in range(len(use))]).with_row_index("code")
    )
