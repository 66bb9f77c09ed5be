"""The token table of one codec: the codes, phone and F0 of every token."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rvqprobe import store
from rvqprobe.corpus import QUARANTINE
from rvqprobe.split import Split
from rvqprobe.store import Layout, MissingInput


@dataclass(frozen=True)
class Tokens:
    """The saved token table of one codec."""

    shards: tuple[Path, ...]
    """Parquet files: utterance, speaker, chapter, frame, q1 … qL, phone (as in the TextGrid; null: none), f0_hz (null:
    unvoiced), one row a token."""
    codebooks: np.ndarray
    """(L, K, D) float32."""
    about: dict[str, Any]
    """Codec, sample_rate, frame_rate, layers, codebook_size, dimension, tokens, seconds, notes, split, made_from."""
    quarantine: pl.DataFrame
    """Utterances left out, with reasons."""

    def frame(self) -> pl.LazyFrame:
        """Return the whole table, lazily."""
        return pl.scan_parquet(self.shards)


def load(layout: Layout, codec: str, split: Split | None = None) -> Tokens:
    """Return the saved token table of a codec.

    Raises MissingInput where 02_encode has not run to its end, or ran on another split than ``split``.
    """
    folder = layout.tokens(codec)
    about = json.loads(layout.require(folder / "tokens.json", f"02_encode (codec {codec})").read_text())
    shards = tuple(layout.require(folder / shard, f"02_encode (codec {codec})") for shard in about["shards"])
    if split is not None and about["split"] != split.made_from:
        raise MissingInput(f"{folder} was encoded for another split: run the notebook 02_encode (codec {codec}) again")
    codebooks = store.read_arrays(folder / "codebooks.npz")["codebooks"]
    return Tokens(shards, codebooks, about, pl.DataFrame(about["quarantine"], QUARANTINE, orient="row"))
