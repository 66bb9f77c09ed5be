"""Probes: one of each task and layer, fitted side by side, with their certificates, and saved."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import threadpoolctl

from rvqprobe import store
from rvqprobe.counts import Counts
from rvqprobe.progress import track
from rvqprobe.solvers import Linear, Logistic, fit_linear, fit_logistic, fit_lookup, fit_mean
from rvqprobe.store import Layout
from rvqprobe.workers import choose, each

TASKS = ("phoneme", "speaker", "pitch")


@dataclass(frozen=True)
class Probe:
    """The probes of one task and layer."""

    task: str
    layer: int
    """From 1."""
    linear: Logistic | Linear
    lookup: np.ndarray
    """(K,) class number or Hz of each code."""
    predicted: np.ndarray
    """(K,) what the linear probe says of each code."""


def fit(
    task: str, layer: int, counts: tuple[np.ndarray, ...], codebook: np.ndarray, C: float, max_iter: int, threads: int
) -> Probe:
    """Fit the linear and the lookup probe of one ``task`` and ``layer`` with ``threads`` BLAS threads."""
    with threadpoolctl.threadpool_limits(threads):
        if task == "pitch":
            linear: Logistic | Linear = fit_linear(counts[0], counts[1], codebook)
            lookup = fit_mean(counts[0], counts[1])
        else:
            linear = fit_logistic(counts[0], codebook, C, max_iter)
            lookup = fit_lookup(counts[0])
        return Probe(task, layer, linear, lookup, linear.predict(codebook))


def fit_all(
    counts: Counts, codebooks: np.ndarray, C: float, max_iter: int, workers: int, blas_threads: int
) -> list[Probe]:
    """Fit every layer's probes of the three tasks side by side in ``workers`` processes.

    A task without a single labelled training token has no probes. The number of workers changes no digit.
    """
    jobs: list[tuple[Any, ...]] = []
    for task in TASKS:
        for layer, codebook in enumerate(codebooks):
            if task == "pitch":
                mine: tuple[np.ndarray, ...] = (counts.pitch.n[layer], counts.pitch.total[layer])
            else:
                mine = (getattr(counts, task).train[layer],)
            if mine[0].any():
                jobs.append((task, layer + 1, mine, codebook, C, max_iter, blas_threads or 1))
    tokens = int(counts.speaker.train[0].sum())
    return list(track(each(fit, jobs, choose(workers, tokens, 10**6)), len(jobs), "probes", "probe"))


def certificates(probes: list[Probe]) -> pl.DataFrame:
    """Return how each linear probe was fitted, one row a probe."""
    rows = []
    for probe in probes:
        fitted = vars(probe.linear)
        numbers = (fitted.get(name) for name in ("objective", "gradient", "iterations", "converged", "rank"))
        rows.append((probe.task, probe.layer, *numbers))
    schema = {"task": pl.String, "layer": pl.Int64, "objective": pl.Float64, "largest gradient": pl.Float64}
    schema |= {"iterations": pl.Int64, "converged": pl.Boolean, "rank": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def warning(table: pl.DataFrame) -> str:
    """Return a sentence on whether all probes of a certificate table converged."""
    failed = table.filter(~pl.col("converged"))
    if failed.is_empty():
        return f"All {table['converged'].count()} iterative probes converged."
    names = ", ".join(f"{task} layer {layer}" for task, layer in failed.select("task", "layer").iter_rows())
    return f"WARNING: not converged within max_iter: {names}. Their scores may still change: raise max_iter."


def save(probe: Probe, codec: str, layout: Layout, classes: list[str], C: float) -> None:
    """Write a probe as npz: its coefficients, classes, lookup and how it was fitted."""
    fitted = {name: np.asarray(value) for name, value in vars(probe.linear).items()}
    about = {"codec": codec, "task": probe.task, "layer": probe.layer, "C": C, "classes": classes or ["hz"]}
    if "present" in fitted:
        fitted["coef_classes"] = np.array(classes)[fitted.pop("present")]
    path = layout.probe(codec, probe.layer, probe.task)
    store.write_arrays(path, **{k: np.asarray(v) for k, v in about.items()}, lookup=probe.lookup, **fitted)
