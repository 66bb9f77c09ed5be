"""Phones: their names, their intervals in TextGrids, and the one that a token falls into."""

from pathlib import Path

import numpy as np
import polars as pl
import textgrid

from rvqprobe.corpus import FEWER_PHONES, NO_PHONES, QUARANTINE
from rvqprobe.progress import track
from rvqprobe.workers import choose, each

BROAD_CLASSES = {
    "vowel": "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "stop": "P B T D K G",
    "affricate": "CH JH",
    "fricative": "F V TH DH S Z SH ZH HH",
    "nasal": "M N NG",
    "approximant": "L R W Y",
    "silence": "sil",
}
"""The 39 ARPAbet phones and silence, by broad class; the order of phoneme classes everywhere."""
PHONEMES = tuple(phone for members in BROAD_CLASSES.values() for phone in members.split())
SILENCE_LABELS = ("sil", "sp", "")
UNKNOWN_SPEECH = "spn"
SLACK = 0.1
"""Seconds by which a TextGrid may be longer or shorter than its audio."""
INTERVALS = {"utterance": pl.String, "phone": pl.String, "start": pl.Float64, "end": pl.Float64}


def phoneme_class(label: str, silence: str = "class", stress: str = "strip") -> str | None:
    """Return the phoneme class of a TextGrid's label, or None where it has none (``spn``, an unknown phone).

    ``silence`` "drop" leaves silence without a class; ``stress`` "keep" leaves AH0 and AH1 apart.
    """
    if label in SILENCE_LABELS:
        return "sil" if silence == "class" else None
    bare = label.rstrip("012")
    if bare not in PHONEMES or bare == "sil":
        return None
    return label if stress == "keep" else bare


def broad_class(phoneme: str) -> str:
    """Return the broad class of a phoneme class."""
    return next(name for name, members in BROAD_CLASSES.items() if phoneme.rstrip("012") in members.split())


def class_order(label: str) -> tuple[int, str]:
    """Sort key that puts phoneme classes in the order of ``PHONEMES``."""
    return PHONEMES.index(label.rstrip("012")), label


def read_textgrid(path: Path) -> list[tuple[str, float, float]]:
    """Return the (label, start, end) of a TextGrid's tier ``phones``, seconds.

    Raises ValueError, saying why, where the file is no TextGrid or has no such tier.
    """
    try:
        grid = textgrid.TextGrid.fromFile(str(path))
        tier = grid.getFirst("phones")
    except Exception as error:  # the package lets whatever its parser meets escape
        raise ValueError(f"not readable as a TextGrid: {type(error).__name__} {error}") from error
    if tier is None or not len(tier):
        raise ValueError("no tier 'phones' in the TextGrid, or an empty one")
    return [(interval.mark.strip(), interval.minTime, interval.maxTime) for interval in tier]


def _read_or_reason(path: Path, seconds: float) -> list[tuple[str, float, float]] | str:
    try:
        intervals = read_textgrid(path)
    except ValueError as error:
        return str(error)
    if abs(intervals[-1][2] - seconds) > SLACK:
        return f"another length than the audio: {intervals[-1][2]:.2f} s and {seconds:.2f} s"
    return intervals


def read(utterances: pl.DataFrame, alignments_dir: Path, workers: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the phone intervals of all ``utterances`` (seconds, in order) and a quarantine table.

    The TextGrids are read by ``workers`` processes. One that can't be read, or whose length is not the audio's, leaves
    its utterance without phones; an unknown phone leaves its tokens without a phoneme. Both are in the quarantine table.
    """
    aligned = utterances.filter(pl.col("textgrid").is_not_null())
    wanted = aligned.select("utterance", "textgrid", "seconds").rows()
    arguments = ((alignments_dir / grid, seconds) for _, grid, seconds in wanted)
    parsed = each(_read_or_reason, arguments, choose(workers, len(wanted), 500))
    rows, quarantine = [], []
    for (name, grid, _), found in zip(wanted, track(parsed, len(wanted), "TextGrids", "file"), strict=True):
        if isinstance(found, str):
            quarantine.append((name, grid, found, NO_PHONES))
            continue
        rows += [(name, *interval) for interval in found]
        labels = dict.fromkeys(label for label, _, _ in found if label != UNKNOWN_SPEECH)
        if strange := [label for label in labels if phoneme_class(label) is None]:
            quarantine.append((name, grid, f"unknown phones: {' '.join(strange)}", FEWER_PHONES))
    return pl.DataFrame(rows, INTERVALS, orient="row"), pl.DataFrame(quarantine, QUARANTINE, orient="row")


def at(seconds: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return for each time the number of the interval with start ≤ time < end, −1 where there is none.

    ``seconds`` (T,) are the times, ``start`` and ``end`` (I,) the intervals in order, all in seconds; int64 (T,).
    They are compared in whole microseconds: boundaries, given in steps of 10 ms, often fall on a token's centre.
    """
    if not len(start):
        return np.full(len(seconds), -1)
    time, begin, stop = (np.rint(1e6 * np.asarray(x)).astype(np.int64) for x in (seconds, start, end))
    index = np.searchsorted(begin, time, side="right") - 1
    return np.where((index >= 0) & (time < stop[index]), index, -1)
