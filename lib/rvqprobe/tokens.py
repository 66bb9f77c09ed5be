"""The token table: codes, phone and F0 of every token, in shards that an interrupted run never makes twice."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl

from rvqprobe import audio, codecs, phones, pitch, store
from rvqprobe.codecs import Codec
from rvqprobe.corpus import LEFT_OUT, QUARANTINE
from rvqprobe.progress import bar, track
from rvqprobe.split import TRAIN, Split, seeded_order
from rvqprobe.store import Layout, MissingInput
from rvqprobe.workers import each

FORMAT = 1
"""Part of every shard's key: to be raised when what a shard holds, or how labels are made, changes."""
SHARD_SECONDS = 600.0
FITTING_SECONDS = 4000.0
"""Training speech that a codec may fit its codebooks to."""


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


def build_codec(
    codec: str, split: Split, layout: Layout, corpus_dir: Path, checkpoints_dir: Path, device: str, seed: int
) -> Codec:
    """Return the codec, fitted (where it has to be) to training speech of ``split``, or as fitted before."""
    training = split.utterances.filter(part=TRAIN)
    seconds, paths = (
        dict(training.select("utterance", "seconds").iter_rows()),
        dict(training.select("utterance", "path").iter_rows()),
    )
    chosen: list[Path] = []
    total = 0.0
    for name in seeded_order(seconds, seed):
        if total < FITTING_SECONDS:
            chosen.append(corpus_dir / paths[name])
            total += seconds[name]

    def training_speech(sample_rate: int) -> Iterator[np.ndarray]:
        for path in track(chosen, len(chosen), "training speech", "utterance"):
            try:
                yield audio.read(path, sample_rate).waveform
            except audio.AudioError:
                continue  # the encoding quarantines it, with its reason

    source = codecs.Source(
        training_speech=training_speech,
        training_digest=store.key([store.file_digest(path) for path in chosen if path.is_file()]),
        checkpoints_dir=checkpoints_dir,
        device=device,
        seed=seed,
        cache=layout.tokens(codecs.name(codec)) / "fitted.npz",
    )
    return codecs.build(codec, source)


def encode(
    codec: str, built: Codec, split: Split, layout: Layout, corpus_dir: Path, f0_min: float, f0_max: float, workers: int
) -> Tokens:
    """Encode and label every utterance of ``split``; return the saved token table.

    Shards that are there already, made from the same audio, alignments, codec and settings, are kept. Audio that
    can't be used is quarantined. Readers and F0 run in ``workers`` processes beside the codec.
    """
    name = codecs.name(codec)
    folder = layout.tokens(name)
    manifest = folder / "tokens.json"
    rows = split.utterances.sort("utterance").to_dicts()
    made_from = [FORMAT, codecs.fingerprint(codec, built), f0_min, f0_max]
    plan = _plan(rows, corpus_dir, folder, made_from, workers)
    whole = store.key([path.name for path, _ in plan], split.made_from)
    if manifest.exists() and json.loads(manifest.read_text())["made_from"] != whole:
        manifest.unlink()
    store.write_arrays(folder / "codebooks.npz", codebooks=built.codebooks)
    if not all(path.exists() for path, _ in plan):
        _make(plan, built, layout, corpus_dir, f0_min, f0_max, workers)
    if not manifest.exists():
        store.write_json(_about(name, built, plan, rows, split.made_from, whole), manifest)
    for stray in set(folder.glob("*.parquet")) - {path for path, _ in plan}:
        stray.unlink()
    return load(layout, name)


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


Plan = list[tuple[Path, list[dict[str, Any]]]]


def _plan(rows: list[dict[str, Any]], corpus_dir: Path, folder: Path, made_from: list[Any], workers: int) -> Plan:
    """Return the shards, each a path that holds its key and its utterances."""
    hasher = joblib.Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    digests = hasher(joblib.delayed(_digest)(corpus_dir / row["path"]) for row in rows)
    shards: list[list[tuple[dict[str, Any], str]]] = [[]]
    for row, digest in zip(rows, track(digests, len(rows), "fingerprints", "utterance"), strict=True):
        if sum(r["seconds"] for r, _ in shards[-1]) > SHARD_SECONDS:
            shards.append([])
        shards[-1].append((row, digest))
    plan = []
    for number, shard in enumerate(shards):
        key = store.key(made_from, [(row["utterance"], digest, row["textgrid_sha256"]) for row, digest in shard])
        plan.append((folder / f"tokens-{number:05d}-{key[:16]}.parquet", [row for row, _ in shard]))
    return plan


def _digest(path: Path) -> str:
    return store.file_digest(path) if path.is_file() else "missing"


def _make(
    plan: Plan, built: Codec, layout: Layout, corpus_dir: Path, f0_min: float, f0_max: float, workers: int
) -> None:  # fmt: skip
    """Write the shards of ``plan`` that are not there."""
    waiting = [shard for shard in plan if not shard[0].exists()]
    finished = [shard for shard in plan if shard not in waiting]
    by_utterance = pl.read_parquet(layout.phones).partition_by("utterance", as_dict=True)
    intervals = {name: table for (name,), table in by_utterance.items()}
    settings = (built.sample_rate, built.frame_rate, f0_min, f0_max)
    heard = each(_listen, ((corpus_dir / row["path"], *settings) for _, rows in waiting for row in rows), workers)
    done, total = (sum(row["seconds"] for _, rows in part for row in rows) for part in (finished, plan))
    with bar(total, "encode", "s of audio") as progress:
        progress.update(done)
        for path, rows in waiting:
            tables, notes, quarantine = [], Counter[str](), []
            for row in rows:
                found = next(heard)
                if isinstance(found, str):
                    quarantine.append((row["utterance"], row["path"], found, LEFT_OUT))
                else:
                    sound, hertz = found
                    notes.update(sound.notes)
                    (codes,) = built.encode([sound.waveform])
                    tables.append(_table(row, codes, hertz, intervals.get(row["utterance"]), built.frame_rate))
                progress.update(row["seconds"])
            empty = _table(rows[0], np.zeros((0, len(built.codebooks)), np.uint16), np.zeros(0, np.float32), None, 1.0)
            about = json.dumps({"notes": notes, "quarantine": quarantine})
            store.write_table(pl.concat([empty, *tables]), path, metadata={"about": about})
        next(heard, None)  # exhausted, so that the workers end


def _listen(
    path: Path, sample_rate: int, frame_rate: float, f0_min: float, f0_max: float
) -> tuple[audio.Audio, np.ndarray] | str:
    """Return an utterance's audio and F0 (a little longer than its tokens), or the reason why it can't be used."""
    try:
        sound = audio.read(path, sample_rate)
    except audio.AudioError as error:
        return str(error)
    frames = int(len(sound.waveform) * frame_rate / sample_rate) + 2
    return sound, pitch.f0(sound.waveform, sample_rate, frame_rate, frames, f0_min, f0_max)


def _table(
    row: dict[str, Any], codes: np.ndarray, hertz: np.ndarray, intervals: pl.DataFrame | None, frame_rate: float
) -> pl.DataFrame:
    """Return the tokens of one utterance; ``codes`` is (T, L), ``hertz`` (at least T,)."""
    count = len(codes)
    phone = pl.Series("phone", [None] * count, pl.String)
    if intervals is not None:
        index = phones.at(
            (np.arange(count) + 0.5) / frame_rate, intervals["start"].to_numpy(), intervals["end"].to_numpy()
        )
        label = pl.Series(index).replace(-1, None)
        phone = intervals["phone"].gather(label).replace("spn", None).rename("phone")
    return pl.DataFrame(
        {
            "utterance": pl.repeat(row["utterance"], count, eager=True),
            "speaker": pl.repeat(row["speaker"], count, eager=True),
            "chapter": pl.repeat(row["chapter"], count, eager=True),
            "frame": pl.Series(np.arange(count, dtype=np.uint32)),
            **{f"q{layer}": pl.Series(codes[:, layer - 1]) for layer in range(1, codes.shape[1] + 1)},
            "phone": phone,
            "f0_hz": pl.Series(hertz[:count], dtype=pl.Float32).fill_nan(None),
        }
    )


def _about(
    codec: str, built: Codec, plan: Plan, rows: list[dict[str, Any]], split: str, made_from: str
) -> dict[str, Any]:
    """Return the manifest of a finished token table."""
    layers, size, dimension = built.codebooks.shape
    footers = [json.loads(pl.read_parquet_metadata(path)["about"]) for path, _ in plan]
    notes = sum((Counter(footer["notes"]) for footer in footers), Counter[str]())
    paths = [path for path, _ in plan]
    return {
        "codec": codec,
        "sample_rate": built.sample_rate,
        "frame_rate": built.frame_rate,
        "layers": layers,
        "codebook_size": size,
        "dimension": dimension,
        "utterances": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "tokens": pl.scan_parquet(paths).select(pl.len()).collect().item(),
        "notes": notes,
        "quarantine": [entry for footer in footers for entry in footer["quarantine"]],
        "shards": [path.name for path in paths],
        "split": split,
        "made_from": made_from,
    }
