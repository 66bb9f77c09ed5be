"""Figures: one function for each that a notebook shows."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from rvqprobe.curves import curves
from rvqprobe.look import finish
from rvqprobe.measures import NAMES, PRIMARY, TASK_METRICS


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
