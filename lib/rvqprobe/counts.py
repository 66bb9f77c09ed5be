"""Counts: how often each code goes with each label. They are all that a probe of one layer needs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from rvqprobe.progress import track
from rvqprobe.split import EVAL, TRAIN, Split
from rvqprobe.tokens import Tokens

PARTS = (TRAIN, EVAL)


@dataclass(frozen=True)
class LabelCounts:
    """Tokens by layer, code and class, of the tasks ``phoneme`` and ``speaker``."""

    classes: list[str]
    train: np.ndarray
    """(L, K, Y) int64."""
    eval: np.ndarray
    """(L, K, Y) int64."""


@dataclass(frozen=True)
class PitchCounts:
    """F0 by layer and code; voiced tokens only."""

    n: np.ndarray
    """(L, K) int64: training tokens of each code."""
    total: np.ndarray
    """(L, K) float64: their summed F0, Hz."""
    eval_codes: np.ndarray
    """(N, L): codes of the held-out tokens."""
    eval_hz: np.ndarray
    """(N,) float64: their F0."""


@dataclass(frozen=True)
class Counts:
    """All counts of one codec."""

    phoneme: LabelCounts
    speaker: LabelCounts
    pitch: PitchCounts


def table(codes: np.ndarray, labels: np.ndarray, codebook_size: int, classes: int) -> np.ndarray:
    """Return how many tokens have which code and label in each layer, (L, K, Y) int64.

    ``codes`` is (N, L), ``labels`` (N,) class numbers, −1 for none. Counts of parts of a corpus add up.
    """
    labelled = labels >= 0
    labels, codes = labels[labelled].astype(np.int64), codes[labelled]
    flat = [
        np.bincount(column.astype(np.int64) * classes + labels, minlength=codebook_size * classes) for column in codes.T
    ]
    return np.stack(flat).reshape(codes.shape[1], codebook_size, classes)


def read(tokens: Tokens, split: Split) -> Counts:
    """Return the counts of a token table under ``split``, reading one shard at a time."""
    layers, size, _ = tokens.codebooks.shape
    classes = {task: {name: number for number, name in enumerate(split.classes[task])} for task in split.classes}
    phoneme_of = {label: classes["phoneme"][name] for label, name in split.phone_classes.items()}
    parts = split.utterances.select("utterance", "part").lazy()
    counts = {
        (task, part): np.zeros((layers, size, len(classes[task])), np.int64) for task in classes for part in PARTS
    }
    n, total = np.zeros((layers, size), np.int64), np.zeros((layers, size))
    eval_codes: list[np.ndarray] = []
    eval_hz: list[np.ndarray] = []
    for shard in track(tokens.shards, len(tokens.shards), "count", "shard"):
        frame = pl.scan_parquet(shard).join(parts, on="utterance", maintain_order="left").with_columns(
            phoneme=pl.col("phone").replace_strict(phoneme_of, default=-1, return_dtype=pl.Int64),
            speaker=pl.col("speaker").replace_strict(classes["speaker"], default=-1, return_dtype=pl.Int64),
        ).collect()  # fmt: skip
        for part in PARTS:
            mine = frame.filter(part=part)
            codes = mine.select(f"q{layer}" for layer in range(1, layers + 1)).to_numpy()
            for task in classes:
                counts[task, part] += table(codes, mine[task].to_numpy(), size, len(classes[task]))
            voiced = mine["f0_hz"].is_not_null().to_numpy()
            hz = mine["f0_hz"].drop_nulls().to_numpy().astype(np.float64)
            if part == EVAL:
                eval_codes.append(codes[voiced])
                eval_hz.append(hz)
            else:
                n += _per_code(codes[voiced], None, size)
                total += _per_code(codes[voiced], hz, size)
    labels = {task: LabelCounts(split.classes[task], counts[task, TRAIN], counts[task, EVAL]) for task in classes}
    return Counts(**labels, pitch=PitchCounts(n, total, np.concatenate(eval_codes), np.concatenate(eval_hz)))


def code_use(tokens: Tokens) -> np.ndarray:
    """Return how many tokens have each code, (L, K) int64."""
    layers, size, _ = tokens.codebooks.shape
    use = np.zeros((layers, size), np.int64)
    for shard in tokens.shards:
        use += _per_code(pl.read_parquet(shard, columns=[f"q{k}" for k in range(1, layers + 1)]).to_numpy(), None, size)
    return use


def summary(counts: Counts) -> pl.DataFrame:
    """Return tokens and classes by task and part."""
    rows: list[tuple[str, int | None, int, int]] = [
        (task, len(labels.classes), int(labels.train[0].sum()), int(labels.eval[0].sum()))
        for task, labels in (("phoneme", counts.phoneme), ("speaker", counts.speaker))
    ]
    rows.append(("pitch", None, int(counts.pitch.n[0].sum()), len(counts.pitch.eval_hz)))
    return pl.DataFrame(rows, ["task", "classes", "training tokens", "held-out tokens"], orient="row")


def _per_code(codes: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    columns: Iterable[np.ndarray] = codes.T
    return np.stack([np.bincount(column, weights, minlength=size) for column in columns])
