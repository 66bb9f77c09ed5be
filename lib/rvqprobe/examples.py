"""Examples: one utterance, one code, one confusion matrix of a finished study, to be called with whatever is of interest."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import polars as pl
from IPython.display import HTML

from rvqprobe import audio, figures, listening, measures, tables, tokens
from rvqprobe.params import nearest
from rvqprobe.split import Split
from rvqprobe.store import Layout

CONTEXT = 0.4
"""Seconds of audio that are heard on either side of a token."""
HEARD = 6
"""Tokens of a code that can be heard."""


def utterance(codec: str, name: str, split: Split, layout: Layout, corpus_dir: Path, layers: int = 4) -> go.Figure:
    """Draw the utterance ``name`` of a study: waveform, phones, F0, and the codes of the first ``layers`` of ``codec``.

    Raises ValueError where the split has no such utterance, or the codec's table no token of it.
    """
    table = tokens.load(layout, codec, split, partial=True)
    mine = table.frame().filter(utterance=name).collect()
    if mine.is_empty():
        raise ValueError(f"no token of an utterance {name!r}: {nearest(name, split.utterances['utterance'])}")
    about = table.about
    sound = audio.read(corpus_dir / _path(name, split), about["sample_rate"])
    shown = min(layers, about["layers"])
    return figures.utterance(sound.waveform, about["sample_rate"], mine, about["frame_rate"], shown, f"{name}, {codec}")


def code(
    codec: str, layer: int, number: int | None, split: Split, layout: Layout, corpus_dir: Path, seed: int = 0
) -> HTML:
    """Return what a code stands for: its phones, how much likelier each is than elsewhere, and some tokens to hear.

    ``layer`` counts from 1, ``number`` from 0, None is the most used code; the tokens are drawn by ``seed``. Raises
    ValueError where the codec has no such layer or code.
    """
    table = tokens.load(layout, codec, split)
    layers, size = table.codebooks.shape[:2]
    if number is None and 1 <= layer <= layers:
        number = int(table.frame().select(pl.col(f"q{layer}").mode().min()).collect().item())
    if not (1 <= layer <= layers and number is not None and 0 <= number < size):
        raise ValueError(
            f"{codec} has layers 1 to {layers} with codes 0 to {size - 1}, so no code {number} in layer {layer}"
        )
    named = table.frame().with_columns(mine=pl.col(f"q{layer}") == number)
    phones = named.group_by("phone").agg(tokens=pl.col("mine").sum(), overall=pl.len()).collect()
    share, overall = (pl.col(name) / pl.col(name).sum() for name in ("tokens", "overall"))
    phones = phones.select("phone", "tokens", share=share, overall=overall, times_likelier=share / overall)
    phones = phones.filter(pl.col("tokens") > 0).sort("tokens", "phone", descending=[True, False])
    mine = named.filter("mine").select("utterance", "frame", "phone").collect()
    said = f"<p>{codec}, layer {layer}, code {number}: {mine.height:,} tokens.</p>"
    some = mine.sample(min(HEARD, mine.height), seed=seed).sort("utterance", "frame")
    heard = [_heard(row, table.about["frame_rate"], split, corpus_dir) for row in some.iter_rows(named=True)]
    return HTML(f"{said}{tables.table(phones[:8]).data}{listening.shelf('Some of them', heard)}")


def _heard(row: dict[str, Any], frame_rate: float, split: Split, corpus_dir: Path) -> tuple[str, bytes]:
    at = (row["frame"] + 0.5) / frame_rate
    sound = audio.read(corpus_dir / _path(row["utterance"], split), 16000)
    first, last = max(0, int(16000 * (at - CONTEXT))), int(16000 * (at + CONTEXT))
    title = f"{row['phone'] or 'no phone'} in {row['utterance']} at {at:.2f} s"
    return title, audio.mp3(sound.waveform[first:last], 16000)


def confusion(codec: str, task: str, layer: int, split: Split, layout: Layout) -> go.Figure:
    """Draw the confusion matrix of the linear probe of a ``layer`` for ``task``, "phoneme" or "speaker"."""
    saved = measures.read(codec, split, layout, layout.confusion(codec))
    classes = split.classes[task]
    return figures.confusion(saved, task, layer, classes, f"{task} said by the linear probe, {codec}, layer {layer}")


def _path(name: str, split: Split) -> str:
    return str(split.utterances.filter(utterance=name)["path"][0])
