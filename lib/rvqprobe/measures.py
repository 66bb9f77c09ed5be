"""Measures: how well probes do on held-out tokens, with intervals, exactly, from counts and cluster sums."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from rvqprobe import bootstrap, clusters, information
from rvqprobe.clusters import BROAD, Sums
from rvqprobe.counts import FOLDS, Counts, PitchSums
from rvqprobe.params import codec_name
from rvqprobe.probes import COMPONENTS, CONTROL, LAGGED, LINEAR, SEMITONES, UNBALANCED, Probe
from rvqprobe.split import CLUSTER, Split
from rvqprobe.store import Layout, MissingInput, write_table

METRICS = {
    "codec": pl.String,
    "task": pl.String,
    "layer": pl.Int64,
    "input": pl.String,
    "probe": pl.String,
    "lag_ms": pl.Float64,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "chance": pl.Float64,
    "n_train": pl.Int64,
    "n_eval": pl.Int64,
}
"""One row a number: layers count from 1; ``input`` is "layer", or "components" for the leading 128 of the codebook;
``probe`` one of ``probes.KINDS``, "counts" where there is none (mutual information), or "bound" for what no probe
can exceed; ``lag_ms`` from the token's centre to where its label was taken; ``low`` and ``high`` bound a 95 % interval."""
TASK_METRICS = {"phoneme": ("macro_f1", "accuracy"), "speaker": ("macro_f1", "accuracy"), "pitch": ("r2", "mae_hz")}
PRIMARY = {task: metrics[0] for task, metrics in TASK_METRICS.items()}
CLASS_SUMS = ("truth", "said", "hits")
PRIMARY_SUMS = {"phoneme": CLASS_SUMS, "speaker": CLASS_SUMS, "pitch": ("n", "y", "yy", "squared")}
"""What of the cluster sums a task's primary metric is made from."""
NAMES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "r2": "R²",
    "mae_hz": "mean absolute error (Hz)",
    "utterance_accuracy": "accuracy, whole utterance",
}
"""Metrics as figures and sentences call them."""
RECALLS = {
    "codec": pl.String,
    "layer": pl.Int64,
    "level": pl.String,
    "class": pl.String,
    "recall": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_eval": pl.Int64,
}
"""Share of a class's held-out tokens that the linear probe names rightly; ``level`` is "phone" or "broad class", at which
any phone of the same broad class counts as right."""
CONFUSIONS = {"task": pl.String, "layer": pl.Int64, "true": pl.String, "said": pl.String, "tokens": pl.Int64}
"""Held-out tokens by true and predicted class of the linear probes."""
Weights = dict[str, np.ndarray]
"""By task, how often each held-out cluster is in each draw of the bootstrap, (1 + DRAWS, clusters)."""


def cluster_weights(split: Split, seed: int) -> Weights:
    """Return the bootstrap's weights of the held-out clusters."""
    by = {of: bootstrap.weights(len(clusters.held_out_clusters(split, of)[0]), seed) for of in set(CLUSTER.values())}
    return {task: by[of] for task, of in CLUSTER.items()}


def confusion(predicted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return held-out tokens by true and predicted class, (Y, Y).

    ``predicted`` (K,) is the class that each code is given, ``table`` (K, Y) the held-out tokens by code and class.
    """
    matrix = np.zeros((table.shape[1],) * 2, np.int64)
    np.add.at(matrix.T, predicted, table)
    return matrix


def macro_f1(truth: np.ndarray, said: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes that occur, NaN where none does.

    The arguments are tokens (…, Y) of each class, said to be of it, and both.
    """
    f1 = 2 * hits / np.maximum(truth + said, 1)
    occur = np.count_nonzero(truth, axis=-1)
    return np.where(occur > 0, np.where(truth > 0, f1, 0).sum(axis=-1) / np.maximum(occur, 1), np.nan)


def r2(n: np.ndarray, y: np.ndarray, yy: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """Return the coefficient of determination about the mean, from sums of tokens, target, its square and squared error."""
    return 1 - squared / (yy - y**2 / n)


def score(probe: Probe, sums: Sums, counts: Counts, weights: np.ndarray) -> dict[str, tuple[np.ndarray, float | None]]:
    """Return (value and draws (1 + DRAWS,), chance level) by metric of one probe."""
    total = {name: weights @ values for name, values in sums.items()}
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may hold no token at all
        if probe.task == "pitch":
            return _pitch_scores(probe, total)
        if probe.kind == CONTROL:
            return {"accuracy": (total["right"] / total["n"], None)}
        truth, hits = total["truth"], total["hits"]
        majority = int(probe.constant)
        found: dict[str, tuple[np.ndarray, float | None]] = {
            "macro_f1": (_primary(probe.task, total), 1 / np.count_nonzero(truth[0])),
            "accuracy": (hits.sum(axis=1) / truth.sum(axis=1), float(truth[0, majority] / truth[0].sum())),
        }
        if probe.kind == UNBALANCED:
            prior = counts.labels[probe.task].train[probe.layer - 1].sum(axis=0)
            known = prior > 0
            gain = truth[:, known] @ np.log2(prior.sum() / prior[known]) - total["surprise"]
            found["v_information"] = (gain / truth[:, known].sum(axis=1), 0.0)
        if "named" in total:
            speakers = sums["truth"].argmax(axis=1)[sums["utterances"] > 0]
            found["utterance_accuracy"] = (total["named"] / total["utterances"], float(np.mean(speakers == majority)))
        return found


def _pitch_scores(probe: Probe, total: Sums) -> dict[str, tuple[np.ndarray, float | None]]:
    found: dict[str, tuple[np.ndarray, float | None]] = {
        "r2": (_primary(probe.task, total), None if probe.kind == CONTROL else 0.0)
    }
    if probe.kind != CONTROL:
        unit = "semitones" if probe.kind == SEMITONES else "hz"
        found[f"mae_{unit}"] = (total["absolute"] / total["n"], float(total["constant"][0] / total["n"][0]))
    return found


def score_all(
    probes: Sequence[Probe], sums: Sequence[Sums], counts: Counts, weights: Weights, frame_rate: float, codec: str
) -> pl.DataFrame:  # fmt: skip
    """Return the metrics (``METRICS``) of a codec's probes, in which probes without a held-out token have no rows.

    Intervals are those of the cluster bootstrap: they hold the fitted probes, and so the training part, fixed.
    """
    rows: list[tuple] = []
    accuracies: dict[tuple[str, int, str], np.ndarray] = {}
    for probe, mine in zip(probes, sums, strict=True):
        n_eval = int(mine["n" if "n" in mine else "truth"].sum()) if mine else 0
        if not n_eval:
            continue
        about = (codec, probe.task, probe.layer, "components" if probe.kind == COMPONENTS else "layer")
        kind, lag = (LINEAR if probe.kind in (COMPONENTS, LAGGED) else probe.kind), 1000 * probe.lag / frame_rate
        metrics = score(probe, mine, counts, weights[probe.task])
        for metric, (values, chance) in metrics.items():
            rows.append((*about, kind, lag, metric, *_interval(values), chance, probe.n_train, n_eval))
        if probe.kind in (LINEAR, CONTROL):
            name = "r2" if probe.task == "pitch" else "accuracy"
            accuracies[probe.task, probe.layer, probe.kind] = metrics[name][0]
            if probe.kind == CONTROL and (of_task := accuracies.get((probe.task, probe.layer, LINEAR))) is not None:
                values = of_task - accuracies[probe.task, probe.layer, CONTROL]
                rows.append((*about, LINEAR, lag, "selectivity", *_interval(values), None, probe.n_train, n_eval))
    return pl.DataFrame(rows, METRICS, orient="row")


def _interval(values: np.ndarray) -> tuple[float | None, float | None, float | None]:
    return _nulls(bootstrap.interval(values))


def _nulls(numbers: tuple[float, float, float]) -> tuple[float | None, float | None, float | None]:
    value, low, high = (None if np.isnan(number) else number for number in numbers)
    return value, low, high


def describe(counts: Counts, codec: str) -> pl.DataFrame:
    """Return the metrics (``METRICS``) that need no probe: mutual information, and what no probe can exceed held out."""
    rows: list[tuple] = []
    for task, labels in counts.labels.items():
        for layer, table in enumerate(labels.eval):
            n_train, n_eval = int(labels.train[layer].sum()), int(table.sum())
            about = (codec, task, layer + 1, "layer")
            if n_train:
                for metric, numbers in information.estimates(labels.folds[layer]).items():
                    rows.append((*about, "counts", 0.0, metric, *_nulls(numbers), 0.0, n_train, n_eval))
            if n_eval:
                metric = "r2" if task == "pitch" else "accuracy"
                value = _best_r2(counts.pitch, layer) if task == "pitch" else _best(table)
                rows.append((*about, "bound", 0.0, metric, value, None, None, None, n_train, n_eval))
    return pl.DataFrame(rows, METRICS, orient="row")


def _best(table: np.ndarray) -> float:
    return float(table.max(axis=1).sum() / table.sum())


def _best_r2(pitch: PitchSums, layer: int) -> float | None:
    n, total = pitch.n[layer][:, FOLDS], pitch.hz[layer][:, FOLDS]
    about_zero = total.sum() ** 2 / n.sum()
    spread = pitch.square[FOLDS] - about_zero
    return float((np.sum(total**2 / np.maximum(n, 1)) - about_zero) / spread) if spread > 0 else None


def recalls(probes: Sequence[Probe], sums: Sequence[Sums], split: Split, weights: Weights, codec: str) -> pl.DataFrame:
    """Return the recall (``RECALLS``) of each phone and broad class by the linear probe of each layer."""
    levels = (("phone", split.classes["phoneme"], "truth", "hits"), ("broad class", BROAD, "broad", "broad_hits"))
    rows = []
    for probe, mine in zip(probes, sums, strict=True):
        if probe.task == "phoneme" and probe.kind == LINEAR and mine:
            for level, names, truth, hits in levels:
                with np.errstate(invalid="ignore", divide="ignore"):
                    draws = (weights["phoneme"] @ mine[hits]) / (weights["phoneme"] @ mine[truth])
                n = mine[truth].sum(axis=0)
                present = np.flatnonzero(n)
                rows += [(codec, probe.layer, level, names[y], *_interval(draws[:, y]), int(n[y])) for y in present]
    return pl.DataFrame(rows, RECALLS, orient="row")


def confusions(probes: Iterable[Probe], counts: Counts) -> pl.DataFrame:
    """Return held-out tokens by ``task, layer, true, said`` (class names) of the linear probes; zeros are left out."""
    tables = []
    for probe in probes:
        if probe.task in ("phoneme", "speaker") and probe.kind == LINEAR:
            labels = counts.labels[probe.task]
            matrix, names = confusion(probe.said, labels.eval[probe.layer - 1]), np.array(labels.classes)
            true, said = np.nonzero(matrix)
            about = {"task": [probe.task] * len(true), "layer": [probe.layer] * len(true)}
            tables.append(
                pl.DataFrame(
                    {**about, "true": names[true], "said": names[said], "tokens": matrix[true, said]}, CONFUSIONS
                )
            )
    return pl.concat(tables) if tables else pl.DataFrame(schema=CONFUSIONS)


def save(table: pl.DataFrame, path: Path, split: Split) -> None:
    """Write a codec's metrics, or a table that goes with them, marked with the split that they were measured on."""
    write_table(table, path, {"split": split.made_from})


def read(codec: str, split: Split, layout: Layout, path: Path) -> pl.DataFrame:
    """Return what ``save`` wrote for ``codec``.

    Raises MissingInput where it is missing or was measured on another split.
    """
    remedy = f"03_probe (codec {codec}, evaluate true)"
    layout.require(path, remedy)
    if pl.read_parquet_metadata(path).get("split") != split.made_from:
        raise MissingInput(f"{path} was measured on another split: run 02_encode and {remedy} again")
    return pl.read_parquet(path)


def join(codecs: Iterable[str], split: Split, layout: Layout) -> pl.DataFrame:
    """Return the metrics of all ``codecs`` (by name or params file), and save them as the study's.

    Raises MissingInput where a codec has no metrics, or has them from another split than the others.
    """
    metrics = pl.concat(read(name, split, layout, layout.codec_metrics(name)) for name in map(codec_name, codecs))
    write_table(metrics, layout.metrics)
    return metrics


Profiles = dict[tuple[str, str], np.ndarray]
"""By codec and task, the linear probe's primary metric and its draws over the layers, (1 + DRAWS, L)."""


def profiles(codecs: Iterable[str], weights: Weights, layout: Layout) -> Profiles:
    """Return the profiles of all ``codecs`` from their saved cluster sums; they share the draws of ``weights``."""
    found: Profiles = {}
    for name in map(codec_name, codecs):
        sums = clusters.load(layout, name)
        for task in TASK_METRICS:
            layers = sorted(layer for of, layer in sums if of == task)
            totals = [{name: weights[task] @ sums[task, k][name] for name in PRIMARY_SUMS[task]} for k in layers]
            with np.errstate(invalid="ignore", divide="ignore"):
                columns = [_primary(task, total) for total in totals]
            if columns and not np.isnan(columns[0][0]):
                found[name, task] = np.column_stack(columns)
    return found


def _primary(task: str, total: Sums) -> np.ndarray:
    return (r2 if task == "pitch" else macro_f1)(*(total[name] for name in PRIMARY_SUMS[task]))


def compare(found: Profiles) -> pl.DataFrame:
    """Return the difference of each two codecs, layer by layer, in the linear probe's primary metric.

    ``low`` and ``high`` bound its 95 % interval over shared draws; ``disagree`` is the share of draws without its sign.
    """
    rows = []
    for task, metric in PRIMARY.items():
        for first, second in combinations([codec for codec, of in found if of == task], 2):
            for layer, (a, b) in enumerate(zip(found[first, task].T, found[second, task].T, strict=False), 1):
                numbers = (*_interval(a - b), bootstrap.disagree(a - b))
                rows.append((task, metric, first, second, layer, *numbers))
    names = ["task", "metric", "codec", "minus", "layer", "difference", "low", "high", "disagree"]
    schema = dict.fromkeys(names, pl.Float64) | dict.fromkeys(names[:4], pl.String) | {"layer": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def wide(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the metrics of unlagged labels with a column a layer, for reading."""
    named = metrics.filter(lag_ms=0).with_columns(layer=pl.format("layer {}", "layer"))
    return named.pivot(on="layer", index=["codec", "task", "metric", "probe", "input", "chance"], values="value")
