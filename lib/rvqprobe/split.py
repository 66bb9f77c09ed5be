"""The split: which utterances are studied, which of them are held out, and the classes that probes tell apart."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rvqprobe import phones, store
from rvqprobe.params import ParameterError
from rvqprobe.store import Layout

TRAIN, EVAL = "train", "eval"
MINUTES = pl.col("seconds").sum() / 60
CLUSTER = {"phoneme": "speaker", "speaker": "utterance", "pitch": "speaker"}
"""Whose tokens stand or fall together in each task: the unit of resampling and of the folds of the training part."""
FEWEST = 10
"""Utterances that a speaker needs to be chosen: one of them is held out at the default ``eval_fraction``."""


@dataclass(frozen=True)
class Split:
    """A saved split."""

    utterances: pl.DataFrame
    """The utterance table (``corpus.scan``) of the chosen utterances, with a column ``part``: train or eval."""
    classes: dict[str, list[str]]
    """The classes of the tasks ``phoneme`` and ``speaker``, as found in the training part."""
    phone_classes: dict[str, str]
    """From a TextGrid's label to its phoneme class; labels that are not here have none."""
    made_from: str
    """Key of all that the split was made from."""


def seeded_order(names: Iterable[str], seed: int) -> list[str]:
    """Return ``names`` in a random order that depends on nothing but the seed and each name itself."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def choose(utterances: pl.DataFrame, max_utterances: int, seed: int) -> pl.DataFrame:
    """Return at most ``max_utterances`` rows: whole speakers, in seeded order, each with ``FEWEST`` or more.

    Of a speaker with more than a fifth of ``max_utterances``, that many utterances are taken (but at least
    ``FEWEST``), so that a small number still holds several voices. 0 returns the whole table. Raises ParameterError
    where no speaker fits.
    """
    if not max_utterances:
        return utterances
    quota = max(FEWEST, max_utterances // 5)
    chosen: list[str] = []
    by_speaker = utterances.group_by("speaker").agg("utterance")
    names = dict(by_speaker.iter_rows())
    for speaker in seeded_order(names, seed):
        mine = seeded_order(names[speaker], seed)[:quota]
        if FEWEST <= len(mine) <= max_utterances - len(chosen):
            chosen += mine
    if not chosen:
        raise ParameterError(
            f"parameter max_utterances = {max_utterances}: no speaker fits, since each needs {FEWEST} utterances"
        )
    return utterances.filter(pl.col("utterance").is_in(chosen))


def divide(utterances: pl.DataFrame, eval_fraction: float, seed: int) -> pl.DataFrame:
    """Return the table with a column ``part``: of each speaker the rounded share ``eval_fraction`` is held out.

    At least one utterance of each speaker is held out and one is for training; a speaker's only utterance is for
    training. A speaker's division does not depend on the other speakers.
    """
    held_out: list[str] = []
    for _, names in utterances.group_by("speaker").agg("utterance").iter_rows():
        count = min(max(1, round(eval_fraction * len(names))), len(names) - 1)
        held_out += seeded_order(names, seed)[:count]
    is_eval = pl.col("utterance").is_in(held_out)
    return utterances.with_columns(part=pl.when(is_eval).then(pl.lit(EVAL)).otherwise(pl.lit(TRAIN)))


def held_out_clusters(split: Split, by: str) -> tuple[list[str], np.ndarray]:
    """Return the names of the held-out clusters and the cluster's number (−1: training) of each utterance.

    ``by`` is "speaker" or "utterance". The names depend on the split alone, so that codecs share them.
    """
    held_out = split.utterances.filter(part=EVAL)[by].unique(maintain_order=True).to_list()
    number = {name: n for n, name in enumerate(held_out)}
    rows = split.utterances.select(by, "part").iter_rows()
    return held_out, np.array([number[name] if part == EVAL else -1 for name, part in rows])


def fold_of_utterance(split: Split, by: str, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each utterance: 0 … ``folds`` − 1 of training ones, ``folds`` of held-out ones.

    A fold holds whole speakers, or whole utterances, of which each speaker's are spread over all folds.
    """
    training = split.utterances.filter(part=TRAIN)
    names = dict(training.group_by("speaker").agg(members=pl.col(by).unique()).iter_rows())
    order = [name for speaker in seeded_order(names, seed) for name in seeded_order(names[speaker], seed)]
    fold = {name: rank % folds for rank, name in enumerate(order)}
    rows = split.utterances.select(by, "part").iter_rows()
    return np.array([fold[name] if part == TRAIN else folds for name, part in rows])


def label_classes(
    utterances: pl.DataFrame, intervals: pl.DataFrame, silence: str, stress: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the classes of both tasks in the training part, and the class of each TextGrid label that has one there."""
    training = utterances.filter(part=TRAIN)
    in_training = pl.col("utterance").is_in(training["utterance"].to_list())
    found = {label: phones.phoneme_class(label, silence, stress) for label in sorted(intervals["phone"].unique())}
    present = {found[label] for label in intervals.filter(in_training)["phone"].unique()}
    phone_classes = {label: name for label, name in found.items() if name is not None and name in present}
    phonemes = sorted(set(phone_classes.values()), key=phones.class_order)
    speakers = sorted(set(training["speaker"]), key=lambda s: (len(s), s))
    return {"phoneme": phonemes, "speaker": speakers}, phone_classes


def make(
    layout: Layout, utterances: pl.DataFrame, quarantine: pl.DataFrame, alignments_dir: Path, options: dict[str, Any],
    workers: int, force: bool = False,
) -> tuple[Split, str]:  # fmt: skip
    """Return the split of the chosen ``utterances``, made and saved or reused, and a sentence that says which.

    ``quarantine`` is the scan's; that of the TextGrids is added to it. ``options`` holds ``eval_fraction``, ``seed``,
    ``silence`` and ``stress``. A saved split is reused where utterances, TextGrids and options are the same, unless
    ``force`` is set. Where several processes make it at once, one does and the others wait.
    """
    made_from = store.key(utterances.rows(), quarantine.rows(), options)
    with store.alone(layout.lock):
        saved = load(layout).made_from if layout.split_json.exists() else None
        if saved == made_from and not force:
            return load(
                layout
            ), f"Reused the split in {layout.split_json}: it was made from the same speech and parameters."
        intervals, unreadable = phones.read(utterances, alignments_dir, workers)
        divided = divide(utterances, options["eval_fraction"], options["seed"])
        _save(layout, divided, intervals, pl.concat([quarantine, unreadable]), options, made_from)
        why = "speech or parameters have changed" if saved else "none was saved"
        return load(layout), f"Made the split in {layout.split_json}, since {'force_resplit is set' if force else why}."


def _save(
    layout: Layout, utterances: pl.DataFrame, intervals: pl.DataFrame, quarantine: pl.DataFrame,
    options: dict[str, Any], made_from: str,
) -> None:  # fmt: skip
    """Write the tables; ``split.json`` comes last and makes them valid."""
    classes, phone_classes = label_classes(utterances, intervals, options["silence"], options["stress"])
    layout.split_json.unlink(missing_ok=True)
    store.write_table(intervals, layout.phones)
    store.write_table(quarantine, layout.quarantine)
    store.write_table(utterances, layout.split)
    content = {"made_from": made_from, "options": options, "classes": classes, "phone_classes": phone_classes}
    parts = {part: utterances.filter(part=part)["utterance"].to_list() for part in (TRAIN, EVAL)}
    store.write_json(content | parts, layout.split_json)


def load(layout: Layout) -> Split:
    """Return the saved split; MissingInput where 01_split has not run to its end."""
    content = json.loads(layout.require(layout.split_json, "01_split").read_text())
    utterances = pl.read_parquet(layout.require(layout.split, "01_split"))
    return Split(utterances, content["classes"], content["phone_classes"], content["made_from"])


def quarantined(layout: Layout) -> pl.DataFrame:
    """Return the saved quarantine table: utterance, path, reason, effect."""
    return pl.read_parquet(layout.require(layout.quarantine, "01_split"))


def summary(split: Split) -> pl.DataFrame:
    """Return utterances, speakers, hours and alignments of each part, and how evenly speakers share it.

    ``shared_chapters`` is the share of its utterances from chapters that have training utterances too.
    """
    by_speaker = split.utterances.group_by("part", "speaker").len()
    balance = by_speaker.group_by("part").agg(min_a_speaker=pl.col("len").min(), max_a_speaker=pl.col("len").max())
    in_training = split.utterances.filter(part=TRAIN)["chapter"].unique().to_list()
    parts = split.utterances.group_by("part").agg(
        utterances=pl.len(),
        no_textgrid=pl.col("textgrid").null_count(),
        speakers=pl.col("speaker").n_unique(),
        hours=MINUTES / 60,
        shared_chapters=pl.col("chapter").is_in(in_training).mean(),
        median_s=pl.col("seconds").median(),
    )
    return parts.join(balance, on="part").sort("part", descending=True)


def phone_minutes(split: Split, layout: Layout) -> pl.DataFrame:
    """Return aligned minutes by phoneme class and part, in the classes' order; the class "none" has no label."""
    order = {name: number for number, name in enumerate([*split.classes["phoneme"], "none"])}
    return (
        pl.read_parquet(layout.phones)
        .join(split.utterances.select("utterance", "part"), on="utterance")
        .with_columns(
            phoneme=pl.col("phone").replace_strict(split.phone_classes, default="none", return_dtype=pl.String),
            seconds=pl.col("end") - pl.col("start"),
        )
        .group_by("phoneme", "part")
        .agg(minutes=MINUTES)
        .sort(pl.col("part"), pl.col("phoneme").replace_strict(order), descending=[True, False])
    )
