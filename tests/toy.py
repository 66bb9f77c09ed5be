"""A small saved study with random codes and labels, and everything fitted to it."""

from pathlib import Path

import numpy as np
import polars as pl

from rvqprobe import clusters, counts, probes, split, store, tokens
from rvqprobe.clusters import Sums
from rvqprobe.split import Split
from rvqprobe.store import Layout
from rvqprobe.tokens import Tokens

PHONES = ["AA", "IY", "S", "sil"]
RATE = 50.0


def toy_study(
    folder: Path, seed: int, shards: int = 3, voiced: bool = True
) -> tuple[Layout, Split, Tokens, pl.DataFrame]:
    """A saved split and token table of 4 speakers with 10 utterances each, labels depending on codes, and all its rows.

    One speaker's held-out tokens hold a phone that no training token has, and some tokens have no phone.
    """
    rng = np.random.default_rng(seed)
    names = [f"{speaker}-1-{number:02d}" for speaker in (1, 2, 3, 4) for number in range(10)]
    speakers = [name.split("-")[0] for name in names]
    utterances = split.divide(
        pl.DataFrame({"utterance": names, "speaker": speakers, "chapter": ["1"] * 40, "seconds": [1.0] * 40}), 0.2, seed
    )
    layout = Layout(folder, "toy")
    store.write_table(utterances, layout.split)
    classes = {"phoneme": PHONES, "speaker": ["1", "2", "3", "4"]}
    known = {"AA1": "AA", "IY0": "IY", "S": "S", "": "sil"}
    store.write_json({"made_from": "toy", "classes": classes, "phone_classes": known}, layout.split_json)
    tables = []
    for name, speaker in zip(names, speakers, strict=True):
        n = int(rng.integers(5, 30))
        phone = rng.choice(["AA1", "IY0", "S", "", None], n, p=[0.3, 0.3, 0.2, 0.15, 0.05])
        number = np.array([["AA1", "IY0", "S", "", None].index(p) for p in phone])
        hz = 100.0 + 20 * int(speaker) + rng.normal(size=n)
        follows = rng.random((n, 2)) < 0.6
        codes = np.where(follows, np.stack([number, 4 + np.full(n, int(speaker))], axis=1), rng.integers(0, 10, (n, 2)))
        f0 = [h if voiced and p in ("AA1", "IY0") else None for h, p in zip(hz.tolist(), phone, strict=True)]
        tables.append(
            pl.DataFrame(
                {
                    "utterance": [name] * n,
                    "speaker": [speaker] * n,
                    "chapter": ["1"] * n,
                    "frame": pl.Series(range(n), dtype=pl.UInt32),
                    "q1": pl.Series(codes[:, 0], dtype=pl.UInt16),
                    "q2": pl.Series(codes[:, 1], dtype=pl.UInt16),
                    "phone": pl.Series(phone.tolist(), dtype=pl.String),
                    "f0_hz": pl.Series(f0, dtype=pl.Float32),
                }
            )
        )
    files = []
    for number, part in enumerate(np.array_split(np.arange(40), shards)):
        files.append(f"tokens-{number}.parquet")
        table = pl.concat([tables[i] for i in part])
        tokens.write_shard(table, layout.tokens("toy") / files[-1])
    store.write_arrays(layout.tokens("toy") / "codebooks.npz", codebooks=rng.normal(size=(2, 10, 6)).astype(np.float32))
    about = {"frame_rate": RATE, "shards": files, "split": "toy"}
    store.write_json(about, layout.tokens("toy") / "tokens.json")
    made = split.load(layout)
    rows = pl.concat(tables).join(utterances.select("utterance", "part"), on="utterance", maintain_order="left")
    return layout, made, tokens.load(layout, "toy", made), rows


def fit(made: Split, table: Tokens) -> tuple[counts.Counts, list[probes.Probe], list[Sums]]:
    counted = counts.read(table, made, 0)
    fitted = probes.fit_all(counted, table.codebooks, probes.Settings(1.0, 1000, 1, 1, 0))
    return counted, fitted, clusters.collect(table, made, fitted)
