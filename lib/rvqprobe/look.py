"""The look of every figure: one palette, one layout; and what each carries with it, its numbers and what it shows in words."""

import json
from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from IPython import get_ipython
from IPython.display import display

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


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a colour such as "#0072B2"."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _pale(colour: str) -> str:
    return "#" + "".join(f"{(part + 255) // 2:02X}" for part in rgb(colour))


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
