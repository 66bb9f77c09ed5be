"""Measures: how well probes do on held-out tokens, exactly, from counts."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from rvqprobe.counts import Counts, PitchCounts
from rvqprobe.params import codec_name
from rvqprobe.probes import Probe
from rvqprobe.split import Split
from rvqprobe.store import Layout, MissingInput, write_table

METRICS = {
    "codec": pl.String,
    "task": pl.String,
    "layer": pl.Int64,
    "input": pl.String,
    "probe": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "chance": pl.Float64,
    "n_train": pl.Int64,
    "n_eval": pl.Int64,
}
"""One row a number: layers count from 1, ``input`` is "layer", ``probe`` "linear" or "lookup"."""
TASK_METRICS = {"phoneme": ("macro_f1", "accuracy"), "speaker": ("macro_f1", "accuracy"), "pitch": ("r2", "mae_hz")}


def confusion(predicted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return held-out tokens by true and predicted class, (Y, Y).

    ``predicted`` (K,) is the class that each code is given, ``table`` (K, Y) the held-out tokens by code and class.
    """
    matrix = np.zeros((table.shape[1],) * 2, np.int64)
    np.add.at(matrix.T, predicted, table)
    return matrix


def accuracy(matrix: np.ndarray) -> float:
    """Return the share of tokens on the diagonal of a confusion matrix."""
    return float(np.trace(matrix) / matrix.sum())


def macro_f1(matrix: np.ndarray) -> float:
    """Return the mean F1 of the classes that occur (as the true class) in a confusion matrix."""
    occurs = matrix.sum(axis=1) > 0
    return float(np.mean((2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1)).clip(1))[occurs]))


def r2(predicted: np.ndarray, hz: np.ndarray) -> float:
    """Return the coefficient of determination of ``predicted`` (N,) for ``hz`` (N,), about the mean of ``hz``."""
    return float(1 - np.sum((hz - predicted) ** 2) / np.sum((hz - hz.mean()) ** 2))


def score(probe: Probe, counts: Counts) -> dict[str, dict[str, tuple[float, float, int, int]]]:
    """Return (value, chance, n_train, n_eval) by kind of probe and metric, of one task and layer."""
    by_kind = {"linear": probe.predicted, "lookup": probe.lookup}
    layer = probe.layer - 1
    if probe.task == "pitch":
        pitch = counts.pitch
        sizes, trivial = (int(pitch.n[layer].sum()), len(pitch.eval_hz)), _training_mean_error(pitch, layer)
        scores: dict[str, dict[str, tuple[float, float, int, int]]] = {}
        for kind, by_code in by_kind.items():
            said = by_code[pitch.eval_codes[:, layer]]
            error = float(np.abs(said - pitch.eval_hz).mean())
            scores[kind] = {"r2": (r2(said, pitch.eval_hz), 0.0, *sizes), "mae_hz": (error, trivial, *sizes)}
        return scores
    labels = getattr(counts, probe.task)
    train, held_out = labels.train[layer], labels.eval[layer]
    sizes, of_class = (int(train.sum()), int(held_out.sum())), held_out.sum(axis=0)
    chances = {
        "macro_f1": 1 / np.count_nonzero(of_class),
        "accuracy": float(of_class[train.sum(axis=0).argmax()] / of_class.sum()),
    }
    scores = {}
    for kind, by_code in by_kind.items():
        matrix = confusion(by_code, held_out)
        values = {"macro_f1": macro_f1(matrix), "accuracy": accuracy(matrix)}
        scores[kind] = {metric: (value, chances[metric], *sizes) for metric, value in values.items()}
    return scores


def _training_mean_error(pitch: PitchCounts, layer: int) -> float:
    return float(np.abs(pitch.eval_hz - pitch.total[layer].sum() / pitch.n[layer].sum()).mean())


def score_all(probes: Iterable[Probe], counts: Counts, codec: str) -> pl.DataFrame:
    """Return the metrics table (``METRICS``) of a codec's probes.

    Tasks without a held-out token have no rows.
    """
    held_out = {"phoneme": counts.phoneme.eval, "speaker": counts.speaker.eval, "pitch": counts.pitch.eval_hz}
    rows = [
        (codec, probe.task, probe.layer, "layer", kind, metric, *numbers)
        for probe in probes
        if held_out[probe.task].any()
        for kind, metrics in score(probe, counts).items()
        for metric, numbers in metrics.items()
    ]
    return pl.DataFrame(rows, METRICS, orient="row")


def save(metrics: pl.DataFrame, codec: str, split: Split, layout: Layout) -> None:
    """Write a codec's metrics, marked with the split that they were measured on."""
    write_table(metrics, layout.codec_metrics(codec), {"split": split.made_from})


def join(codecs: Iterable[str], split: Split, layout: Layout) -> pl.DataFrame:
    """Return the metrics of all ``codecs`` (by name or params file), and save them as the study's.

    Raises MissingInput where a codec has no metrics, or has them from another split than the others.
    """
    tables = []
    for codec in map(codec_name, codecs):
        path = layout.require(layout.codec_metrics(codec), f"03_probe (codec {codec}, evaluate true)")
        if pl.read_parquet_metadata(path).get("split") != split.made_from:
            raise MissingInput(
                f"{path} was measured on another split: run 02_encode and 03_probe (codec {codec}) again"
            )
        tables.append(pl.read_parquet(path))
    metrics = pl.concat(tables)
    write_table(metrics, layout.metrics)
    return metrics


def wide(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics with a column a layer, for reading."""
    named = metrics.with_columns(layer=pl.format("layer {}", "layer"))
    return named.pivot(on="layer", index=["codec", "task", "metric", "probe", "chance"], values="value")
