"""Counts: how often each code goes with each label. They are all that a probe of one layer needs.

Training tokens are counted in ``FOLDS`` folds of whole clusters (``split.CLUSTER``), so that what is chosen on training
data has other training data to be judged by, and a jackknife can leave one fold out. The last group is held out.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from rvqprobe.split import CLUSTER, Split, fold_of_utterance
from rvqprobe.tokens import Batch, Tokens, batches

FOLDS = 10
LAG_SECONDS = 0.08
"""Labels of layer 1 are tried at so much before and after a token's centre."""
SEMITONES_FROM = 27.5
"""Hz at 0 semitones (A0): below all speech."""
PITCH_CLASSES = [f"{SEMITONES_FROM * 2 ** (n / 12):.0f} Hz" for n in range(60)]
"""Lower edges of the semitones that F0 is sorted into for its mutual information."""


@dataclass(frozen=True)
class LabelCounts:
    """Tokens by layer, code, group and class."""

    classes: list[str]
    table: np.ndarray
    """(L, K, FOLDS + 1, Y) int64; the last group is held out."""

    @property
    def folds(self) -> np.ndarray:
        """(L, K, FOLDS, Y) training tokens by fold."""
        return self.table[:, :, :FOLDS]

    @cached_property
    def train(self) -> np.ndarray:
        """(L, K, Y) training tokens."""
        return self.folds.sum(axis=2)

    @property
    def eval(self) -> np.ndarray:
        """(L, K, Y) held-out tokens."""
        return self.table[:, :, FOLDS]


@dataclass(frozen=True)
class PitchSums:
    """Voiced tokens and the sums of their F0, by layer, code and group: (L, K, FOLDS + 1) each."""

    n: np.ndarray
    """int64."""
    hz: np.ndarray
    """float64, Hz."""
    semitones: np.ndarray
    """float64, semitones above ``SEMITONES_FROM``."""
    square: np.ndarray
    """(FOLDS + 1,) float64, summed squares of F0 by group, Hz²."""


@dataclass(frozen=True)
class LagCounts:
    """Training tokens of layer 1, whose phoneme and F0 are taken some frames from the token's centre."""

    phoneme: np.ndarray
    """(K, Y) int64."""
    n: np.ndarray
    """(K,) int64, voiced."""
    hz: np.ndarray
    """(K,) float64, summed F0, Hz."""


@dataclass(frozen=True)
class Counts:
    """All counts of one codec."""

    labels: dict[str, LabelCounts]
    """Of ``phoneme``, ``speaker`` and ``pitch`` (F0 sorted into semitones)."""
    pitch: PitchSums
    lags: dict[int, LagCounts]
    """By frames after (negative: before) the token's centre; without 0."""


def semitones(hz: np.ndarray) -> np.ndarray:
    """Return F0 in semitones above ``SEMITONES_FROM``."""
    return 12 * np.log2(hz / SEMITONES_FROM)


def add(
    codes: np.ndarray, kept: np.ndarray | slice, column: np.ndarray, *tables: tuple[np.ndarray, np.ndarray | None]
) -> None:
    """Add the ``kept`` of tokens with ``codes`` (N, L) to tables (L, K, J), at their ``column`` (kept,).

    Each table comes with the weights (kept,) that are summed in it, or None to count. Counts of parts add up.
    """
    for layer in range(codes.shape[1]):
        code = codes[:, layer][kept].astype(np.int64)
        for table, weights in tables:
            _, size, width = table.shape
            found = np.bincount(code * width + column, weights, size * width)
            table[layer] += found.reshape(size, width).astype(table.dtype, copy=False)


def read(tokens: Tokens, split: Split, seed: int, lagged: bool = True) -> Counts:
    """Return the counts of a token table under ``split``, a million tokens at a time; those of lags if ``lagged``."""
    layers, size, _ = tokens.codebooks.shape
    classes = {**split.classes, "pitch": PITCH_CLASSES}
    shape = (layers, size, FOLDS + 1)
    labels = {task: np.zeros((layers, size, shape[2] * len(names)), np.int64) for task, names in classes.items()}
    hz, height, square = np.zeros(shape), np.zeros(shape), np.zeros(FOLDS + 1)
    fold = {by: fold_of_utterance(split, by, FOLDS, seed) for by in set(CLUSTER.values())}
    reach = int(LAG_SECONDS * tokens.about["frame_rate"] + 1e-6) if lagged else 0
    lags = {
        lag: LagCounts(np.zeros((size, len(classes["phoneme"])), np.int64), np.zeros(size, np.int64), np.zeros(size))
        for lag in range(-reach, reach + 1)
        if lag
    }
    for batch in batches(tokens, split, "count"):
        for task in ("phoneme", "speaker"):
            label = getattr(batch, task)
            kept = np.flatnonzero(label >= 0)
            column = fold[CLUSTER[task]][batch.utterance[kept]] * len(classes[task]) + label[kept]
            add(batch.codes, kept, column, (labels[task], None))
        voiced = np.flatnonzero(~np.isnan(batch.hz))
        group, hertz = fold[CLUSTER["pitch"]][batch.utterance[voiced]], batch.hz[voiced]
        notes = semitones(hertz)
        column = group * len(PITCH_CLASSES) + notes.astype(np.int64).clip(0, len(PITCH_CLASSES) - 1)
        add(batch.codes, voiced, column, (labels["pitch"], None))
        add(batch.codes, voiced, group, (hz, hertz), (height, notes))
        square += np.bincount(group, hertz**2, FOLDS + 1)
        training = fold["utterance"][batch.utterance] < FOLDS
        for lag, counts in lags.items():
            _add_lagged(counts, batch, lag, training)
    tables = {task: table.reshape(*shape, -1) for task, table in labels.items()}
    pitch = PitchSums(tables["pitch"].sum(axis=-1), hz, height, square)
    return Counts({task: LabelCounts(classes[task], table) for task, table in tables.items()}, pitch, lags)


def _add_lagged(counts: LagCounts, batch: Batch, lag: int, training: np.ndarray) -> None:
    phoneme, hz = batch.lagged(lag)
    first = batch.codes[:, :1]
    kept = np.flatnonzero(training & (phoneme >= 0))
    add(first, kept, phoneme[kept], (counts.phoneme[None], None))
    voiced = np.flatnonzero(training & ~np.isnan(hz))
    column = np.zeros(len(voiced), np.int64)
    add(first, voiced, column, (counts.n[None, :, None], None), (counts.hz[None, :, None], hz[voiced]))


def code_use(tokens: Tokens) -> np.ndarray:
    """Return how many tokens have each code, (L, K) int64."""
    layers, size, _ = tokens.codebooks.shape
    use = np.zeros((layers, size, 1), np.int64)
    for shard in tokens.shards:
        codes = pl.read_parquet(shard, columns=[f"q{k}" for k in range(1, layers + 1)]).to_numpy()
        add(codes, slice(None), np.zeros(len(codes), np.int64), (use, None))
    return use[:, :, 0]


def summary(counts: Counts) -> pl.DataFrame:
    """Return tokens and classes by task and part."""
    rows: list[tuple[str, int | None, int, int]] = [
        (task, len(labels.classes), int(labels.train[0].sum()), int(labels.eval[0].sum()))
        for task, labels in counts.labels.items()
    ]
    return pl.DataFrame(rows, ["task", "classes", "training tokens", "held-out tokens"], orient="row")
