"""Probes: of each task and layer, the linear one and those it is compared with, fitted side by side and saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import threadpoolctl
from sklearn.base import BaseEstimator

from rvqprobe import solvers, store
from rvqprobe.counts import FOLDS, PITCH_CLASSES, SEMITONES_FROM, Counts, LagCounts
from rvqprobe.progress import track
from rvqprobe.solvers import Linear, Logistic
from rvqprobe.store import Layout
from rvqprobe.workers import choose, each

TASKS = ("phoneme", "speaker", "pitch")
LINEAR = "linear"
"""Balanced logistic regression, or linear regression of F0 in Hz: the study's own probe."""
LOOKUP = "lookup"
"""One answer a code, whatever its embedding."""
UNBALANCED = "unbalanced"
"""Logistic regression in which each token counts the same."""
CONTROL = "control"
"""The linear probe on a control task: a label drawn at random for each code (Hewitt & Liang 2019)."""
SEMITONES = "semitones"
"""Linear regression of F0 in semitones."""
COMPONENTS = "components"
"""The linear probe on the codebook's leading ``EQUAL_DIMENSION`` principal components."""
LAGGED = "lagged"
"""The linear probe of layer 1 for labels taken before or after the token's centre."""
KINDS = (LINEAR, LOOKUP, UNBALANCED, CONTROL, SEMITONES, COMPONENTS, LAGGED)
EQUAL_DIMENSION = 128
C_PATH = tuple(10.0**power for power in range(-4, 5))
"""Values that ``C: auto`` chooses from; the first fold of the training part judges."""
WORK = 250_000_000
"""Codes × dimensions × classes, summed over probes, that are worth starting another process."""


@dataclass(frozen=True)
class Settings:
    """How probes are fitted."""

    C: float | str
    """A number, or "auto"."""
    max_iter: int
    workers: int
    blas_threads: int
    seed: int


@dataclass(frozen=True)
class Probe:
    """One fitted probe."""

    task: str
    layer: int
    """From 1."""
    kind: str
    """One of ``KINDS``."""
    said: np.ndarray
    """(K,) what it says of each code: the number of a class, Hz or semitones."""
    fitted: Logistic | Linear | None
    """None for a lookup probe."""
    constant: float
    """What a probe that ignores its input would say: the most frequent training class, or the training mean."""
    n_train: int
    """Training tokens."""
    setting: float | None
    """C, or the smoothing of a lookup probe; None for linear regression."""
    lag: int = 0
    """Frames from the token's centre to where its label was taken."""
    truth: np.ndarray | None = None
    """(K,) the label that a control task gave each code."""


def settings(C: float | str, max_iter: int, workers: int, blas_threads: int, seed: int, counts: Counts,
             codebooks: np.ndarray) -> Settings:  # fmt: skip
    """Return the settings with this machine's choice for 0 workers; 0 BLAS threads are one everywhere.

    The number of workers changes no digit of the result; that of BLAS threads may change the last ones.
    """
    classes = sum(len(counts.labels[task].classes) for task in ("phoneme", "speaker"))
    return Settings(C, max_iter, choose(workers, codebooks.size * classes, WORK), blas_threads or 1, seed)


def fit_all(counts: Counts, codebooks: np.ndarray, chosen: Settings, kinds: Sequence[str] = KINDS) -> list[Probe]:
    """Fit the probes of every task and layer, layers side by side in processes.

    A task without a single labelled training token has no probes.
    """
    jobs: list[tuple[Any, ...]] = []
    for task in TASKS:
        for layer, codebook in enumerate(codebooks):
            lags = counts.lags if layer == 0 and LAGGED in kinds else {}
            if not counts.labels[task].train[layer].any():
                continue
            rng = np.random.default_rng([chosen.seed, TASKS.index(task), layer])
            of_class = counts.labels[task].train[layer].sum(axis=0)
            control = rng.choice(len(of_class), len(codebook), p=of_class / of_class.sum())
            if task == "pitch":
                pitch = counts.pitch
                sums = [values[layer][:, :FOLDS] for values in (pitch.n, pitch.hz, pitch.semitones)]
                jobs.append((_fit_pitch, (layer + 1, sums, lags, codebook, control, kinds), chosen.blas_threads))
            else:
                tables = {lag: counts.phoneme for lag, counts in lags.items()} if task == "phoneme" else {}
                mine = (task, layer + 1, counts.labels[task].folds[layer], tables, codebook, control, kinds)
                jobs.append((_fit_classes, (*mine, chosen.C, chosen.max_iter), chosen.blas_threads))
    results = track(each(_limited, jobs, chosen.workers), len(jobs), "probes", "task and layer")
    return [probe for of_job in results for probe in of_job]


def _limited(function: Any, arguments: tuple[Any, ...], threads: int) -> list[Probe]:
    with threadpoolctl.threadpool_limits(threads):
        return function(*arguments)


def _fit_classes(
    task: str, layer: int, folds: np.ndarray, lags: dict[int, np.ndarray], codebook: np.ndarray, control: np.ndarray,
    kinds: Sequence[str], C: float | str, max_iter: int,
) -> list[Probe]:  # fmt: skip
    """Fit the probes of phoneme or speaker to ``folds`` (K, F, Y), the lagged ones to ``lags`` (K, Y)."""
    table = folds.sum(axis=1)
    use = table.sum(axis=1)
    strength = 1.0 if isinstance(C, str) else C
    if C == "auto" and (rest := table - folds[:, 0]).any():
        strength = solvers.choose_C(rest, folds[:, 0], codebook, C_PATH, max_iter)
    constant, n_train = float(table.sum(axis=0).argmax()), int(use.sum())
    found = []

    def fit(kind: str, table: np.ndarray, lag: int = 0, truth: np.ndarray | None = None) -> None:
        fitted = solvers.fit_logistic(table, codebook, strength, max_iter, balanced=kind != UNBALANCED)
        most, tokens = float(table.sum(axis=0).argmax()), int(table.sum())
        found.append(Probe(task, layer, kind, fitted.predict(codebook), fitted, most, tokens, strength, lag, truth))

    if LINEAR in kinds:
        fit(LINEAR, table)
    if LOOKUP in kinds:
        said, smoothing = solvers.fit_lookup(folds)
        found.append(Probe(task, layer, LOOKUP, said, None, constant, n_train, smoothing))
    if UNBALANCED in kinds:
        fit(UNBALANCED, table)
    if CONTROL in kinds:
        fit(CONTROL, use[:, None] * (control[:, None] == np.arange(table.shape[1])), truth=control)
    if COMPONENTS in kinds:
        projection = solvers.principal(codebook, use, EQUAL_DIMENSION)
        leading = solvers.fit_logistic(table, codebook @ projection, strength, max_iter)
        fitted = solvers.through(leading, projection)
        said = leading.predict(codebook @ projection)
        found.append(Probe(task, layer, COMPONENTS, said, fitted, constant, n_train, strength))
    for lag, of_lag in lags.items():
        if of_lag.any():
            fit(LAGGED, of_lag, lag)
    return found


def _fit_pitch(
    layer: int, sums: list[np.ndarray], lags: dict[int, LagCounts], codebook: np.ndarray,
    control: np.ndarray, kinds: Sequence[str],
) -> list[Probe]:  # fmt: skip
    """Fit the probes of F0 to ``sums`` (tokens, Hz, semitones; each (K, F)), the lagged ones to ``lags``."""
    n, hz, semitones = (values.sum(axis=1) for values in sums)
    truth = (SEMITONES_FROM * 2 ** ((np.arange(len(PITCH_CLASSES)) + 0.5) / 12))[control]
    targets = {LINEAR: hz, SEMITONES: semitones, CONTROL: n * truth}
    found = []

    def keep(
        kind: str, fitted: Linear | None, said: np.ndarray, n: np.ndarray, total: np.ndarray, lag: int = 0,
        smoothing: float | None = None,
    ) -> None:  # fmt: skip
        about = (float(total.sum() / n.sum()), int(n.sum()))
        answer = truth if kind == CONTROL else None
        found.append(Probe("pitch", layer, kind, said, fitted, *about, smoothing, lag, answer))

    wanted = [kind for kind in targets if kind in kinds]
    if wanted:
        fits = solvers.fit_linear(n, np.column_stack([targets[kind] for kind in wanted]), codebook)
        for kind, fitted in zip(wanted, fits, strict=True):
            keep(kind, fitted, fitted.predict(codebook), n, targets[kind])
    if LOOKUP in kinds:
        said, smoothing = solvers.fit_mean(*sums[:2])
        keep(LOOKUP, None, said, n, hz, smoothing=smoothing)
    if COMPONENTS in kinds:
        projection = solvers.principal(codebook, n, EQUAL_DIMENSION)
        [leading] = solvers.fit_linear(n, hz[:, None], codebook @ projection)
        keep(COMPONENTS, solvers.through(leading, projection), leading.predict(codebook @ projection), n, hz)
    for lag, shifted in lags.items():
        if shifted.n.any():
            [fitted] = solvers.fit_linear(shifted.n, shifted.hz[:, None], codebook)
            keep(LAGGED, fitted, fitted.predict(codebook), shifted.n, shifted.hz, lag)
    return found


CERTIFICATES = {
    "task": pl.String,
    "layer": pl.Int64,
    "probe": pl.String,
    "lag": pl.Int64,
    "C or smoothing": pl.Float64,
    "objective": pl.Float64,
    "largest gradient": pl.Float64,
    "iterations": pl.Int64,
    "converged": pl.Boolean,
    "rank": pl.Int64,
}


def certificates(probes: list[Probe]) -> pl.DataFrame:
    """Return how each probe was fitted, one row a probe."""
    rows = []
    for probe in probes:
        fitted = vars(probe.fitted) if probe.fitted else {}
        numbers = (fitted.get(name) for name in ("objective", "gradient", "iterations", "converged", "rank"))
        rows.append((probe.task, probe.layer, probe.kind, probe.lag, probe.setting, *numbers))
    return pl.DataFrame(rows, CERTIFICATES, orient="row")


def warning(table: pl.DataFrame) -> str:
    """Return a sentence on whether all probes of a certificate table converged."""
    failed = table.filter(~pl.col("converged"))
    if failed.is_empty():
        return f"All {table['converged'].count()} iterative probes converged."
    rows = failed.select("probe", "task", "layer").iter_rows()
    names = ", ".join(f"{kind} {task} layer {layer}" for kind, task, layer in rows)
    return f"WARNING: not converged within max_iter: {names}. Their scores may still change: raise max_iter."


def save(probes: list[Probe], codec: str, layout: Layout, classes: dict[str, list[str]]) -> None:
    """Write the linear probe of each task and layer as npz: coefficients, classes and how it was fitted."""
    for probe in probes:
        if probe.kind == LINEAR and probe.fitted:
            about = {"codec": codec, "task": probe.task, "layer": probe.layer, "classes": classes.get(probe.task, [])}
            about |= {} if probe.setting is None else {"C": probe.setting}
            arrays = {name: np.asarray(value) for name, value in {**about, **vars(probe.fitted)}.items()}
            store.write_arrays(layout.probe(codec, probe.layer, probe.task), **arrays)


def to_sklearn(path: Path) -> BaseEstimator:
    """Return the probe saved in ``path`` as a fitted scikit-learn estimator.

    It takes embeddings (rows of the layer's codebook, (N, D)): a ``LogisticRegression`` that names classes (a constant
    classifier where training had only one), or a ``LinearRegression`` that gives Hz.
    """
    saved = store.read_arrays(path)
    kind = Logistic if "present" in saved else Linear
    fitted = kind(**{name: saved[name] for name in kind.__dataclass_fields__})
    if isinstance(fitted, Linear):
        return fitted.to_sklearn()
    return fitted.to_sklearn(saved["classes"].tolist(), float(saved["C"]))
