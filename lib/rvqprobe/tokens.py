"""The token table of one codec: the codes, phone and F0 of every token."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rvqprobe import store
from rvqprobe.corpus import QUARANTINE
from rvqprobe.progress import track
from rvqprobe.split import EVAL, TRAIN, Split
from rvqprobe.store import Layout, MissingInput
from rvqprobe.workers import each

BATCH = 1_000_000
"""Tokens that are counted at once: enough to outweigh the fixed work of each step, few enough to be small."""


@dataclass(frozen=True)
class Tokens:
    """The saved token table of one codec."""

    shards: tuple[Path, ...]
    """Parquet files: utterance, speaker, chapter, frame, q1 … qL, phone (as in the TextGrid; null: none), f0_hz (null:
    unvoiced), one row a token, an utterance's frames one after another."""
    codebooks: np.ndarray
    """(L, K, D) float32."""
    about: dict[str, Any]
    """Codec, sample_rate, frame_rate, layers, codebook_size, dimension, tokens, seconds, notes, split, made_from."""
    quarantine: pl.DataFrame
    """Utterances left out, with reasons."""

    def frame(self) -> pl.LazyFrame:
        """Return the whole table, lazily."""
        return pl.scan_parquet(self.shards)


@dataclass(frozen=True)
class Batch:
    """Tokens of whole utterances, with their labels as numbers."""

    codes: np.ndarray
    """(N, L) uint16."""
    utterance: np.ndarray
    """(N,) row of the split's utterance table."""
    phoneme: np.ndarray
    """(N,) number of the class, −1 for none."""
    speaker: np.ndarray
    """(N,) number of the class, −1 for none."""
    hz: np.ndarray
    """(N,) float64, NaN where unvoiced."""

    def of(self, chosen: np.ndarray) -> "Batch":
        """Return the tokens that the mask or index ``chosen`` picks."""
        return Batch(*(column[chosen] for column in vars(self).values()))

    def lagged(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Return phoneme and F0 of the token ``frames`` later, −1 and NaN beyond the utterance's ends."""
        if not frames:
            return self.phoneme, self.hz
        phoneme, hz = np.full_like(self.phoneme, -1), np.full_like(self.hz, np.nan)
        here, there = slice(max(0, -frames), max(0, len(hz) - frames)), slice(max(0, frames), max(0, len(hz) + frames))
        same = self.utterance[here] == self.utterance[there]
        phoneme[here], hz[here] = np.where(same, self.phoneme[there], -1), np.where(same, self.hz[there], np.nan)
        return phoneme, hz


def write_shard(
    table: pl.DataFrame, path: Path, notes: Mapping[str, int] | None = None, quarantine: Sequence[tuple[str, ...]] = ()
) -> None:
    """Write one shard of a token table; its footer says what ``load`` adds up: tokens, ``notes`` and ``quarantine``."""
    about = {"tokens": len(table), "notes": notes or {}, "quarantine": quarantine}
    store.write_table(table, path, {"about": json.dumps(about)})


def load(layout: Layout, codec: str, split: Split | None = None, partial: bool = False) -> Tokens:
    """Return the saved token table of a codec; a ``partial`` one may lack shards.

    Raises MissingInput where 02_encode has not run to its end in all its parts, or ran on another split than ``split``.
    """
    folder, notebook = layout.tokens(codec), f"02_encode (codec {codec})"
    about = json.loads(layout.require(folder / "tokens.json", notebook).read_text())
    if split is not None and about["split"] != split.made_from:
        raise MissingInput(f"{folder} was encoded for another split: run the notebook {notebook} again")
    named = [folder / shard for shard in about["shards"]]
    shards = tuple(path for path in named if path.exists())
    if len(shards) < len(named) and not (partial and shards):
        raise MissingInput(
            f"{len(named) - len(shards)} of {len(named)} shards are missing in {folder}: run the notebook {notebook} "
            "again with the same parameters, and every part of it where it was divided (parameter shard)"
        )
    footers = [json.loads(pl.read_parquet_metadata(path)["about"]) for path in shards]
    about["tokens"] = sum(footer["tokens"] for footer in footers)
    about["notes"] = dict(sum((Counter(footer["notes"]) for footer in footers), Counter[str]()))
    quarantine = [entry for footer in footers for entry in footer["quarantine"]]
    codebooks = store.read_arrays(folder / "codebooks.npz")["codebooks"]
    return Tokens(shards, codebooks, about, pl.DataFrame(quarantine, QUARANTINE, orient="row"))


def batches(tokens: Tokens, split: Split, label: str, parts: Sequence[str] = (TRAIN, EVAL)) -> Iterator[Batch]:
    """Yield the tokens of ``parts`` of the split, a million at a time, under a bar named ``label``."""
    waiting: list[Batch] = []
    for batch in _shards(tokens, split, label, parts):
        waiting.append(batch)
        if sum(len(b.hz) for b in waiting) >= BATCH:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Batch]) -> Batch:
    return Batch(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Batch)))


def _shards(tokens: Tokens, split: Split, label: str, parts: Sequence[str]) -> Iterator[Batch]:
    number = {name: row for row, name in enumerate(split.utterances["utterance"])}
    classes = {task: {name: n for n, name in enumerate(names)} for task, names in split.classes.items()}
    phoneme_of = {phone: classes["phoneme"][name] for phone, name in split.phone_classes.items()}
    speaker_of = np.array([classes["speaker"].get(name, -1) for name in split.utterances["speaker"]])
    wanted = split.utterances["part"].is_in(parts).to_numpy()
    codes = [f"q{layer}" for layer in range(1, len(tokens.codebooks) + 1)]

    def read(shard: Path) -> Batch:
        table = pl.read_parquet(shard, columns=["utterance", *codes, "phone", "f0_hz"])
        utterance = _by_runs(table["utterance"], number)
        if not wanted.all():
            kept = wanted[utterance]
            table, utterance = table.filter(kept), utterance[kept]
        hz = table["f0_hz"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        phoneme = _by_runs(table["phone"], phoneme_of)
        return Batch(table.select(codes).to_numpy(), utterance, phoneme, speaker_of[utterance], hz)

    ahead = each(read, ((shard,) for shard in tokens.shards), 1)  # a thread beside the counting
    yield from track(ahead, len(tokens.shards), label, "shard")


def _by_runs(column: pl.Series, number: dict[str, int]) -> np.ndarray:
    """Return the number of each entry, −1 where it has none; entries come in runs, and each run is looked up once."""
    runs = column.rle().struct.unnest()
    numbers = np.array([number.get(name, -1) for name in runs["value"].to_list()], np.int64)
    return np.repeat(numbers, runs["len"].to_numpy())
